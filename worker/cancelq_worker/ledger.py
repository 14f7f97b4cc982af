"""The ledger: a lane's state in Redis, behind one typed function per script.

Everything that must be atomic is one Lua file in `lua/`; its header tells keys, arguments, replies and whose
clock. This module turns Python values into their arguments and replies into Python values, and nothing else.
A lane's round (`RedisLedger.round`) sends what is to be settled, admitted, taken and read in one trip.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, cast

import orjson
import redis.asyncio as aioredis
from redis.exceptions import NoScriptError, RedisError, ResponseError

from cancelq.contract import MAX_ENTRY_BYTES, Lane
from cancelq_worker.data_version import NEWER, NewerDataError, is_newer
from cancelq_worker.page_size import PageSize
from cancelq_worker.records import (
    Admission,
    Admitted,
    Batch,
    End,
    KeyTried,
    LanePlan,
    LocalStep,
    NewIntent,
    NewOutcome,
    Overtaking,
    Round,
    RoundRequest,
    Scanned,
    Settled,
    Settlement,
    StreamStep,
    Taken,
    TakeRequest,
)
from cancelq_worker.scripts import NOT_WAITED_FOR, SCRIPTS, Durability
from cancelq_worker.state import LOCAL, Work
from cancelq_worker.trips import (
    ask_all,
    command,
    home,
    read_entries,
    round_trip,
    script_keys,
)
from cancelq_worker.venues.port import Bucket, Stage

STREAM_LEASE_MS = 4_000

#: How long after a question about the key's rights the next one may be asked.
RIGHTS_MS = 6_000  # a question may be a few seconds late, and the server's clock be set

HEALS_MOST = 3  # times in a round that missing scripts are loaded

PROBED_S = 300  # how long what came of a key stands there for whoever asked


def _place(kept: bytes | None) -> str:
    """The entry up to which a lane has admitted, by its key `cursor`."""
    return kept.decode() if kept else "0-0"


def memory_key(id_: str) -> bytes:
    """The 12 bytes by which a settled id is remembered; SHA-1, because Lua has it too."""
    return hashlib.sha1(id_.encode(), usedforsecurity=False).digest()[:12]


class Ledger(Protocol):
    """A lane's state, as a lane uses it."""

    async def version(self, raise_to: int = 0) -> int: ...
    async def open(self) -> str: ...
    async def arrive(self, vouched_us: int) -> int: ...
    async def round(self, wanted: RoundRequest) -> Round: ...
    async def permit(self, bucket: Bucket, member: str) -> int | None: ...
    async def claim(self, orders: Sequence[str]) -> tuple[list[Work], int]: ...
    async def stream(self, worker: str, what: StreamStep) -> bool: ...
    async def forgotten(self) -> bool: ...
    async def standing(self) -> tuple[str, bool]: ...
    async def trim(self, keep_ms: int, dedup_hours: int, now_ms: int) -> None: ...
    async def take_probe(self) -> bytes: ...
    async def answer_probe(self, asked: bytes, tried: KeyTried) -> None: ...
    async def ask_probe(self) -> None: ...
    async def key_refused(self) -> bool: ...
    async def may_ask_rights(self) -> bool: ...
    async def lift(self, reason: str) -> None: ...


async def key_refused(client: aioredis.Redis, lane: Lane) -> bool:
    """Whether a lane is held because of its key."""
    return bool(await client.hexists(lane.key("hold"), "*|auth"))


class RedisLedger:
    """The ledger of one lane on Redis 7.0+ or Valkey 7.2+."""

    READ_MOST = 250
    SCAN_MOST = 2_500  # entries looked at for urgent ones in a round: some four milliseconds
    URGENT_MOST = 50

    def __init__(self, client: aioredis.Redis, plan: LanePlan, durability: Durability = NOT_WAITED_FOR) -> None:
        self._durability = durability
        self._client = home(client, plan.lane.inbox)
        self._plan = plan
        self._plan_text = plan.text()
        self._clock = plan.lane.key("clock")
        self._keys = script_keys(self._client, self._clock)
        self._inbox = plan.lane.inbox
        self._page = PageSize(self.READ_MOST)

    async def open(self) -> str:
        """Creates the lane's streams if they are missing; the cursor. Two trips for a lane that was served before: a
        worker opens many."""
        lane, buckets = self._plan.lane, self._plan.buckets
        told = [("HGET", lane.key(f"rtt:{bucket.name}"), "units") for bucket in buckets]
        there = await ask_all(
            self._client, [("EXISTS", lane.inbox), ("EXISTS", lane.results), *told, ("GET", lane.key("cursor"))]
        )
        for stream, exists in zip((lane.inbox, lane.results), there, strict=False):
            if not exists:
                # The one way to make an empty stream: a group that is taken away again.
                try:
                    await self._client.xgroup_create(stream, "cancelq-make", id="$", mkstream=True)
                except ResponseError as error:
                    if "BUSYGROUP" not in str(error):
                        raise
                await self._client.xgroup_destroy(stream, "cancelq-make")
        # For `status` alone; a full memory, which refuses it, must not keep a worker away.
        await round_trip(self._client, [("HSET", lane.key("limits"), *_limits(buckets, there[2:-1]))])
        return _place(there[-1])

    async def arrive(self, vouched_us: int) -> int:
        """Begins to watch the lane; the server's time. `vouched_us`: for how long this worker has known how the
        server's clock goes: what passed before that may have been a step of it, and frees no permit."""
        return int(await SCRIPTS.run(self._client, "arrive", [self._clock], [vouched_us]))

    async def version(self, raise_to: int = 0) -> int:
        """Of which version the lane's data are; raised to at least `raise_to`, if it is given."""
        return int(await SCRIPTS.run(self._client, "version", [self._clock], [raise_to]))

    async def cursor(self) -> str:
        """Where the admission stands in the inbox."""
        return _place(await cast("Awaitable[bytes | None]", self._client.get(self._plan.lane.key("cursor"))))

    async def forgotten(self) -> bool:
        """Whether the server knows of no round of the lane."""
        return not await self._client.exists(self._clock)

    async def standing(self) -> tuple[str, bool]:
        """Where the admission stands in the inbox, and whether any intent of the lane is open."""
        keys = self._plan.lane.key
        cursor, open_ = await ask_all(self._client, [("GET", keys("cursor")), ("EXISTS", keys("state"))])
        return _place(cursor), bool(open_)

    async def round(self, wanted: RoundRequest) -> Round:
        """Settles, admits, takes and reads in one round trip.

        Raises RedisError if the trip failed: then nothing is known, and settlements may be sent again
        (a fence makes that harmless). NOSCRIPT is healed here. Raises NewerDataError where the lane's data are newer
        than this program: what was not settled then is left to others.
        """
        commands: list[tuple[Any, ...]] = [self._settle(s) for s in wanted.settlements]
        if wanted.overtaking:
            commands.append(self._overtake(wanted.overtaking))
        if wanted.admission:
            commands.append(self._admit(wanted.admission))
        takes = slice(len(commands), len(commands) + len(wanted.takes))
        commands += [self._take(t) for t in wanted.takes]
        page = self._page.among(wanted.among)
        if wanted.read_after:
            commands.append(("XREAD", "COUNT", page, "STREAMS", self._inbox, wanted.read_after))
        if wanted.scan_after:
            sizes = (self.SCAN_MOST, self.URGENT_MOST, MAX_ENTRY_BYTES)
            inbox = script_keys(self._client, self._inbox)
            commands.append(("EVALSHA", SCRIPTS.sha["ahead"], *inbox, wanted.scan_after, *sizes))
        if wanted.standing:
            commands.append(("GET", self._plan.lane.key("cursor")))
        with self._page.tried():
            if not self._durability.replicas:
                return self._read_round(await self._pipeline(commands), wanted, page)
            replies = await self._pipeline(
                commands, lambda told: self._durability.command if _granted(told[takes]) else None
            )
        waited = replies[len(commands) :]
        return self._read_round(replies[: len(commands)], wanted, page, self._durability.missing(waited))

    async def _pipeline(
        self,
        commands: list[tuple[Any, ...]],
        then: Callable[[list[Any]], tuple[Any, ...] | None] = lambda _: None,
    ) -> list[Any]:
        replies = await round_trip(self._client, commands, then)
        for _ in range(HEALS_MOST):  # scripts may be flushed once more meanwhile
            lost = [i for i, r in enumerate(replies) if isinstance(r, NoScriptError)]
            if not lost:
                break
            await SCRIPTS.load(self._client)
            for i in lost:
                try:
                    replies[i] = await command(self._client, *commands[i])
                except ResponseError as error:
                    replies[i] = error
        for reply in replies:
            if is_newer(reply):
                raise NewerDataError(str(reply).removeprefix(NEWER))
        return replies

    def _read_round(self, replies: list[Any], wanted: RoundRequest, page: int, unconfirmed: str = "") -> Round:
        out, rest = Round(), iter(replies)
        for _ in wanted.settlements:
            reply = next(rest)
            failed = isinstance(reply, RedisError)
            out.settled.append(reply if failed else Settled(reply[1], reply[2], frozenset(reply[3])))
        if wanted.overtaking:
            out.overtook = _read_admitted(next(rest))
        if wanted.admission:
            out.admitted = _read_admitted(next(rest))
        for take in wanted.takes:
            reply = next(rest)
            failed = isinstance(reply, RedisError)
            out.taken.append(reply if failed else read_taken(reply, take.batch_id, unconfirmed))
        if wanted.read_after:
            reply = next(rest)
            if isinstance(reply, RedisError):
                raise reply
            out.entries = read_entries(reply).get(self._inbox, [])
            out.more = len(out.entries) >= page
        if wanted.scan_after:
            reply = next(rest)
            if isinstance(reply, RedisError):
                out.scanned = reply
            else:
                last, found = reply
                out.scanned = Scanned(last.decode(), [(id_.decode(), flat) for id_, flat in found])
        if wanted.standing:
            reply = next(rest)
            if isinstance(reply, RedisError):
                raise reply
            out.cursor = _place(reply)
        return out

    async def permit(self, bucket: Bucket, member: str) -> int | None:
        """A permit for a call that no take grants, until a settlement names `member`: in how many microseconds whoever
        has not measured the way may send it. None: there is none now."""
        args = [bucket.name, bucket.units, bucket.window_us, self._plan.lease_us, member]
        wait_us, unconfirmed = await SCRIPTS.run_durably(self._client, "permit", [self._clock], args, self._durability)
        return None if wait_us < 0 or unconfirmed else int(wait_us)

    async def claim(self, orders: Sequence[str]) -> tuple[list[Work], int]:
        """Takes the open intents that name these orders for a step without a call, if they are in no call now; how
        many are."""
        args = [self._plan.lease_us, *orders]
        flat, left_alone = await SCRIPTS.run(self._client, "claim", [self._clock], args)
        return [Work.read(*flat[i : i + 3]) for i in range(0, len(flat), 3)], int(left_alone)

    async def stream(self, worker: str, what: StreamStep) -> bool:
        """Holds the lane's order stream for this worker a little longer, or leaves it; whether it is this worker's."""
        return bool(await SCRIPTS.run(self._client, "stream", [self._clock], [worker, STREAM_LEASE_MS, what]))

    async def trim(self, keep_ms: int, dedup_hours: int, now_ms: int) -> None:
        """Drops what is older than `keep_ms` from the streams and old hours from the memory. `now_ms`: the
        caller's clock; if Redis' disagrees by more than an hour, nothing is dropped."""
        await SCRIPTS.run(self._client, "trim", [self._clock], [keep_ms, dedup_hours, now_ms])

    async def take_probe(self) -> bytes:
        """Who asked for the key to be tried, b"" if nobody did; the question is given to one worker only."""
        asked: Any = await self._client.getdel(self._plan.lane.key("probe"))
        return bytes(asked or b"")

    async def answer_probe(self, asked: bytes, tried: KeyTried) -> None:
        """Tells whoever asked what came of the key."""
        await self._client.set(self._plan.lane.key("probed"), tried.packed(asked), ex=PROBED_S)

    async def ask_probe(self) -> None:
        """Asks for the key to be tried, if the lane is held because it was refused."""
        if await self.key_refused():
            await self._client.set(self._plan.lane.key("probe"), "new-key", ex=60)

    async def key_refused(self) -> bool:
        """Whether the lane is held because of its key."""
        return await key_refused(self._client, self._plan.lane)

    async def may_ask_rights(self) -> bool:
        """Whether this worker may ask the venue now what the key may do: one question in `RIGHTS_MS`, of the whole
        fleet, as Bitget answers one a second. No, if too few replicas confirm the turn: a master that was left alone
        gives none, and one that takes over knows the last."""
        key, durability = self._plan.lane.key("rights"), self._durability
        turn, *waited = await self._pipeline(
            [("SET", key, "asked", "NX", "PX", RIGHTS_MS)],
            lambda told: durability.command if told[0] == b"OK" and durability.replicas else None,
        )
        if isinstance(turn, RedisError):
            raise turn
        return bool(turn) and not (durability.replicas and durability.missing(waited))

    async def lift(self, reason: str) -> None:
        """Ends the lane's hold for one reason; holds for other reasons stay."""
        await self._client.hdel(self._plan.lane.key("hold"), f"*|{reason}")

    def _admit(self, admission: Admission) -> tuple[Any, ...]:
        where = (admission.cursor, admission.first, admission.last)
        return self._admit_items(where, admission.items, admission.overtaken)

    def _overtake(self, overtaking: Overtaking) -> tuple[Any, ...]:
        return self._admit_items(("ahead", "-", "-"), overtaking.items, overtaking.entries)

    def _admit_items(
        self, where: tuple[str, str, str], items: Sequence[NewIntent | NewOutcome], entries: Sequence[str]
    ) -> tuple[Any, ...]:
        args: list[Any] = [*where, len(items)]
        for item in items:
            kind = "i" if isinstance(item, NewIntent) else "e"
            named = memory_key(item.id) + item.named_by.encode() if item.named_by else b""
            args += (kind, item.id, named, item.digest)
            if isinstance(item, NewIntent):
                state = item.state
                orders = () if state.queue == LOCAL else state.orders
                args += (orjson.dumps(item.record), *state.around_place(), state.queue)
                args += (state.expires_ms, item.due_ms, len(orders), *orders)
            else:
                args.append(len(item.event))
                _flatten(args, item.event)
        args += (len(entries), *entries)
        return ("EVALSHA", SCRIPTS.sha["admit"], *self._keys, *args)

    def _take(self, take: TakeRequest) -> tuple[Any, ...]:
        suspended = "1" if take.suspended else "0"
        closed, kept = f" {' '.join(take.closed)} ", f" {' '.join(take.kept)} "
        return (
            "EVALSHA", SCRIPTS.sha["take"], *self._keys,
            self._plan_text, take.stages, take.batch_id, suspended, closed, kept, int(take.suspects), int(take.reaches),
            int(take.granted),
        )  # fmt: skip

    def _settle(self, s: Settlement) -> tuple[Any, ...]:
        args: list[Any] = []
        if s.permit:
            p = s.permit
            args += (1, p.bucket.name, p.bucket.window_us, p.units, p.member, p.how, p.ago_us, p.rtt_us)
            args += ("-" if p.error is None else p.error, p.told)
        else:
            args.append(0)
        args += (len(s.order_keys), "s" if s.sent else "u", s.gap_us, *s.order_keys)
        args.append(len(s.holds))
        for hold in s.holds:
            args += (hold.scope, hold.reason, hold.for_us, hold.detail)
        shapes = _Shapes([w.event for w in s.works if w.event])
        args += shapes.args
        args.append(len(s.works))
        for w in s.works:
            args += (w.work.id, w.work.fence)
            if isinstance(w, End):
                explicit = w.work.record.get("explicit") == "1"
                value = ("s" if w.sent else "n") + w.work.before.digest
                args += ("f", memory_key(w.work.id) if explicit else b"", value, int(w.known), len(w.orders), *w.orders)
            else:
                at = "p" if w.delay_us is None else w.delay_us
                args += ("m", w.state.queue, at, w.sort, w.state.pack(), len(w.new_orders), *w.new_orders)
            if w.event:
                args += shapes.of(w.event)
            else:
                args.append(0)
        return ("EVALSHA", SCRIPTS.sha["settle"], *self._keys, *args)


def _limits(buckets: Sequence[Bucket], told: Sequence[bytes | None]) -> list[str | int]:
    """The sizes of the buckets as `take.lua` uses them: those the venue has told among them."""
    flat: list[str | int] = []
    for bucket, units in zip(buckets, told, strict=True):
        smaller = units is not None and (int(units) < bucket.units or not bucket.fixed)
        flat += [bucket.name, int(units) if units and smaller else bucket.units]
    return flat


class _Shapes:
    """The events of one settlement: what they share, and what each has of its own.

    Most fields of an event are the same for a whole call. Sent once, they are packed, parsed and handed to Lua
    once; that was two thirds of what an event cost.
    """

    def __init__(self, events: Sequence[dict[str, str]]) -> None:
        alike: dict[tuple[str, ...], list[dict[str, str]]] = {}
        for event in events:
            alike.setdefault(tuple(event), []).append(event)
        self._own: dict[tuple[str, ...], tuple[int, list[str]]] = {}
        self.args: list[Any] = [len(alike)]
        for number, (names, group) in enumerate(alike.items(), start=1):
            columns = zip(*(event.values() for event in group), strict=True)
            places = [n for n, column in enumerate(columns, start=1) if column.count(column[0]) != len(column)]
            self.args += (len(names), len(places))
            _flatten(self.args, group[0])
            self.args += places
            self._own[names] = number, [names[place - 1] for place in places]

    def of(self, event: dict[str, str]) -> list[Any]:
        """The number of an event's shape, and the event's own values."""
        number, names = self._own[tuple(event)]
        return [number, *(event[name] for name in names)]


def _flatten(args: list[Any], fields: dict[str, str]) -> None:
    for pair in fields.items():
        args += pair


def _read_admitted(reply: Any) -> Admitted | RedisError:
    if isinstance(reply, RedisError):
        return reply
    how, cursor, *rest = reply
    if how == 2:
        return Admitted(False, cursor.decode(), overtaken=tuple(id_.decode() for id_ in rest))
    return Admitted(bool(how), cursor.decode(), *rest)


def _granted(replies: Sequence[Any]) -> bool:
    """Whether one of these replies of takes holds a batch."""
    return any(not isinstance(reply, RedisError) and reply[4] for reply in replies)


def read_taken(reply: Any, batch_id: str, unconfirmed: str = "") -> Taken:
    """A take script's reply; `unconfirmed` as in its batch."""
    steady, wall, wait, flat_steps, flat_batch, stopped, streamed, suspects, starved, more, given_up = reply
    steps: list[LocalStep] = []
    rows = [flat_steps[i : i + 4] for i in range(0, len(flat_steps), 4)]
    for why, id_, line, record in rows:
        work = Work.read(id_, line, record)
        if why == b"target":
            steps[-1] = LocalStep(steps[-1].why, steps[-1].work, work)
        else:
            steps.append(LocalStep(why.decode(), work))
    batch = None
    if flat_batch:
        route, stage, fastest, opens, units = (b.decode() for b in flat_batch[:5])
        works = [Work.read(*flat_batch[i : i + 3]) for i in range(5, len(flat_batch), 3)]
        times = int(wall), int(steady), int(fastest)
        batch = Batch(batch_id, route, Stage(stage), works, *times, unconfirmed, int(opens), int(units))
    times_us = int(steady), int(wall), int(wait)
    told = bool(stopped), bool(streamed), bool(suspects), starved > 0, starved > 1
    return Taken(*times_us, steps, batch, *told, int(more), [id_.decode() for id_ in given_up])
