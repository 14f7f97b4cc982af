"""What an operator sees and does: a lane's status, `pause` and `resume`. Needs Redis and no key.

Every act is an event of its own in the lane's results (`status=operator`), written in the same transaction; of a pause
that is ended while the server's memory is full there is none.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import secrets
from collections.abc import Sequence
from typing import Any

import redis.asyncio as aioredis
from redis.exceptions import OutOfMemoryError

from cancelq.contract import Lane, Status
from cancelq_worker import events
from cancelq_worker.ledger import key_refused
from cancelq_worker.records import KEY_WORKS, KeyTried
from cancelq_worker.snapshot import LaneStatus, Snapshots, find_lanes, steady_now, workers_alive
from cancelq_worker.trips import home

__all__ = [
    "LaneStatus",
    "UnknownLane",
    "being_tried",
    "default_actor",
    "find_lanes",
    "key_refused",
    "key_tried",
    "operator_event",
    "pause",
    "resume",
    "status",
    "steady_now",
    "whole_status",
]

#: Entries of one inbox that `status` counts at most.
NOT_ADMITTED_MOST = 10_000
#: How long `resume` waits for a worker to try the key.
KEY_TRIED_S = 15.0


class UnknownLane(Exception):
    """The lane has no inbox: no worker has ever served it. Start one with this account, or mend the name."""

    def __init__(self, lane: Lane) -> None:
        super().__init__(f"lane {lane} has no inbox on this server; was the name mistyped, or never served?")
        self.lane = lane


async def status(redis: aioredis.Redis, lanes: Sequence[Lane]) -> list[LaneStatus]:
    """A snapshot of each lane. Raises UnknownLane for one without an inbox, RedisError."""
    found = await _snapshots(redis, lanes).lanes(lanes, await workers_alive(redis))
    for lane in lanes:
        if lane not in found:
            raise UnknownLane(lane)
    return [found[lane] for lane in lanes]


async def whole_status(redis: aioredis.Redis, lanes: Sequence[Lane]) -> tuple[dict[Lane, LaneStatus], dict[Lane, str]]:
    """A snapshot of each lane that has an inbox; and why the server refuses to look at others: one of their keys is of
    another type, say. Raises RedisError."""
    snapshots = _snapshots(redis, lanes, passing_by=True)
    found = await snapshots.lanes(lanes, await workers_alive(redis))
    return found, snapshots.refused


def _snapshots(redis: aioredis.Redis, lanes: Sequence[Lane], *, passing_by: bool = False) -> Snapshots:
    return Snapshots(redis, count_most=NOT_ADMITTED_MOST * max(1, len(lanes)), passing_by=passing_by)


async def pause(redis: aioredis.Redis, lane: Lane, actor: str) -> None:
    """Stops normal cancels of the lane for every worker; urgent ones and look-ups go on."""
    await _require(redis, lane)
    now = await home(redis, lane.inbox).time()
    async with redis.pipeline(transaction=True) as pipe:
        pipe.hset(lane.key("hold"), "*|paused", f"-1 paused by {_plain(actor)}")
        pipe.xadd(lane.results, operator_event(lane, "pause", actor, "normal cancels are stopped", now))
        await pipe.execute()


async def resume(redis: aioredis.Redis, lane: Lane, actor: str, asked: str = "") -> str:
    """Ends a pause; asks a worker to try the key if the lane is held for it. Says what was done. `asked`: a word of its
    own, without blanks, for `key_tried`."""
    await _require(redis, lane)
    hold = lane.key("hold")
    auth = await key_refused(redis, lane)
    paused = await redis.hexists(hold, "*|paused")
    done = []
    if paused:
        done.append("the pause is ended")
    if auth:
        done.append("a worker tries the key with a harmless read and opens the lane if it works")
    said, now = "; ".join(done) or "the lane was not paused", await home(redis, lane.inbox).time()
    async with redis.pipeline(transaction=True) as pipe:
        pipe.hdel(hold, "*|paused")
        if auth:
            pipe.set(lane.key("probe"), asked or _plain(actor), ex=60)
        pipe.xadd(lane.results, operator_event(lane, "resume", actor, said, now))
        try:
            await pipe.execute()
        except OutOfMemoryError:
            if auth or not paused:
                raise
            # What fills the memory may be what the pause keeps; a server that is full takes this, and no transaction.
            await redis.hdel(hold, "*|paused")
            said += "; the results do not tell it, as the server's memory is full"
    return said


async def key_tried(redis: aioredis.Redis, lane: Lane, asked: str) -> KeyTried | None:
    """Waits for what came of the key after `resume`, which gave `asked`. None if no worker has tried it by then; it may
    be that one is still trying (`being_tried`)."""
    for _ in range(int(KEY_TRIED_S / 0.1)):
        told: Any = await redis.get(lane.key("probed"))
        if tried := KeyTried.unpacked(bytes(told or b""), asked):
            return tried
        if not await key_refused(redis, lane):
            return KEY_WORKS
        await asyncio.sleep(0.1)  # nothing one could block on
    return None


async def being_tried(redis: aioredis.Redis, lane: Lane) -> bool:
    """Whether some worker has taken up an operator's question about the key."""
    return not await redis.exists(lane.key("probe"))


async def _require(redis: aioredis.Redis, lane: Lane) -> None:
    if not await redis.exists(lane.inbox):
        raise UnknownLane(lane)


def operator_event(lane: Lane, act: str, actor: str, detail: str, now: tuple[int, int]) -> dict[Any, Any]:
    """The event that tells of an operator's act: who did what, and when. `now`: the server's TIME, as all events are
    told by that clock."""
    seconds, micros = now
    id_ = f"op-{secrets.token_hex(8)}"
    event = events.head(lane, id_, Status.operator, "local", detail)
    event.update(act=act, actor=_plain(actor), settled_us=str(seconds * 1_000_000 + micros))
    return event


def _plain(actor: str) -> str:
    return re.sub(r"[^A-Za-z0-9@._:-]", "-", actor)[:64] or "unknown"


def default_actor() -> str:
    """Who runs this command, as far as the machine knows."""
    name = os.environ.get("USER") or os.environ.get("LOGNAME") or _account_name(os.getuid())
    return f"{name}@{os.uname().nodename}"


def _account_name(uid: int) -> str:
    """As the machine's accounts have it; the number where they do not know it, as in many a container."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
