"""What an operator sees and does: a lane's status, `pause` and `resume`. Needs Redis and no key.

Every act is an event of its own in the lane's results (`status=operator`), written in the same transaction.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import redis.asyncio as aioredis

from cancelq.contract import Lane, Status
from cancelq.errors import LaneError
from cancelq_worker import events
from cancelq_worker.engine import FRESH_MS, ROSTER, rank
from cancelq_worker.ledger import SCRIPTS, command


class UnknownLane(Exception):
    """The lane has no inbox: no worker has ever served it. Start one with this account, or mend the name."""

    def __init__(self, lane: Lane) -> None:
        super().__init__(f"lane {lane} has no inbox on this server; was the name mistyped, or never served?")
        self.lane = lane


@dataclass(frozen=True, slots=True)
class LaneStatus:
    """One snapshot. `queued`: waiting to be sent; `confirming`: sent, waiting for the venue's word;
    `in_flight`: in a worker's hands; `oldest_age_ms`: of the longest waiting unsent intent, None if none waits;
    `holds`: (scope, reason, until when and why); `budget`: bucket → (units in use, limit where known)."""

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

    @property
    def paused(self) -> bool:
        return any(reason == "paused" for _, reason, _ in self.holds)


async def status(redis: aioredis.Redis, lanes: Sequence[Lane]) -> list[LaneStatus]:
    """A snapshot of each lane. Raises UnknownLane for one without an inbox, RedisError."""
    alive = [n.decode() for n in await SCRIPTS.run(redis, "roster", [ROSTER], ["", FRESH_MS])]
    return [await _status(redis, lane, alive) for lane in lanes]


async def _status(redis: aioredis.Redis, lane: Lane, alive: list[str]) -> LaneStatus:
    key = lane.key
    if not await redis.exists(lane.inbox):
        raise UnknownLane(lane)
    clock = await cast("Awaitable[bytes | None]", redis.get(key("clock")))
    steady_us = steady_now(clock, await redis.time())
    waiting, oldest = {"c": 0, "l": 0}, []
    for stage in waiting:
        for priority in ("u", "n"):
            for name in await command(redis, "ZRANGE", key(f"classes:{stage}:{priority}"), 0, -1):
                queue = key(f"queue:{stage}:{priority}:{name.decode()}")
                waiting[stage] += await redis.zcard(queue)
                if stage == "c":
                    oldest += (await command(redis, "ZRANGE", queue, 0, 0, "WITHSCORES"))[1:]
    cursor = await cast("Awaitable[bytes | None]", redis.get(key("cursor")))
    after = f"({cursor.decode()}" if cursor else "-"
    behind = await command(redis, "XRANGE", lane.inbox, after, "+", "COUNT", 10_000)
    return LaneStatus(
        lane=lane,
        queued=waiting["c"],
        confirming=waiting["l"],
        in_flight=await redis.zcard(key("leases")),
        timed=await redis.zcard(key("timed")),
        oldest_age_ms=max(0, (steady_us - int(min(map(float, oldest)))) // 1000) if oldest else None,
        not_admitted=len(behind),
        inbox_length=await redis.xlen(lane.inbox),
        results_length=await redis.xlen(lane.results),
        holds=_holds(await cast("Awaitable[dict[bytes, bytes]]", redis.hgetall(key("hold"))), steady_us),
        budget=await _budget(redis, lane, steady_us),
        workers=sorted(w for w in alive if rank(str(lane), w, alive) < 2),
    )


def steady_now(clock: bytes | None, now: tuple[int, int]) -> int:
    """The lane's steady clock in µs, from its `clock` key and Redis' TIME."""
    wall_us = now[0] * 1_000_000 + now[1]
    if not clock:
        return wall_us
    last_wall, last_steady = (int(x) for x in clock.split()[:2])
    return last_steady + max(0, wall_us - last_wall)


def _holds(kept: dict[bytes, bytes], steady_us: int) -> list[tuple[str, str, str]]:
    rows = []
    for field_, value in sorted(kept.items()):
        scope, _, reason = field_.decode().partition("|")
        until, _, detail = value.decode(errors="replace").partition(" ")
        if int(until) == -1:
            rows.append((scope, reason, f"until resumed: {detail}" if detail else "until resumed"))
        elif int(until) > steady_us:
            rows.append((scope, reason, f"{(int(until) - steady_us) / 1e6:.1f} s more: {detail}"))
    return rows


async def _budget(redis: aioredis.Redis, lane: Lane, steady_us: int) -> dict[str, tuple[int, int | None]]:
    limits = await cast("Awaitable[dict[bytes, bytes]]", redis.hgetall(lane.key("limits")))
    out: dict[str, tuple[int, int | None]] = {}
    for name, units in sorted(limits.items()):
        used = await redis.zcount(lane.key(f"permits:{name.decode()}"), f"({steady_us}", "+inf")
        out[name.decode()] = (used, int(units))
    return out


async def pause(redis: aioredis.Redis, lane: Lane, actor: str) -> None:
    """Stops normal cancels of the lane for every worker; urgent ones and look-ups go on."""
    await _require(redis, lane)
    async with redis.pipeline(transaction=True) as pipe:
        pipe.hset(lane.key("hold"), "*|paused", f"-1 paused by {_plain(actor)}")
        pipe.xadd(lane.results, _operator_event(lane, "pause", actor, "normal cancels are stopped"))
        await pipe.execute()


async def resume(redis: aioredis.Redis, lane: Lane, actor: str) -> str:
    """Ends a pause; asks a worker to try the key if the lane is held for it. Says what was done."""
    await _require(redis, lane)
    hold = lane.key("hold")
    auth = await redis.hexists(hold, "*|auth")
    paused = await redis.hexists(hold, "*|paused")
    done = []
    if paused:
        done.append("the pause is ended")
    if auth:
        done.append("a worker tries the key with a harmless read and opens the lane if it works")
    said = "; ".join(done) or "the lane was not paused"
    async with redis.pipeline(transaction=True) as pipe:
        pipe.hdel(hold, "*|paused")
        if auth:
            pipe.set(lane.key("probe"), _plain(actor), ex=60)
        pipe.xadd(lane.results, _operator_event(lane, "resume", actor, said))
        await pipe.execute()
    return said


async def find_lanes(redis: aioredis.Redis) -> list[Lane]:
    """Every lane that has an inbox on this server."""
    found = []
    async for key in redis.scan_iter(match="cancelq:{*}:inbox", count=1000, _type="stream"):
        match = re.fullmatch(r"cancelq:\{([a-z0-9_:]+)\}:inbox", key.decode(errors="replace"))
        with contextlib.suppress(LaneError):  # a key that only looks like a lane's
            if match:
                found.append(Lane.parse(match.group(1)))
    return sorted(found, key=str)


async def _require(redis: aioredis.Redis, lane: Lane) -> None:
    if not await redis.exists(lane.inbox):
        raise UnknownLane(lane)


def _operator_event(lane: Lane, act: str, actor: str, detail: str) -> dict[Any, Any]:
    id_ = f"op-{secrets.token_hex(8)}"
    event = events.head(lane, id_, Status.operator, "local", detail)
    event.update(act=act, actor=_plain(actor), settled_us=str(time.time_ns() // 1000))
    return event


def _plain(actor: str) -> str:
    return re.sub(r"[^A-Za-z0-9@._:-]", "-", actor)[:64] or "unknown"


def default_actor() -> str:
    """Who runs this command, as far as the machine knows."""
    return f"{os.environ.get('USER') or os.environ.get('LOGNAME') or os.getuid()}@{os.uname().nodename}"
