"""The engine: many lanes in one process, and which worker watches which lane.

A lane is watched by the two live workers that rendezvous hashing picks for it: the first acts at once, the
second gives it a head start and so steps in where the first is slow or gone. When one dies, its heartbeat ends
and the hash picks the next, within two seconds. The engine knows nothing of RQ and runs without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import redis.asyncio as aioredis
import structlog
from redis.exceptions import RedisError

from cancelq_worker.lane import LaneServer
from cancelq_worker.ledger import SCRIPTS, command, read_entries

log = structlog.get_logger("cancelq.engine")

ROSTER = "cancelq:workers"
BEAT_S = 0.5
FRESH_MS = 1_600
HEAD_START_US = 50_000
BLOCK_MS = 2_000
REARM_S = 0.005
DRAIN_S = 6.5  # of the ten seconds a worker may take to end
LANES_A_READ = 64


def rank(lane: str, worker: str, alive: list[str]) -> int:
    """A worker's place for a lane by rendezvous hashing: 0 watches first, 1 second, others not at all."""

    def weight(name: str) -> bytes:
        return hashlib.blake2b(f"{lane}|{name}".encode(), digest_size=8).digest()

    return sorted({*alive, worker}, key=weight, reverse=True).index(worker)


class Watcher:
    """One blocking read over the inboxes of some resting lanes, on a connection of its own."""

    def __init__(self, blocking: aioredis.Redis, other: aioredis.Redis) -> None:
        self._blocking = blocking
        self._other = other
        self._lanes: set[str] = set()
        self._armed: dict[str, LaneServer] = {}
        self._changed = asyncio.Event()
        self._client_id: int | None = None
        self._reading: frozenset[str] = frozenset()
        self._nudge: asyncio.Task[None] | None = None

    def arm(self, lane: LaneServer) -> None:
        """The lane rests: wake it when its inbox grows."""
        self._armed[lane.lane.inbox] = lane
        self._changed.set()
        if self._reading and lane.lane.inbox not in self._reading and self._nudge is None:
            self._nudge = asyncio.ensure_future(self._interrupt())

    def adopt(self, lane: LaneServer) -> bool:
        """Makes this the lane's watcher, if there is room."""
        if len(self._lanes) >= LANES_A_READ:
            return False
        self._lanes.add(lane.lane.inbox)
        return True

    def release(self, lane: LaneServer) -> None:
        self._lanes.discard(lane.lane.inbox)
        self._armed.pop(lane.lane.inbox, None)

    async def _interrupt(self) -> None:
        """Ends the read under way, so that the next one has every resting lane; gathers a few first."""
        await asyncio.sleep(REARM_S)
        try:
            if self._reading and self._client_id is not None:
                await command(self._other, "CLIENT", "UNBLOCK", self._client_id)
        except (RedisError, OSError) as error:
            log.debug("could not end a blocking read early", error=str(error)[:100])
        finally:
            self._nudge = None

    async def run(self) -> None:
        """Reads until cancelled. A Redis that is away is waited for."""
        while True:
            if not self._armed:
                self._changed.clear()
                await self._changed.wait()
            try:
                await self._read_once()
            except (RedisError, OSError):
                self._client_id = None
                await asyncio.sleep(0.25)
            finally:
                self._reading = frozenset()

    async def _read_once(self) -> None:
        if self._client_id is None:
            self._client_id = int(await self._blocking.client_id())
        asked = {inbox: (lane, lane.cursor) for inbox, lane in self._armed.items() if lane.idle}
        if not asked:
            self._armed.clear()
            return
        self._reading = frozenset(asked)
        cursors = [cursor for _, cursor in asked.values()]
        reply = await command(self._blocking, "XREAD", "COUNT", 500, "BLOCK", BLOCK_MS, "STREAMS", *asked, *cursors)
        for inbox, entries in read_entries(reply).items():
            lane, cursor = asked[inbox]
            self._armed.pop(inbox, None)
            lane.deliver(cursor, entries)


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
        housekeeping: Callable[[LaneServer], None],
    ) -> None:
        self._worker = worker
        self._make = lanes
        self._client = client
        self._blocking = blocking
        self._watchers: list[Watcher] = []
        self._watching: set[asyncio.Task[None]] = set()
        self._running: dict[str, _Running] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._housekeeping = housekeeping

    async def serve(self, stop: asyncio.Event) -> None:
        """Runs until `stop` is set, then drains: what was sent is settled, the rest is left to others."""
        try:
            while not stop.is_set():
                await self._beat()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(BEAT_S):
                        await stop.wait()
            await self._leave_roster()
            await self._drain()
        finally:
            for task in self._watching:
                task.cancel()

    async def _beat(self) -> None:
        try:
            alive = [n.decode() for n in await SCRIPTS.run(self._client, "roster", [ROSTER], [self._worker, FRESH_MS])]
        except (RedisError, OSError) as error:
            log.warning("no heartbeat: Redis cannot be reached", error=str(error)[:200])
            return
        for name in self._make:
            place = rank(name, self._worker, alive)
            running = self._running.get(name)
            if place > 1:
                if running:
                    self._stop(name)
            elif running is None:
                await self._start(name, place)
            else:
                running.rank = place
                running.lane.hesitate_us = HEAD_START_US * place
        for running in self._running.values():
            running.lane.keep_ready()
            if running.rank == 0:
                self._housekeeping(running.lane)

    async def _start(self, name: str, place: int) -> None:
        lane = self._make[name]()
        try:
            await lane.open()
        except (RedisError, OSError) as error:
            log.warning("lane cannot be opened", lane=name, error=str(error)[:200])
            return
        lane.hesitate_us = HEAD_START_US * place
        watcher = self._watcher_for(lane)
        lane.on_rest = lambda: watcher.arm(lane)
        task = asyncio.ensure_future(lane.serve())
        task.add_done_callback(lambda t: self._ended(name, t))
        self._running[name] = _Running(lane, task, place, watcher)
        log.info("watching lane", lane=name, place=place)

    def _watcher_for(self, lane: LaneServer) -> Watcher:
        """A watcher with room: one blocking read serves a bounded number of lanes."""
        for watcher in self._watchers:
            if watcher.adopt(lane):
                return watcher
        watcher = Watcher(self._blocking(), self._client)
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
        self._leaving.add(running.task)
        running.task.add_done_callback(self._leaving.discard)

    def _ended(self, name: str, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error:
            log.error("a lane's loop ended; it is started again", lane=name, error=repr(error)[:300], exc_info=error)
        running = self._running.get(name)
        if running and running.task is task:
            running.watcher.release(running.lane)
            del self._running[name]

    async def _leave_roster(self) -> None:
        try:
            async with asyncio.timeout(1.0):
                await self._client.zrem(ROSTER, self._worker)
        except (RedisError, OSError) as error:
            log.warning("could not leave the roster", error=str(error)[:200])

    async def _drain(self) -> None:
        tasks = {r.task for r in self._running.values()} | self._leaving
        for running in self._running.values():
            running.lane.drain()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=DRAIN_S)
            for task in late:
                task.cancel()
