"""Builds the engine from settings: the only place that knows every part."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass

import httpx
import redis.asyncio as aioredis
import structlog
from redis.exceptions import RedisError

from cancelq.broker import Broker
from cancelq.broker_async import AsyncGuide
from cancelq.contract import Lane
from cancelq_worker.archive.manifest import NOTHING_ARCHIVED
from cancelq_worker.clocks import Pace, RemoteClock, monotonic_s
from cancelq_worker.dry_run import DRY_EGRESS, DRY_ROSTER, Rehearsal, begin, rehearsed
from cancelq_worker.egress import Egress
from cancelq_worker.engine import Engine
from cancelq_worker.guard_timer import GuardTimers
from cancelq_worker.guarding import Guards
from cancelq_worker.health import Health
from cancelq_worker.http import Door
from cancelq_worker.lane import LaneServer
from cancelq_worker.lane_gauges import Watch
from cancelq_worker.lane_parts import LaneParts
from cancelq_worker.ledger import RedisLedger
from cancelq_worker.metrics import Metrics
from cancelq_worker.observing import observed
from cancelq_worker.preflight import check_server
from cancelq_worker.records import LanePlan
from cancelq_worker.roster import ROSTER, ROSTERS
from cancelq_worker.rotation import compared, same_for_lanes, same_key
from cancelq_worker.rounds import Rounds
from cancelq_worker.rulings import Policy
from cancelq_worker.scripts import Durability
from cancelq_worker.settings import Account, Settings
from cancelq_worker.suspects import Suspects
from cancelq_worker.trips import connect, home
from cancelq_worker.venues.port import Bucket, Venue
from cancelq_worker.venues.registry import KINDS, open_venue
from cancelq_worker.verdict import Judge

log = structlog.get_logger("cancelq.wiring")

TRIM_EVERY_S = 60.0
CARE_AGAIN_S = 5.0  # after the venue could not be reached
LEAVE_S = 1.0  # to give back what others could use, as the process ends
TIME_CALLS_A_SECOND = 4  # of the 20 that Bitget allows an address


@dataclass(slots=True, eq=False)
class _Host:
    """What lanes of one venue host share."""

    cancel_door: Door
    look_door: Door
    venue_clock: RemoteClock
    egress: Egress
    time_pace: Pace
    time_lock: asyncio.Lock
    cared_for: bool = False  # at this moment
    not_before_s: float = 0.0

    async def close(self) -> None:
        await asyncio.gather(self.cancel_door.close(), self.look_door.close())


class Wiring:
    """One process' lanes and what they share."""

    def __init__(
        self, settings: Settings, worker: str, suspended: Callable[[], bool], rehearsal: Rehearsal | None = None
    ) -> None:
        self.settings = settings
        self.worker = worker
        self.metrics = Metrics()
        self._suspended = suspended
        self._suspects = Suspects()
        self._rounds: dict[aioredis.Redis, Rounds] = {}
        self._rehearsal = rehearsal
        self._guide = AsyncGuide(Broker.read(settings.redis_url))
        self.client: aioredis.Redis = connect(self._guide, max_connections=64)
        self._durability = Durability(settings.durable_replicas)
        self._blocking: list[aioredis.Redis] = []
        self._redis_clock = RemoteClock(1)
        self._hosts: dict[tuple[str, str, tuple[Bucket, ...]], _Host] = {}
        self._at: dict[LaneServer, _Host] = {}
        self._makers: dict[str, Callable[[], LaneServer]] = {}
        self._new_keys: set[Lane] = set()  # perhaps not tried yet, as other settings follow at once
        self._trimmed: dict[str, float] = {}
        self._chores: set[asyncio.Future[None]] = set()

    @property
    def _many_clocks(self) -> bool:
        """Whether lanes live on servers whose clocks differ."""
        return self._guide.broker.kind == "cluster"

    @functools.cached_property
    def _tls(self) -> ssl.SSLContext:
        """One for all, also for addresses without TLS: reading the certificates takes 30 ms, and the library makes a
        context for each that is given none, which is a third of a millisecond and some memory for each lane's doors."""
        return httpx.create_ssl_context(trust_env=False)

    def engine(self, health: Health) -> Engine:
        self._makers = {str(lane): self._maker(lane, self.settings.account(lane)) for lane in self.settings.lanes}
        return Engine(
            self.worker, self._makers, self.client, self._blocking_client, self._housekeeping, health, self._retire,
            DRY_ROSTER if self._rehearsal else ROSTER,
            () if self._rehearsal else ROSTERS[:-1],
        )  # fmt: skip

    def change(self, settings: Settings, engine: Engine) -> None:
        """Serves by new settings from now on. A lane of which nothing changed goes on without a pause. `restart_for`
        says whether they can."""
        before = self.settings
        makers: dict[str, Callable[[], LaneServer]] = {}
        for lane in settings.lanes:
            account = settings.account(lane)
            known = before.account(lane) if lane in before.lanes else None
            if known == account and same_for_lanes(before, settings):
                makers[str(lane)] = self._makers[str(lane)]
            else:
                if known is not None and not same_key(known, account):
                    self._new_keys.add(lane)
                makers[str(lane)] = self._maker(lane, account, new_key=lane in self._new_keys)
        told = compared(self._makers, makers)
        self.settings, self._makers = settings, makers
        engine.change(makers)
        log.info("the settings were read again", **told)

    def closed(self) -> dict[Lane, int]:
        """The lanes whose address the venue has closed, and for how many ms."""
        return {lane.lane: host.egress.held_ms for lane, host in self._at.items() if host.egress.held_ms}

    def addresses(self, watched: Sequence[tuple[LaneServer, int]]) -> list[tuple[str, str]]:
        """(egress, bucket) of every limit per address that those of these lanes are behind which this process watches
        first."""
        hosts = (self._at.get(lane) for lane, place in watched if place == 0)
        return sorted({limit for host in hosts if host for limit in host.egress.limits})

    def _retire(self, lane: LaneServer) -> None:
        """Closes what a lane server's calls left by, if it was the last one of its host."""
        host = self._at.pop(lane, None)
        if host and host not in self._at.values():
            self._chore(host.close())

    def guards(self, engine: Engine) -> Guards:
        """What looks after the guards of the lanes that the engine watches."""
        timers = GuardTimers(
            self.client, lambda lane: lane in self.settings.lanes and self.settings.account(lane).venue_timer
        )
        return Guards(self.client, self.worker, engine.watched, timers)

    def _blocking_client(self) -> aioredis.Redis:
        """A connection for one blocking read; its time-out is well above the longest block."""
        client = connect(self._guide, max_connections=1, timeout_s=6.0)
        self._blocking.append(client)
        return client

    def _maker(self, lane: Lane, account: Account, *, new_key: bool = False) -> Callable[[], LaneServer]:
        venue = open_venue(lane.venue, account)

        def make() -> LaneServer:
            parts = self._parts(lane, account, venue, new_key)
            if self._rehearsal:
                parts = rehearsed(parts, self.client, from_start=self._rehearsal.from_start)
            server = LaneServer(parts, suspended=self._suspended)
            self._at[server] = self._host(account.base_url, venue)
            return server

        return make

    def _parts(self, lane: Lane, account: Account, venue: Venue, new_key: bool) -> LaneParts:
        settings = self.settings
        plan = LanePlan(
            lane=lane,
            routes=venue.routes,
            buckets=venue.buckets,
            lease_us=settings.lease_ms * 1000,
            gap_us=venue.timing.gap_us,
            urgent_reserve=settings.urgent_reserve,
            errors_us=venue.errors_us,
        )
        policy = Policy(max_attempts=settings.max_attempts, lookup_budget_us=settings.lookup_budget_ms * 1000)
        host = self._host(account.base_url, venue)
        return LaneParts(
            plan=plan,
            ledger=RedisLedger(self.client, plan, self._durability),
            venue=venue,
            judge=Judge(venue, policy, random.Random()),
            cancel_door=host.cancel_door,
            look_door=host.look_door,
            venue_clock=host.venue_clock,
            redis_clock=RemoteClock(1) if self._many_clocks else self._redis_clock,
            egress=host.egress,
            worker=self.worker,
            tag=secrets.token_hex(4),  # of this lane server alone: a lane may be opened more than once
            time_pace=host.time_pace,
            time_lock=host.time_lock,
            suspects=self._suspects,
            rounds=self._rounds.setdefault(home(self.client, lane.inbox), Rounds()),
            metrics=self.metrics.lane(lane, venue, KINDS[venue.name].codes),
            new_key=new_key,
            allow_withdraw_key=account.allow_withdraw_key,
            ws_url=account.ws_url,
            tls=self._tls,
        )

    def _host(self, base_url: str, venue: Venue) -> _Host:
        place = (venue.name, base_url, venue.address_buckets)
        if place not in self._hosts:
            name = DRY_EGRESS * bool(self._rehearsal) + self.settings.egress
            egress = Egress(
                self.client,
                name,
                venue.address_buckets,
                urgent_reserve=self.settings.urgent_reserve,
                durability=self._durability,
                leapt_us=None if self._many_clocks else self._redis_clock.leapt_us,
                vouched_us=None if self._many_clocks else lambda: self._redis_clock.vouched_us,
            )
            doors = self._door(base_url), self._door(base_url)
            self._hosts[place] = _Host(*doors, RemoteClock(1_000), egress, Pace(TIME_CALLS_A_SECOND), asyncio.Lock())
        return self._hosts[place]

    def _door(self, base_url: str) -> Door:
        return Door(base_url, verify=self._tls)

    def _housekeeping(self, watched: Sequence[tuple[LaneServer, int]]) -> None:
        """Now and then: what a first call needs, so that it does not wait; and what is old in the streams."""
        now = monotonic_s()
        for host, lane in {self._at[lane]: lane for lane, _ in watched}.items():
            host.egress.keep_ready()
            if not host.cared_for and now >= host.not_before_s:
                host.cared_for = True
                self._chore(self._care(host, lane))
        for lane, place in watched:
            name = str(lane.lane)
            # Lanes that start together are trimmed in turn.
            if (
                place == 0
                and now - self._trimmed.setdefault(name, now - random.uniform(0.0, TRIM_EVERY_S)) > TRIM_EVERY_S
            ):
                self._trimmed[name] = now
                self._chore(self._trim(lane))

    async def _care(self, host: _Host, lane: LaneServer) -> None:
        """Keeps a host's connections open, and its clock known, by one of its lanes."""
        try:
            if not await lane.keep_warm(sum(at is host for at in self._at.values())):
                host.not_before_s = monotonic_s() + CARE_AGAIN_S
        finally:
            host.cared_for = False

    async def _trim(self, lane: LaneServer) -> None:
        """Before the first run of the archive nothing is verified: the lane is told so, and keeps all its results."""
        if self.settings.archive_dir is not None and not self._rehearsal:
            marker = lane.lane.key("archived")
            if not await self.client.exists(marker):  # a full memory refuses even what changes nothing
                await self.client.set(marker, NOTHING_ARCHIVED, nx=True)
        await lane.trim(self.settings.results_keep_days * 86_400_000, self.settings.dedup_hours)

    def _chore(self, job: Coroutine[object, object, None]) -> None:
        task: asyncio.Future[None] = asyncio.ensure_future(job)
        self._chores.add(task)
        task.add_done_callback(self._chore_ended)

    def _chore_ended(self, task: asyncio.Future[None]) -> None:
        self._chores.discard(task)
        error = None if task.cancelled() else task.exception()
        if error:
            log.warning("housekeeping failed", error=repr(error)[:200])

    async def follow(self) -> None:
        """Leaves a master that the sentinels have replaced, also one that still answers; until cancelled."""
        if self._guide.broker.kind == "sentinel":
            await self._guide.follow()

    async def close(self) -> None:
        for host in self._hosts.values():
            await host.close()
        for task in list(self._chores):
            task.cancel()
        with contextlib.suppress(TimeoutError):  # else what is held becomes free by itself
            async with asyncio.timeout(LEAVE_S):
                await asyncio.gather(*(host.egress.leave() for host in self._hosts.values()))
        with contextlib.suppress(RedisError, OSError):
            for client in (self.client, *self._blocking):
                await client.aclose()


async def _heed(wiring: Wiring, engine: Engine, fresh: asyncio.Queue[Settings] | None) -> None:
    """Serves by the newest settings, whenever there are new ones."""
    while fresh is not None:
        settings = await fresh.get()
        try:
            wiring.change(settings, engine)
        except Exception:  # nothing of the old lanes was touched: they go on
            log.exception("the new settings could not be used, the old ones stay")


@contextlib.asynccontextmanager
async def beside(job: Coroutine[object, object, None]) -> AsyncIterator[None]:
    """Runs a job beside the block, and ends it with the block."""
    task = asyncio.ensure_future(job)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def serve(
    settings: Settings,
    *,
    worker_name: str,
    stop: asyncio.Event,
    suspended: Callable[[], bool],
    dry_run: bool = False,
    from_start: bool = False,
    fresh: asyncio.Queue[Settings] | None = None,
) -> None:
    """Serves every configured lane until `stop` is set and what was sent is settled. Settings that come through `fresh`
    take the place of those before; `restart_for` says whether they can. `dry_run`: nothing is sent (`dry_run.py`);
    `from_start`: it reads the inboxes from their start."""
    wiring = Wiring(settings, worker_name, suspended, Rehearsal(from_start) if dry_run else None)
    health = Health(stop)
    engine = wiring.engine(health)
    guards = wiring.guards(engine)
    try:
        watch = Watch(
            engine.first_watched,
            wiring.closed,
            lambda: wiring.addresses(engine.watched()),
            lambda: guards.standing,
        )
        async with observed(settings.http, wiring.metrics, health, wiring.client, watch):
            await check_server(wiring.client)
            async with beside(_heed(wiring, engine, fresh)), beside(wiring.follow()):
                if dry_run:
                    await begin(wiring.client, settings.lanes)
                    await engine.serve(stop)
                    return
                async with beside(guards.serve()):
                    await engine.serve(stop)
    finally:
        await wiring.close()
