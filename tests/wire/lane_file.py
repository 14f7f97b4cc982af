"""A lane's data as a file: read from a server, and put into one again.

A file holds every key of the lane with its type and value, bytes as Latin-1 text, the entries of streams with their
ids. It says nothing of the server it came from, so it can be loaded into any.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis.asyncio as aioredis

from cancelq.contract import Lane
from cancelq_worker.trips import command, round_trip

#: How the whole of a key is read, and how it is written back, by its type.
_READ: dict[str, tuple[Any, ...]] = {
    "string": ("GET",),
    "hash": ("HGETALL",),
    "set": ("SMEMBERS",),
    "zset": ("ZRANGE", "0", "-1", "WITHSCORES"),
    "stream": ("XRANGE", "-", "+"),
}


async def read_lane(redis: aioredis.Redis, lane: Lane) -> list[dict[str, Any]]:
    """Every key of the lane, sorted."""
    keys = sorted([key async for key in redis.scan_iter(match=f"{lane.key('')}*")])
    return [await _read(redis, key, lane) for key in keys]


async def _read(redis: aioredis.Redis, key: bytes, lane: Lane) -> dict[str, Any]:
    (kind,) = await round_trip(redis, [("TYPE", key)])  # its replies are the server's own
    name, *rest = _READ[kind.decode()]
    (value,) = await round_trip(redis, [(name, key, *rest)])
    if kind == b"hash":  # which keeps no order
        pairs = sorted(zip(value[::2], value[1::2], strict=True))
        value = [word for pair in pairs for word in pair]
    elif kind == b"set":
        value = sorted(value)
    return {"key": key.decode().removeprefix(lane.key("")), "type": kind.decode(), "value": _text(value)}


def _text(reply: Any) -> Any:
    return reply.decode("latin-1") if isinstance(reply, bytes) else [_text(part) for part in reply]


async def load_lane(redis: aioredis.Redis, lane: Lane, keys: Sequence[dict[str, Any]]) -> None:
    """Writes every key of a file."""
    for row in keys:
        key, value = lane.key(row["key"]), row["value"]
        match row["type"]:
            case "string":
                await command(redis, "SET", key, _bytes(value))
            case "hash":
                await command(redis, "HSET", key, *map(_bytes, value))
            case "set":
                await command(redis, "SADD", key, *map(_bytes, value))
            case "zset":
                scores = [
                    word for member, score in zip(value[::2], value[1::2], strict=True) for word in (score, member)
                ]
                await command(redis, "ZADD", key, *map(_bytes, scores))
            case "stream":
                for entry_id, flat in value:
                    await command(redis, "XADD", key, entry_id, *map(_bytes, flat))
            case kind:
                raise ValueError(f"{key}: a file has no keys of type {kind}")


def _bytes(text: str) -> bytes:
    return text.encode("latin-1")
