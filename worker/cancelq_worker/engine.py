"""The engine: many lanes in one process, and which worker watches which lane.

A lane is watched by the two live workers that rendezvous hashing picks for it: the first acts at once, the
second gives it a head start and so steps in where the first is slow or gone. When one dies, its heartbeat ends
and the hash picks the next, within two seconds. The engine knows nothing of RQ and runs without it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import redis.asyncio as aioredis
import structlog
from redis.exceptions import RedisError

from cancelq.contract import Lane
from cancelq_worker.clocks import monotonic_s
from cancelq_worker.data_version import DATA_VERSION, NewerDataError, OlderWorkersError
from cancelq_worker.head_start import HEAD_START_US
from cancelq_worker.health import Health
from cancelq_worker.lane import LaneServer
from cancelq_worker.lane_lists import LaneLists
from cancelq_worker.page_size import PageSize
from cancelq_worker.roster import FRESH_MS, ROSTER, rank, workers_of
from cancelq_worker.scripts import SCRIPTS
from cancelq_worker.trips import RawEntry, ask, home, read_entries

log = structlog.get_logger("cancelq.engine")

BEAT_S = 0.5
LISTS_BEATS = 4  # heartbeats between two looks at which lanes the others have
BLOCK_MS = 2_000
REARM_S = 0.005
ENDED_S = 0.5  # until a read has ended that was to end, also in a busy process
DRAIN_S = 6.5  # of the ten seconds a worker may take to end
READ_MOST = 500
LANES_A_READ = 64
REFUSED_AGAIN_S = 0.9  # before a refused lane is asked for again
OPEN_AT_ONCE = 16  # lanes that are opened beside the heartbeat


class Resting(Protocol):
    """A lane as its watcher sees it. `idle`: it has room for entries of its inbox, which it has read up to `cursor`."""

    lane: Lane
    cursor: str

    @property
    def idle(self) -> bool: ...
    def deliver(self, after: str, entries: list[RawEntry], more: bool) -> None: ...
    def reopen(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Asked:
    """One lane's part of a blocking read."""

    lane: Resting
    cursor: str


class Watcher:
    """One blocking read over the inboxes of some resting lanes, on a connection of its own.

    A lane that was just woken stays in the next read, behind what it was woken with: most are woken by one entry and
    rest a moment later, and need no read that begins again for them. One that is told of more before it rests is a
    busy one; it reads its inbox itself and comes back when it rests.
    """

    def __init__(self, blocking: aioredis.Redis, other: aioredis.Redis, lanes: Callable[[], int]) -> None:
        """`lanes`: how many the process has in all; a burst may wake them at once."""
        self._blocking = blocking
        self._in_all = lanes
        self.other = other  # to end its reads by
        self._lanes: set[str] = set()
        self._armed: dict[str, Resting] = {}
        self._changed = asyncio.Event()
        self._woken: dict[str, _Asked] = {}
        self._client_id: int | None = None
        self._reading: dict[str, _Asked] = {}
        self._nudge: asyncio.Task[None] | None = None
        self._page = PageSize(READ_MOST)

    def arm(self, lane: Resting) -> None:
        """The lane rests: wake it when its inbox grows."""
        inbox = lane.lane.inbox
        self._armed[inbox] = lane
        self._woken.pop(inbox, None)
        self._changed.set()
        asked = self._reading.get(inbox)
        if self._reading and (asked is None or asked.cursor != lane.cursor) and self._nudge is None:
            self._nudge = asyncio.ensure_future(self._interrupt())

    def adopt(self, lane: Resting) -> bool:
        """Makes this the lane's watcher, if there is room."""
        if len(self._lanes) >= LANES_A_READ:
            return False
        self._lanes.add(lane.lane.inbox)
        return True

    def release(self, lane: Resting) -> None:
        self._lanes.discard(lane.lane.inbox)
        self._armed.pop(lane.lane.inbox, None)
        self._woken.pop(lane.lane.inbox, None)

    async def _interrupt(self) -> None:
        """Ends the read under way, so that the next one has every resting lane; gathers a few first."""
        await asyncio.sleep(REARM_S)
        reading, number = self._reading, self._client_id
        try:
            if reading and number is not None:
                await ask(self.other, "CLIENT", "UNBLOCK", number)
                asyncio.get_running_loop().call_later(ENDED_S, self._ask_anew, reading)
        except (RedisError, OSError) as error:
            log.debug("could not end a blocking read early", error=str(error)[:100])
        finally:
            self._nudge = None

    def _ask_anew(self, reading: Mapping[str, _Asked]) -> None:
        """If this read was not ended: its connection was lost meanwhile and is another one by now, and the number may
        even be somebody else's, of a server that has begun to count again."""
        if reading is self._reading:
            self._client_id = None

    async def run(self) -> None:
        """Reads until cancelled. A Redis that is away is waited for."""
        while True:
            if not self._armed and not self._woken:
                self._changed.clear()
                await self._changed.wait()
            try:
                await self._read_once()
            except (RedisError, OSError):
                self._client_id = None
                # Lanes at rest notice nothing else of a server that comes back without its last writes.
                for lane in {*self._armed.values(), *(asked.lane for asked in self._woken.values())}:
                    lane.reopen()
                await asyncio.sleep(0.25)
            finally:
                self._reading = {}

    async def _read_once(self) -> None:
        if self._client_id is None:
            self._client_id = int(await self._blocking.client_id())
        resting = {inbox: _Asked(lane, lane.cursor) for inbox, lane in self._armed.items() if lane.idle}
        self._reading = asked = {**self._woken, **resting}
        if not asked:
            self._armed.clear()
            return
        cursors = [one.cursor for one in asked.values()]
        with self._page.tried():
            page = self._page.among(self._in_all())
            count = ("COUNT", page, "BLOCK", BLOCK_MS)
            reply = await ask(self._blocking, "XREAD", *count, "STREAMS", *asked, *cursors)
        for inbox, entries in read_entries(reply).items():
            self._wake(inbox, asked[inbox], entries, len(entries) >= page)

    def _wake(self, inbox: str, asked: _Asked, entries: list[RawEntry], more: bool) -> None:
        """Entries after the cursor that was asked for; whether there may be more. A lane that stands elsewhere by now
        stays armed: the next read asks behind where it stands."""
        self._woken.pop(inbox, None)
        lane = self._armed.get(inbox)
        if lane is asked.lane and lane.idle and lane.cursor == asked.cursor:
            del self._armed[inbox]
            if not more:  # else it reads that itself
                self._woken[inbox] = _Asked(lane, entries[-1][0])
            lane.deliver(asked.cursor, entries, more)


@dataclass(frozen=True, slots=True)
class _Refused:
    """A lane that is left to others. `stands_by`: to older workers, until they have ended; else to newer ones."""

    why: str
    stands_by: bool
    at_s: float


@dataclass(slots=True)
class _Running:
    lane: LaneServer
    task: asyncio.Task[None]
    rank: int
    watcher: Watcher


class Engine:
    """Serves the lanes that fall to this worker."""

    def __init__(
        self,
        worker: str,
        lanes: Mapping[str, Callable[[], LaneServer]],
        client: aioredis.Redis,
        blocking: Callable[[], aioredis.Redis],
        housekeeping: Callable[[Sequence[tuple[LaneServer, int]]], None],
        health: Health,
        retired: Callable[[LaneServer], None] = lambda _: None,
        roster: str = ROSTER,
        older_rosters: Sequence[str] = (),
    ) -> None:
        """`housekeeping` has the lanes that are watched, at every heartbeat; `retired` is told of every lane server
        that is done for good; `roster`: where the workers stand that share these lanes; `older_rosters`: where those
        stand that write older data."""
        self._worker = worker
        self._make = lanes
        self._client = client
        self._blocking = blocking
        self._watchers: list[Watcher] = []
        self._watching: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._alive: list[str] | None = None
        self._places: dict[str, int] = {}
        self._opening: dict[str, asyncio.Task[None]] = {}
        self._room_to_open = asyncio.Semaphore(OPEN_AT_ONCE)
        self._running: dict[str, _Running] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._housekeeping = housekeeping
        self._health = health
        self._retired = retired
        self._roster = roster
        self._lists = LaneLists(client, roster)
        self._beats = 0
        self._older_rosters = older_rosters
        self._refused: dict[str, _Refused] = {}

    async def serve(self, stop: asyncio.Event) -> None:
        """Runs until `stop` is set, then drains: what was sent is settled, the rest is left to others."""
        try:
            while not stop.is_set():
                await self._beat()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(BEAT_S):
                        await stop.wait()
            self._stopping = True
            await self._leave_roster()
            await self._drain()
        finally:
            for task in (*self._watching, *self._opening.values()):
                task.cancel()

    async def _beat(self) -> None:
        try:
            alive = [
                n.decode() for n in await SCRIPTS.run(self._client, "roster", [self._roster], [self._worker, FRESH_MS])
            ]
        except (RedisError, OSError) as error:
            log.warning("no heartbeat: Redis cannot be reached", error=str(error)[:200])
            self._health.redis_away(error)
            return
        new_lists = await self._hear_of_lanes(alive)
        if alive != self._alive or new_lists:
            self._alive = alive
            self._assign(alive)
        self._open_missing()
        self._tell_health()
        self._housekeeping(self.watched())

    async def _hear_of_lanes(self, alive: Sequence[str]) -> bool:
        """Tells which lanes this worker has, and learns the others'; whether that is anything new."""
        due = self._beats % LISTS_BEATS == 0 or alive != self._alive
        self._beats += 1
        try:
            await self._lists.tell(self._worker, self._make)
            if not due:
                return False
            await self._lists.tidy(alive)
            return await self._lists.read()
        except (RedisError, OSError) as error:  # what was known before serves; a rehearsal has no right to tell
            log.debug("the lanes of other workers are not known", error=str(error)[:200])
            return False

    def first_watched(self) -> list[Lane]:
        """The lanes that this worker watches first. May be asked by another thread."""
        return [running.lane.lane for running in list(self._running.values()) if running.rank == 0]

    def watched(self) -> list[tuple[LaneServer, int]]:
        """The lanes that this worker watches now, each with its place."""
        return [(running.lane, running.rank) for running in self._running.values()]

    def _tell_health(self) -> None:
        not_open = [
            f"{name}, {refused.why}" if refused else name
            for name in self._places
            if name not in self._running and not ((refused := self._refused.get(name)) and refused.stands_by)
        ]
        self._health.heartbeat(len(self._alive or ()), len(self._places), not_open)
        self._health.refused = [refused.stands_by for refused in self._refused.values()].count(False)

    def change(self, lanes: Mapping[str, Callable[[], LaneServer]]) -> None:
        """Serves these lanes from now on. One whose maker is the same object goes on untouched; one with another maker
        finishes what is on its way and is then opened anew; one that is gone finishes and ends."""
        changed = [name for name, make in self._make.items() if lanes.get(name) is not make]
        self._make = lanes
        self._refused = {name: refused for name, refused in self._refused.items() if name in lanes}
        for name in changed:
            if name in self._running:
                self._stop(name)
        if self._alive is not None and not self._stopping:
            self._assign(self._alive)
            self._open_missing()

    def _open_missing(self) -> None:
        for name in self._places:
            if name in self._running or name in self._opening:
                continue
            refused = self._refused.get(name)
            if refused is None or monotonic_s() - refused.at_s >= REFUSED_AGAIN_S:
                self._open(name)

    def _assign(self, alive: list[str]) -> None:
        """Which lanes are this worker's, among those that have them. At a change only: it costs workers times lanes."""
        places = {name: rank(name, self._worker, self._lists.having(name, alive)) for name in self._make}
        self._places = {name: place for name, place in places.items() if place <= 1}
        for name in [name for name in self._running if name not in self._places]:
            self._stop(name)
        for name, running in self._running.items():
            if running.rank != self._places[name]:
                running.rank = self._places[name]
                running.lane.head_start.us = HEAD_START_US * running.rank
                running.lane.look()  # whoever was there before may have left something in its hands

    def _open(self, name: str) -> None:
        """Beside the heartbeat: a worker with many lanes must not seem dead while it opens them."""
        task = asyncio.ensure_future(self._start(name))
        self._opening[name] = task
        task.add_done_callback(lambda t: self._opened(name, t))

    async def _start(self, name: str) -> None:
        leaving = self._leaving.get(name)
        if leaving is not None:  # with another key, perhaps: what it sent is to be settled first
            await asyncio.wait({leaving})
        make = self._make.get(name)
        if make is None:
            return
        async with self._room_to_open:
            lane = make()
            try:
                await self._enter(lane)
                await lane.open()
            except (NewerDataError, OlderWorkersError) as error:
                self._refuse(name, error)
                self._retired(lane)
                return
            except (RedisError, OSError) as error:
                log.warning("lane cannot be opened", lane=name, error=str(error)[:200])
                self._retired(lane)
                return
        place = self._places.get(name)
        if place is None or self._stopping or self._make.get(name) is not make:
            self._retired(lane)
            return
        lane.head_start.us = HEAD_START_US * place
        watcher = self._watcher_for(lane)
        lane.on_rest = lambda: watcher.arm(lane)
        task = asyncio.ensure_future(lane.serve())
        task.add_done_callback(lambda t: self._ended(name, lane, t))
        self._running[name] = _Running(lane, task, place, watcher)
        self._refused.pop(name, None)
        log.info("watching lane", lane=name, place=place)

    async def _enter(self, lane: LaneServer) -> None:
        """Makes sure that the lane's data are this program's to touch. Raises NewerDataError where they are newer, and
        OlderWorkersError where they are older and their workers alive."""
        found = await lane.data_version()
        if found < DATA_VERSION:
            if older := await workers_of(self._client, *self._older_rosters):
                raise OlderWorkersError(f"standing by: {len(older)} older workers serve data of version {found}")
            found = await lane.data_version(raise_to=DATA_VERSION)
            log.warning("the lane's data are of a newer version from now on", lane=str(lane.lane), version=found)
        if found > DATA_VERSION:
            told = f"the lane's data are of version {found}, and this program reads up to {DATA_VERSION}"
            raise NewerDataError(f"{told}: run a newer one")

    def _refuse(self, name: str, error: NewerDataError | OlderWorkersError) -> None:
        """Leaves the lane to others; it is asked for again a little later. Told when it begins, and when it changes."""
        before, stands_by = self._refused.get(name), isinstance(error, OlderWorkersError)
        self._refused[name] = _Refused(str(error), stands_by, monotonic_s())
        if before and before.why == str(error):
            return
        if stands_by:
            log.warning("a lane is left to older workers until they have ended", lane=name, why=str(error))
        else:
            log.error("a lane is refused: run a newer worker", lane=name, why=str(error))

    def _opened(self, name: str, task: asyncio.Task[None]) -> None:
        del self._opening[name]
        error = None if task.cancelled() else task.exception()
        if error:
            log.error("a lane cannot be opened", lane=name, error=repr(error)[:300], exc_info=error)

    def _watcher_for(self, lane: LaneServer) -> Watcher:
        """A watcher with room: one blocking read serves a bounded number of lanes, in a cluster those of one slot."""
        other = home(self._client, lane.lane.inbox)
        for watcher in self._watchers:
            if watcher.other is other and watcher.adopt(lane):
                return watcher
        watcher = Watcher(home(self._blocking(), lane.lane.inbox), other, lambda: len(self._running))
        watcher.adopt(lane)
        self._watchers.append(watcher)
        task = asyncio.ensure_future(watcher.run())
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)
        return watcher

    def _stop(self, name: str) -> None:
        """Another worker watches this lane now: finish what is on its way, take nothing new."""
        running = self._running.pop(name)
        running.watcher.release(running.lane)
        running.lane.on_rest = lambda: None
        running.lane.drain()
        self._leaving[name] = running.task

    def _ended(self, name: str, lane: LaneServer, task: asyncio.Task[None]) -> None:
        if self._leaving.get(name) is task:
            del self._leaving[name]
        self._retired(lane)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, NewerDataError):
            self._refuse(name, error)
        elif error:
            log.error("a lane's loop ended; it is started again", lane=name, error=repr(error)[:300], exc_info=error)
        running = self._running.get(name)
        if running and running.task is task:
            running.watcher.release(running.lane)
            del self._running[name]

    async def _leave_roster(self) -> None:
        try:
            async with asyncio.timeout(1.0):
                await self._client.zrem(self._roster, self._worker)
                await self._lists.leave(self._worker)
        except (RedisError, OSError) as error:
            log.warning("could not leave the roster", error=str(error)[:200])

    async def _drain(self) -> None:
        tasks = {r.task for r in self._running.values()} | set(self._leaving.values())
        for running in self._running.values():
            running.lane.drain()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=DRAIN_S)
            for task in late:
                task.cancel()
