"""The dead man's switch: a lane whose guard is no longer kept is flattened by whichever worker notices.

    SET guard PX ttl, again and again ──► missed ──► FIRE: urgent account intents, told in the results
                                                       │ not everything is cancelled
                                                       └──► once more, for what was open then, in growing pauses

Each worker looks at the guards of the lanes it watches, twice a second and at every deadline that comes sooner. That an
armed guard was seen is kept in Redis (`armed`), so a deadline that passed while no worker lived fires when one is back.
Firing is one script: the first worker clears the mark and admits the intents in the same step. They do not come through
the inbox, which belongs to producers. The first watcher of the lane follows them and asks again until nothing is open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import redis.asyncio as aioredis
import structlog
from redis.exceptions import RedisError

from cancelq.contract import Lane, Status
from cancelq_worker import events, guard_ledger
from cancelq_worker.clocks import monotonic_s
from cancelq_worker.guard_ledger import Fired, GuardStanding, Seen
from cancelq_worker.guard_timer import GuardTimers
from cancelq_worker.intake import Intake
from cancelq_worker.lane import LaneServer
from cancelq_worker.records import NewIntent
from cancelq_worker.venues.registry import KINDS

log = structlog.get_logger("cancelq.guard")

LOOK_S = 0.5
AFTER_S = 0.01  # a deadline is looked at so much after it: by then the key is gone
#: Between the end of one round and the next: a venue that is away for a moment, then one that is out for minutes.
PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 60.0)
ROUNDS_MOST = len(PAUSES_S) + 1
REASON = "guard"


@dataclass(slots=True)
class _Round:
    """A round that is followed: what was read of the results, and how its intents ended."""

    fired: Fired
    after: str
    ended: dict[str, Status | None] = field(default_factory=dict)
    over_s: float | None = None

    @property
    def failed(self) -> list[str]:
        return [id_ for id_ in self.fired.ids if self.ended.get(id_) is not Status.cancelled]


class Guards:
    """Looks after the guards of the lanes this process watches. `watched`: these lanes, each with this worker's place
    (0: first). `clock`: seconds, monotonic."""

    def __init__(
        self,
        client: aioredis.Redis,
        worker: str,
        watched: Callable[[], Iterable[tuple[LaneServer, int]]],
        timers: GuardTimers,
        clock: Callable[[], float] = monotonic_s,
    ) -> None:
        self._client = client
        self._worker = worker
        self._watched = watched
        self._timers = timers
        self._clock = clock
        self._rounds: dict[Lane, _Round] = {}
        self._endless: set[Lane] = set()
        self._away = False
        self.standing: Mapping[Lane, GuardStanding] = {}  # of lanes that this worker watches first, as last looked at

    async def serve(self) -> None:
        """Until cancelled. A Redis that is away is waited for."""
        while True:
            try:
                wait_s = await self.look()
                self._away = False
            except (RedisError, OSError) as error:
                if not self._away:
                    log.warning("guards cannot be looked at: Redis cannot be reached", error=str(error)[:200])
                self._away, wait_s = True, LOOK_S
            except Exception:  # whatever goes wrong with one look, the next one must come
                log.exception("a look at the guards failed")
                wait_s = LOOK_S
            await asyncio.sleep(wait_s)

    async def look(self) -> float:
        """Does for every lane what is to be done now; seconds until the next look. Raises RedisError."""
        watched = list(self._watched())
        kept = await guard_ledger.kept_of(self._client, [lane.lane for lane, _ in watched])
        every = [(lane, place, keys) for (lane, place), keys in zip(watched, kept, strict=True)]
        for lane, _, keys in every:
            if keys.newer:
                lane.look()  # a lane at rest would not see for long that it is no more for this worker
        self.standing = {lane.lane: told for lane, place, keys in every if place == 0 and (told := keys.standing)}
        some = [(lane, place, keys) for lane, place, keys in every if not keys.empty]
        wait_s = LOOK_S
        if not some:
            return wait_s
        seen = await guard_ledger.see(self._client, [lane.lane for lane, _, _ in some])
        for (lane, place, keys), what in zip(some, seen, strict=True):
            if isinstance(what, RedisError):
                log.error("a guard cannot be looked at", lane=str(lane.lane), error=str(what)[:200])
                continue
            await self._attend(lane, place, replace(what, timer=keys.timer is not None))
            if what.left_ms is not None and what.left_ms >= 0:
                wait_s = min(wait_s, what.left_ms / 1000 + AFTER_S)
        return wait_s

    async def _attend(self, lane: LaneServer, place: int, seen: Seen) -> None:
        fired = seen.fired if seen.fired and seen.fired.open else None
        if place == 0:
            self._timers.attend(lane, seen)
        if seen.missed:
            await self._fire(lane, seen)
        elif seen.left_ms is not None:
            self._warn_of_endless(lane.lane, seen)
            if fired and place == 0:
                await self._close(lane.lane, fired, "armed-again", "the guard is armed again: what was asked goes on")
        elif fired and place == 0:
            await self._follow(lane, fired, seen)

    def _warn_of_endless(self, lane: Lane, seen: Seen) -> None:
        if seen.left_ms == -1 and lane not in self._endless:
            log.error("the guard has no time to live, so it never fires; set it with PX", lane=str(lane))
            self._endless.add(lane)
        elif seen.left_ms != -1:
            self._endless.discard(lane)

    # -- fire ---------------------------------------------------------------------------------------------------------

    async def _fire(self, lane: LaneServer, seen: Seen) -> None:
        """The deadline was missed: everything the account has open shall go."""
        deadline, late_ms = seen.armed, seen.wall_ms - int(seen.armed)
        items = self._intents(lane, deadline, 1, seen.wall_ms, KINDS[lane.lane.venue].flatten)
        detail = f"the deadline {_shown(deadline)} was missed by {max(0, late_ms)} ms: flattening the lane, asked as"
        if await self._admit(lane, deadline, 1, seen.wall_ms, items, detail):
            log.error("the guard was not kept: flattening the lane", lane=str(lane.lane), deadline_ms=deadline)

    async def _admit(
        self, lane: LaneServer, deadline: str, nth: int, at_ms: int, items: Sequence[NewIntent], detail: str
    ) -> bool:
        event = self._event(lane.lane, f"op-guard-{deadline}-{nth}", f"{detail} {', '.join(i.id for i in items)}")
        fired = await guard_ledger.fire(self._client, lane.lane, deadline, nth, at_ms, items, event)
        if fired:
            lane.look()
        return fired

    def _intents(
        self, lane: LaneServer, deadline: str, nth: int, now_ms: int, kinds: Iterable[str], older_than_ms: int = 0
    ) -> list[NewIntent]:
        """One round's intents, read as if a producer had queued them at `now_ms` of Redis' clock."""
        intake, items = Intake(lane.lane, lane.venue, self._worker), []
        for some in kinds:
            fields = {
                "id": _intent_id(deadline, nth, some),
                "scope": "account",
                "kinds": some,
                "priority": "urgent",
                "reason": REASON,
            }
            if older_than_ms:
                fields["older_than_ms"] = str(older_than_ms)
            flat = [word.encode() for pair in fields.items() for word in pair]
            (item,) = intake.prepare("0-0", [(f"{now_ms}-0", flat)]).items
            if isinstance(item, NewIntent):
                items.append(item)
            else:
                log.error("a kind of order cannot be flattened here", lane=str(lane.lane), kinds=some, why=item.event)
        return items

    def _event(self, lane: Lane, id_: str, detail: str) -> dict[str, str]:
        event = events.head(lane, id_, Status.operator, "local", detail)
        event.update(act="guard", actor="guard", worker=self._worker)
        return event

    # -- follow -------------------------------------------------------------------------------------------------------

    async def _follow(self, lane: LaneServer, fired: Fired, seen: Seen) -> None:
        """Reads how the round ended; closes the firing, or asks once more for what was not cancelled."""
        current = self._rounds.get(lane.lane)
        if current is None or current.fired != fired:
            current = self._rounds[lane.lane] = _Round(fired, fired.after)
        if not await self._read(lane.lane, current):
            return
        failed = current.failed
        if not failed:
            await self._close(lane.lane, fired, "done", f"nothing is open any more after {fired.round} round(s)")
            return
        now_s = self._clock()
        if current.over_s is None:
            current.over_s = now_s
            told = {id_: str(current.ended.get(id_) or "lost") for id_ in failed}
            log.error("the guard's flattening did not empty the lane", lane=str(lane.lane), round=fired.round, **told)
        if fired.round >= ROUNDS_MOST:
            detail = f"given up after {fired.round} rounds: orders may be open; a person must look"
            if await self._close(lane.lane, fired, "given-up", detail):
                log.error("the guard gives up: orders may be open, a person must look", lane=str(lane.lane))
        elif now_s - current.over_s >= PAUSES_S[fired.round - 1]:
            await self._again(lane, fired, failed, seen.wall_ms)

    async def _again(self, lane: LaneServer, fired: Fired, failed: Sequence[str], now_ms: int) -> None:
        """Only what was open when the guard fired: by now a strategy may be at work again."""
        nth, kinds = fired.round + 1, [_kinds_of(id_) for id_ in failed]
        items = self._intents(lane, fired.deadline, nth, now_ms, kinds, older_than_ms=fired.at_ms)
        detail = f"round {nth} for the deadline {_shown(fired.deadline)}: not all of it was cancelled; asked as"
        await self._admit(lane, fired.deadline, nth, fired.at_ms, items, detail)

    async def _read(self, lane: Lane, current: _Round) -> bool:
        """Whether every intent of the round has ended."""
        ids = frozenset(current.fired.ids)
        missing = [id_ for id_ in current.fired.ids if id_ not in current.ended]
        if not missing:
            return True
        # Asked before the results are read: what has ended by then stands in them.
        still = await guard_ledger.still_open(self._client, lane, missing)
        while True:
            after, found = await guard_ledger.outcomes(self._client, lane, current.after, ids)
            current.ended.update((event.id, event.status) for event in found)
            if after == current.after:
                break
            current.after = after
        for id_ in missing:
            if id_ not in still:
                current.ended.setdefault(id_, None)
        return len(current.ended) == len(ids)

    async def _close(self, lane: Lane, fired: Fired, state: str, detail: str) -> bool:
        event = self._event(lane, f"op-guard-{fired.deadline}-{state}", f"deadline {_shown(fired.deadline)}: {detail}")
        self._rounds.pop(lane, None)
        closed = await guard_ledger.close(self._client, lane, fired, state, event)
        if closed:
            log.warning("the guard's firing is closed", lane=str(lane), state=state, deadline_ms=fired.deadline)
        return closed


def _intent_id(deadline: str, nth: int, kinds: str) -> str:
    """`guard-1763690000000-order`, and from the second round on `guard-1763690000000.2-order`."""
    return f"guard-{deadline}{f'.{nth}' if nth > 1 else ''}-{kinds.replace(',', '.')}"


def _kinds_of(id_: str) -> str:
    return id_.rpartition("-")[2].replace(".", ",")


def _shown(deadline: str) -> str:
    moment = datetime.fromtimestamp(int(deadline) / 1000, UTC) if len(deadline) <= 14 else None
    return f"{moment:%Y-%m-%d %H:%M:%S.%f}"[:-3] + f" UTC ({deadline})" if moment else deadline
