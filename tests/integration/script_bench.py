"""A lane taken and settled by hand, step by step, on a clock that is moved: for tests of single scripts."""

from __future__ import annotations

from typing import Any

from cancelq.contract import Lane, Status
from cancelq_worker.events import head
from cancelq_worker.records import (
    Admission,
    Admitted,
    End,
    Hold,
    Move,
    PermitUse,
    RoundRequest,
    Settled,
    Settlement,
    Taken,
    TakeRequest,
)
from cancelq_worker.state import State, Work
from cancelq_worker.trips import command
from cancelq_worker.venues.bitget.adapter import BUCKETS
from cancelq_worker.venues.port import Bucket, Stage
from tests.integration.lone_ledger import Desk
from tests.integration.rig import LANE

BATCH = next(bucket for bucket in BUCKETS if bucket.name == "batch-cancel-order")
SINGLE = next(bucket for bucket in BUCKETS if bucket.name == "cancel-order")
LEASE_US = 5_000_000  # of a lone desk
#: As settle.lua has it.
GUARD_US = 2_000


class Bench:
    """`admit`, `take`, `settle` are one script each; `forward` lets time pass."""

    lane: Lane = LANE

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.ledger = desk.ledger
        self._batches = 0

    # -- steps

    async def admit(self, *entries: dict[str, str]) -> Admitted:
        """Entries, as producers write them, in one page."""
        after = await self.ledger.cursor()
        for fields in entries:
            await self.desk.add(**fields)
        return await self.desk.admit(await self.desk.read(after))

    async def orders(self, *ids: str, **more: str) -> Admitted:
        """One intent for each id, which is its order's number, too."""
        return await self.admit(*({"id": f"i-{id_}", "symbol": "BTCUSDT", "order_id": id_, **more} for id_ in ids))

    async def admission(self) -> Admission:
        """What a worker that reads now would have admitted."""
        cursor = await self.ledger.cursor()
        return self.desk.intake.prepare(cursor, await self.desk.read(cursor))

    async def apply(self, admission: Admission) -> Admitted:
        reply = (await self.ledger.round(RoundRequest(admission=admission))).admitted
        assert isinstance(reply, Admitted)
        return reply

    async def take(self, stages: str = "c", closed: tuple[str, ...] = (), *, suspects: bool = True) -> Taken:
        self._batches += 1
        request = TakeRequest(stages, f"b-{self._batches}", closed=closed, suspects=suspects)
        (taken,) = (await self.ledger.round(RoundRequest(takes=[request]))).taken
        assert isinstance(taken, Taken)
        return taken

    async def settle(self, settlement: Settlement) -> Settled:
        (settled,) = (await self.ledger.round(RoundRequest([settlement]))).settled
        assert isinstance(settled, Settled)
        return settled

    async def permit(self, member: str, how: str, *, rtt_us: int = 0) -> None:
        """Settles what became of a permit of the batch bucket, and nothing else."""
        await self.settle(Settlement(PermitUse(BATCH, 1, member, how, rtt_us=rtt_us), []))

    async def granted(self, bucket: Bucket, member: str) -> bool:
        """Whether a call that no take grants may be made, for which it has a permit then."""
        return await self.ledger.permit(bucket, member) is not None

    async def hold(self, for_us: int) -> None:
        await self.settle(Settlement(None, [], holds=[Hold("*", "rate", for_us, "test")]))

    # -- time

    async def forward(self, us: int) -> None:
        """Lets that much steady time pass; Redis' own clock stays."""
        await self._clock(1, us)

    async def jump(self, us: int) -> None:
        """Redis' clock jumps by so much."""
        await self._clock(0, -us)

    async def other_server(self) -> None:
        """What the lane remembers of its server is another one's."""
        words = (await command(self.desk.client, "GET", LANE.key("clock"))).split()
        words[2] = b"0" * 40
        await command(self.desk.client, "SET", LANE.key("clock"), b" ".join(words))

    async def steady(self) -> int:
        """The steady clock as the last script left it."""
        return int((await command(self.desk.client, "GET", LANE.key("clock"))).split()[1])

    async def _clock(self, word: int, us: int) -> None:
        words = (await command(self.desk.client, "GET", LANE.key("clock"))).split()
        words[word] = str(int(words[word]) + us).encode()
        await command(self.desk.client, "SET", LANE.key("clock"), b" ".join(words))

    # -- what is there

    async def permit_ends(self, bucket: str = BATCH.name) -> list[int]:
        """When each permit is free again, counted from the steady clock, in µs."""
        rows = await command(self.desk.client, "ZRANGE", LANE.key(f"permits:{bucket}"), 0, -1, "WITHSCORES")
        scores = [float(score) for _, score in rows] if rows and isinstance(rows[0], list | tuple) else rows[1::2]
        now = await self.steady()
        return [int(float(score)) - now for score in scores]

    async def holds(self) -> dict[str, int]:
        """Reason → for how long from now, in µs; -1 without end."""
        kept: dict[bytes, bytes] = await command(self.desk.client, "HGETALL", LANE.key("hold"))
        now = await self.steady()
        left = {name.decode().partition("|")[2]: int(text.split()[0]) for name, text in kept.items()}
        return {reason: till if till == -1 else till - now for reason, till in left.items()}

    async def state(self, id_: str) -> State | None:
        line = await command(self.desk.client, "HGET", LANE.key("state"), id_)
        return State.parse(line) if line else None

    async def told(self) -> list[dict[str, str]]:
        """Every event so far."""
        rows: list[Any] = await command(self.desk.client, "XRANGE", LANE.results, "-", "+")
        return [{k.decode(): v.decode() for k, v in _fields(flat)} for _, flat in rows]


def _fields(flat: Any) -> list[tuple[bytes, bytes]]:
    return list(flat.items()) if isinstance(flat, dict) else list(zip(flat[::2], flat[1::2], strict=True))


def works_of(taken: Taken) -> list[Work]:
    """What a take granted; it must have."""
    assert taken.batch is not None, f"nothing was granted; look again in {taken.wait_us} us"
    return taken.batch.works


def ended(work: Work, status: Status = Status.cancelled) -> End:
    """The settlement of one intent that ended so."""
    return End(work, head(LANE, work.id, status, "query", "test"), True, True, work.before.orders)


def looked_for(work: Work, delay_us: int = 0, sent_us: int = 0) -> Move:
    """The settlement of one cancel that was acknowledged; `delay_us`: until it is looked for;
    `sent_us`: when its call was taken, by Redis' clock."""
    state = work.taken(stage=Stage.CANCEL, batch_id="b", route=BATCH.name, size=1, taken_us=sent_us)
    state.stage = Stage.LOOK
    return Move(work, state, delay_us)
