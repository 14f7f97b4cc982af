"""What is seen of the lanes from outside: a snapshot of each, of the server, and of the limits per address.

Needs Redis and no key, and changes nothing of a lane. A lane is one script (`lua/look.lua`), and many lanes are one
trip: what a snapshot costs the server is bounded. `cancelq status` takes one, `cancelq top` one after the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import redis.asyncio as aioredis
from redis.exceptions import NoScriptError, RedisError, ResponseError

from cancelq.broker_async import AsyncClusterRedis
from cancelq.contract import Lane
from cancelq.errors import LaneError
from cancelq_worker.lane_lists import LaneLists
from cancelq_worker.roster import ROSTERS, rank, workers_of
from cancelq_worker.scripts import SCRIPTS
from cancelq_worker.trips import by_home

LANES_A_TRIP = 32
#: How a refusal begins that is for the data of one lane: a key of another type, or one that the script stumbles over.
LANES_OWN = ("WRONGTYPE", "user_script")
#: What is in a refusal for the rights of a script's user, by servers since 7.2 and before.
FORBIDDEN = ("ACL failure", "The user executing the script")
#: The shortest of so many counts: the others have waited for this process' own work.
ROUND_TRIPS = 3
#: Entries of an inbox that are counted in one command, and of all inboxes in one snapshot of `top`.
COUNT_PAGE, COUNT_MOST = 500, 5_000
ENDLESS = "until resumed"
#: The largest id an entry can have: the server refuses to look behind it.
LAST_ID = f"{2**64 - 1}-{2**64 - 1}"
REFUSED_LATELY_MS = 3_600_000
#: A lane with work is touched every two seconds, and by the next worker if one dies.
UNATTENDED_MS = 10_000

#: A limit per address that no process asked for units of for so long is not shown.
FORGOTTEN_US = 86_400_000_000

ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True)
class Refusals:
    """How often the venue has refused calls of a bucket for its limit, and how long ago the last time was."""

    count: int
    age_ms: int

    @property
    def lately(self) -> bool:
        return self.age_ms <= REFUSED_LATELY_MS


@dataclass(frozen=True, slots=True)
class LaneStatus:
    """One snapshot. `queued`: waiting to be sent; `confirming`: sent, waiting for the venue's word;
    `in_flight`: in a worker's hands; `oldest_age_ms`: of the longest waiting unsent intent, None if none waits;
    `not_admitted`: entries no worker has read yet, at least so many if `not_admitted_more`; `inbox_age_ms`: of the
    oldest of them, by the time in its id; `untouched_ms`: for how long no worker has done anything here, None if none
    ever did, and an idle lane may rest for long; `unconfirmed_ms`: since the last cancel call for whichever intent has
    waited longest for its end since, None if none does or nobody asked; `holds`: (scope, reason, until when and why);
    `budget`: bucket → (units in use, limit where known); `refusals`: of the buckets that were ever refused."""

    lane: Lane
    queued: int
    confirming: int
    in_flight: int
    timed: int
    oldest_age_ms: int | None
    not_admitted: int
    inbox_length: int
    results_length: int
    holds: list[tuple[str, str, str]] = field(default_factory=list)
    budget: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    workers: list[str] = field(default_factory=list)
    not_admitted_more: bool = False
    inbox_age_ms: int | None = None
    untouched_ms: int | None = None
    unconfirmed_ms: int | None = None
    refusals: dict[str, Refusals] = field(default_factory=dict)

    @property
    def waits_ms(self) -> int | None:
        """Age of the longest waiting unsent intent, read by a worker or not."""
        return max((age for age in (self.oldest_age_ms, self.inbox_age_ms) if age is not None), default=None)

    @property
    def unattended(self) -> bool:
        """Something waits, and no worker does anything about it: those that are alive do not have this account."""
        return (self.waits_ms or 0) > UNATTENDED_MS and (self.untouched_ms is None or self.untouched_ms > UNATTENDED_MS)

    @property
    def paused(self) -> bool:
        return any(reason == "paused" for _, reason, _ in self.holds)

    @property
    def key_refused(self) -> bool:
        return any(reason == "auth" for _, reason, _ in self.holds)


@dataclass(frozen=True, slots=True)
class AddressStatus:
    """A limit the venue counts per address. `used`: units in use, those taken ahead of their calls among them;
    `limit`: None where no worker has told it yet; `held_ms`: for how long the address is closed, 0 if it is open."""

    egress: str
    bucket: str
    used: int
    limit: int | None
    held_ms: int = 0
    held_why: str = ""

    @property
    def share(self) -> float:
        """How much of the limit is in use, from 0; 0 where it is not known."""
        return self.used / self.limit if self.limit else 0.0

    @property
    def venue(self) -> str:
        """Every bucket of this kind is named after its venue."""
        return self.bucket.partition("-")[0]


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """The server: `now_us` is its TIME, `memory_most` None without a limit, `round_trip_ms` of one small command."""

    now_us: int
    name: str
    version: str
    memory: int
    memory_most: int | None
    round_trip_ms: float
    workers: list[str]


class Snapshots:
    """Takes snapshots of lanes. One that is used again remembers what it has counted of an inbox, and which lanes were
    at rest: as long as nothing happens there, they cost a tenth. Of the others it looks at `look_most` at a time, in
    turns, and tells of the rest what it saw last. `passing_by`: a lane whose data the server or this process cannot
    make sense of is left out, and why stands in `refused`; else that is raised. `around_nodes`: so are lanes of a
    cluster's node that is away, unless all are. A user who may not read the state of intents is told no
    `unconfirmed_ms`, and too young an `oldest_age_ms` where all that waits is put off, as while an endpoint is locked.
    """

    def __init__(
        self,
        redis: aioredis.Redis,
        *,
        count_most: int = COUNT_MOST,
        look_most: int | None = None,
        passing_by: bool = False,
        around_nodes: bool = False,
    ) -> None:
        self.refused: dict[Lane, str] = {}
        self._passing_by = passing_by
        self._around_nodes = around_nodes
        self._redis = redis
        self._count_most = count_most
        self._look_most = look_most
        self._states = True  # it may read the state of intents
        self._seen: dict[Lane, _Seen] = {}  # the one that was looked at longest ago first
        self._backlogs: dict[Lane, _Backlog] = {}
        self._lists = LaneLists(redis, ROSTERS[-1])
        self._alive: list[str] = []
        self._watching: dict[Lane, list[str]] = {}

    async def lanes(self, lanes: Sequence[Lane], alive: Sequence[str]) -> dict[Lane, LaneStatus]:
        """Those of the lanes that have an inbox. `alive`: the workers there are. Raises RedisError."""
        if alive and await self._lists.read():
            self._watching = {}
        due = self._due(lanes)
        self.refused = {}
        away: Exception | None = None
        for some in batched(due, LANES_A_TRIP):
            for lane, reply in zip(some, await self._looked_at(some), strict=True):
                before = self._seen.pop(lane, None)
                if isinstance(reply, ResponseError):
                    if not (self._passing_by and str(reply).startswith(LANES_OWN)):
                        raise reply
                    self.refused[lane] = str(reply)
                elif isinstance(reply, Exception):
                    if not self._around_nodes:
                        raise reply
                    self.refused[lane], away = str(reply), reply
                elif reply:
                    self._read(lane, before, reply)
        if away and len(self.refused) == len(due):
            raise away
        wanted = set(lanes)
        self._seen = {lane: s for lane, s in self._seen.items() if lane in wanted}
        await self._count(set(due))
        seen = [(lane, self._seen[lane]) for lane in lanes if lane in self._seen]
        return {lane: s.status(lane, self._backlogs[lane], self._watchers(lane, alive)) for lane, s in seen}

    def _read(self, lane: Lane, before: _Seen | None, reply: Sequence[Any]) -> None:
        try:
            self._seen[lane] = before if before and len(reply) == 1 else _Seen.read(reply)
        except ValueError as error:  # something there is none of our writing
            if not self._passing_by:
                raise
            self.refused[lane] = str(error)

    async def _looked_at(self, lanes: Sequence[Lane]) -> list[Any]:
        """What `look.lua` replies for each; what the server refuses is a reply, too, and so is a node that is away."""
        while True:
            verb, sha, states = SCRIPTS.verb["look"], SCRIPTS.sha["look"], self._states
            commands = [(verb, sha, 1, lane.key("clock"), self._mark(lane), int(states)) for lane in lanes]
            replies = await pipelined(self._redis, commands, raising=False)
            self._states = states and not any(is_forbidden(reply) for reply in replies)
            if self._states == states:
                return replies

    def _due(self, lanes: Sequence[Lane]) -> list[Lane]:
        """Those to look at now: every one at rest, every new one, and of the others as many as may be."""
        if self._look_most is None:
            return list(lanes)
        wanted = set(lanes)
        at_work = [lane for lane, s in self._seen.items() if lane in wanted and not s.at_rest]
        left_out = set(at_work[self._look_most :])
        return [lane for lane in lanes if lane not in left_out]

    def _mark(self, lane: Lane) -> str:
        seen = self._seen.get(lane)
        return seen.mark if seen and seen.at_rest else ""

    def _watchers(self, lane: Lane, alive: Sequence[str]) -> list[str]:
        """The two that watch a lane; found once for as long as the same workers are alive."""
        if self._alive != list(alive):
            self._alive, self._watching = list(alive), {}
        if lane not in self._watching:
            able = self._lists.having(str(lane), self._alive)
            self._watching[lane] = sorted(worker for worker in able if rank(str(lane), worker, able) < 2)
        return self._watching[lane]

    async def _count(self, due: set[Lane]) -> None:
        """How many entries wait behind each cursor. No server keeps that number, so they are counted, a bounded number
        in all; a cursor that stands still is counted on from where the last snapshot left off."""
        unfinished = []
        kept, self._backlogs = self._backlogs, {}
        for lane, s in self._seen.items():
            backlog = kept.get(lane)
            if s.whole or not s.first:
                backlog = _Backlog(s.cursor, "", s.inbox_length if s.whole else 0)
            elif backlog is None or backlog.cursor != s.cursor or not backlog.last:
                backlog = _Backlog(s.cursor, s.cursor, 0)
            self._backlogs[lane] = backlog
            if backlog.last not in ("", LAST_ID) and lane in due:
                unfinished.append(lane)
        left = self._count_most
        while unfinished and left > 0:
            page = max(1, min(COUNT_PAGE, left // len(unfinished)))
            left -= page * len(unfinished)
            unfinished = await self._count_page(unfinished, page)
        for lane in unfinished:
            self._backlogs[lane].more = True

    async def _count_page(self, lanes: Sequence[Lane], page: int) -> list[Lane]:
        """Counts a page of each; those that have more."""
        more = []
        for some in batched(lanes, max(1, 2 * COUNT_PAGE // page)):
            commands = [
                ("XRANGE", lane.inbox, f"({self._backlogs[lane].last}", "+", "COUNT", page) for lane in some
            ]  # fmt: skip
            for lane, entries in zip(some, await pipelined(self._redis, commands), strict=True):
                backlog = self._backlogs[lane]
                backlog.count += len(entries)
                backlog.more = False
                if entries:
                    backlog.last = entries[-1][0].decode()
                if len(entries) == page:
                    more.append(lane)
        return more


@dataclass(slots=True)
class _Backlog:
    """What was counted behind a cursor, up to the entry `last`; `more`: at the last look there were more."""

    cursor: str
    last: str
    count: int
    more: bool = False


@dataclass(frozen=True, slots=True)
class _Seen:
    """A reply of `look.lua`."""

    mark: str
    wall_us: int
    steady_us: int
    touched_us: int | None
    queued: int
    confirming: int
    oldest_us: int | None
    in_flight: int
    timed: int
    inbox_length: int
    results_length: int
    cursor: str
    first: str
    whole: bool
    ahead: int
    holds: list[tuple[str, str, str]]
    budget: dict[str, tuple[int, int | None]]
    refusals: dict[str, Refusals]
    sent_us: int | None

    @classmethod
    def read(cls, reply: Sequence[Any]) -> _Seen:
        mark, wall, steady, touched, queued, confirming, oldest, in_flight, timed, inbox, results = reply[:11]
        cursor, first, whole, ahead, holds, buckets, sent = reply[11:]
        rows = [tuple(buckets[i : i + 5]) for i in range(0, len(buckets), 5)]
        return cls(
            mark.decode(),
            int(wall),
            int(steady),
            int(touched) if touched else None,
            queued,
            confirming,
            int(oldest) if oldest else None,
            in_flight,
            timed,
            inbox,
            results,
            cursor.decode(),
            first.decode(),
            bool(whole),
            ahead,
            _holds(dict(zip(holds[::2], holds[1::2], strict=True)), int(steady), int(wall)),
            {name.decode(): (used, int(limit)) for name, limit, used, _, _ in sorted(rows)},
            {
                name.decode(): Refusals(int(count), max(0, int(wall) // 1000 - int(at_ms)))
                for name, _, _, count, at_ms in sorted(rows)
                if count and at_ms
            },
            int(sent) if sent else None,
        )

    @property
    def at_rest(self) -> bool:
        """Nothing of this changes by the passing of time alone."""
        waits = self.queued or self.confirming or self.in_flight or self.timed or self.first
        used = any(units for units, _ in self.budget.values())
        ends = any(not until.startswith(ENDLESS) for _, _, until in self.holds)
        return not (waits or used or ends or self.refusals)

    def status(self, lane: Lane, backlog: _Backlog, watching: list[str]) -> LaneStatus:
        oldest, first_ms = self.oldest_us, int(self.first.partition("-")[0]) if self.first else None
        return LaneStatus(
            lane=lane,
            queued=self.queued,
            confirming=self.confirming,
            in_flight=self.in_flight,
            timed=self.timed,
            oldest_age_ms=None if oldest is None else max(0, self.steady_us - oldest) // 1000,
            not_admitted=max(0, backlog.count - self.ahead),
            inbox_length=self.inbox_length,
            results_length=self.results_length,
            holds=self.holds,
            budget=self.budget,
            workers=watching,
            not_admitted_more=backlog.more,
            inbox_age_ms=None if first_ms is None else max(0, self.wall_us // 1000 - first_ms),
            untouched_ms=None if self.touched_us is None else max(0, self.wall_us - self.touched_us) // 1000,
            unconfirmed_ms=None if self.sent_us is None else max(0, self.wall_us - self.sent_us) // 1000,
            refusals=self.refusals,
        )


def steady_now(clock: bytes | None, now: tuple[int, int]) -> int:
    """The lane's steady clock in µs, from its `clock` key and Redis' TIME."""
    wall_us = now[0] * 1_000_000 + now[1]
    if not clock:
        return wall_us
    last_wall, last_steady = (int(x) for x in clock.split()[:2])
    return last_steady + max(0, wall_us - last_wall)


def _holds(kept: dict[bytes, bytes], steady_us: int, wall_us: int) -> list[tuple[str, str, str]]:
    rows = []
    for field_, value in sorted(kept.items()):
        scope, _, reason = field_.decode().partition("|")
        until, _, detail = value.decode(errors="replace").partition(" ")
        left_us = int(until) - steady_us
        if reason == "rate" and (by_wall := re.search(r" @(\d+)$", detail)):  # as `lua/hold_end.lua` has it
            left_us, detail = min(left_us, int(by_wall[1]) - wall_us), detail[: by_wall.start()]
        if int(until) == -1:
            rows.append((scope, reason, f"{ENDLESS}: {detail}" if detail else ENDLESS))
        elif left_us > 0:
            rows.append((scope, reason, f"{left_us / 1e6:.1f} s more: {detail}"))
    return rows


def is_forbidden(reply: object) -> bool:
    """Whether a script was refused something for the rights of its user."""
    return isinstance(reply, ResponseError) and any(words in str(reply) for words in FORBIDDEN)


async def workers_alive(redis: aioredis.Redis) -> list[str]:
    """The workers of this installation with a fresh heartbeat, sorted."""
    return await workers_of(redis, *ROSTERS)


async def server_status(redis: aioredis.Redis) -> ServerStatus:
    """The server as it is now. Raises RedisError."""
    server, memory = await pipelined(redis, [("INFO", "server"), ("INFO", "memory")])
    workers = await workers_alive(redis)
    trips_ms = []
    for _ in range(ROUND_TRIPS):
        begun_s = time.perf_counter()
        seconds, micros = await redis.time()
        trips_ms.append((time.perf_counter() - begun_s) * 1000)
    valkey = server.get("valkey_version")
    return ServerStatus(
        now_us=seconds * 1_000_000 + micros,
        name="Valkey" if valkey else "Redis",
        version=str(valkey or server.get("redis_version", "?")),
        memory=int(memory.get("used_memory", 0)),
        memory_most=int(memory.get("maxmemory", 0)) or None,
        round_trip_ms=min(trips_ms),
        workers=workers,
    )


async def find_lanes(redis: aioredis.Redis) -> list[Lane]:
    """Every lane that has an inbox on this server. Looks through the server's keys, some thousand a command."""
    found = []
    async for key in redis.scan_iter(match="cancelq:{*}:inbox", count=1000, _type="stream"):
        match = re.fullmatch(r"cancelq:\{([a-z0-9_:]+)\}:inbox", key.decode(errors="replace"))
        with contextlib.suppress(LaneError):  # a key that only looks like a lane's
            if match:
                found.append(Lane.parse(match.group(1)))
    return sorted(found, key=str)


async def find_addresses(redis: aioredis.Redis, now_us: int) -> list[tuple[str, str]]:
    """Every (egress, bucket) of which units were asked for within a day; as costly as `find_lanes`. `now_us`: the
    server's TIME."""
    found = {}
    async for key in redis.scan_iter(match="cancelq:{egress:*}:*:note", count=1000, _type="hash"):
        match = re.fullmatch(r"cancelq:\{egress:(.+)\}:([a-zA-Z0-9_.-]+):note", key.decode(errors="replace"))
        if match:
            found[match[1], match[2]] = key
    asked_us = await pipelined(redis, [("HMGET", key, "at") for key in found.values()]) if found else []
    since_us = now_us - FORGOTTEN_US
    return sorted(name for name, (at,) in zip(found, asked_us, strict=True) if int(at or since_us) >= since_us)


async def address_status(
    redis: aioredis.Redis, addresses: Sequence[tuple[str, str]], now_us: int
) -> list[AddressStatus]:
    """Units in use and holds of these. `now_us`: the server's TIME."""
    found = []
    for some in batched(addresses, LANES_A_TRIP):
        commands: list[tuple[Any, ...]] = []
        for egress, bucket in some:
            key = f"cancelq:{{egress:{egress}}}:{bucket}"
            commands += [("ZCOUNT", key, f"({now_us}", "+inf"), ("HMGET", f"{key}:note", "units", "hold")]
        replies = await pipelined(redis, commands)
        for (egress, bucket), used, (units, hold) in zip(some, replies[::2], replies[1::2], strict=True):
            till_ms, _, why = (hold or b"0").decode(errors="replace").partition(" ")
            held_ms = max(0, int(till_ms) - now_us // 1000)
            limit = int(units) if units else None
            found.append(AddressStatus(egress, bucket, used, limit, held_ms, why if held_ms else ""))
    return found


async def pipelined(redis: aioredis.Redis, commands: Sequence[tuple[Any, ...]], *, raising: bool = True) -> list[Any]:
    """The replies to commands sent in one write; the scripts are loaded if the server does not have them.
    Raises the first error among them; unless `raising`, what the server refused is a reply, and in a cluster that the
    node of some is away."""
    replies = await _sent(redis, commands)
    if any(isinstance(reply, NoScriptError) for reply in replies):
        await SCRIPTS.load(redis)
        replies = await _sent(redis, commands)
    for reply in replies:
        if isinstance(reply, Exception) and raising:
            raise reply
    return replies


async def _sent(redis: aioredis.Redis, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """The replies, refusals among them. Raises RedisError or OSError if the server is away; a node of a cluster that is
    away is an error in place of each of its replies."""

    async def trip(server: aioredis.Redis, places: list[int]) -> list[Any]:
        async with server.pipeline(transaction=False) as pipe:
            for place in places:
                pipe.execute_command(*commands[place])
            return await pipe.execute(raise_on_error=False)

    parts = by_home(redis, commands)
    if not isinstance(redis, AsyncClusterRedis):
        return await trip(*parts[0])
    replies: list[Any] = [None] * len(commands)
    told = await asyncio.gather(*(trip(*part) for part in parts), return_exceptions=True)
    for (_, places), part in zip(parts, told, strict=True):
        if isinstance(part, BaseException) and not isinstance(part, RedisError | OSError):
            raise part
        for n, place in enumerate(places):
            replies[place] = part if isinstance(part, BaseException) else part[n]
    return replies


def batched(items: Sequence[ItemT], size: int) -> Iterator[Sequence[ItemT]]:
    """The items, at most `size` at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
