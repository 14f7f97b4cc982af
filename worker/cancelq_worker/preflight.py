"""What a server must be before a worker starts on it. A worker that runs already waits instead."""

from __future__ import annotations

import redis.asyncio as aioredis
import structlog
from redis.exceptions import ResponseError

from cancelq_worker.exits import CommandFailed, Exit
from cancelq_worker.trips import command

log = structlog.get_logger("cancelq.preflight")

FLOOR = (7, 0)


async def check_server(client: aioredis.Redis) -> None:
    """Raises CommandFailed (exit code 78) for a server that is too old or may evict; RedisError if it is down.

    A server that would lose accepted intents in a power cut is only warned about: a rehearsal may want one.
    """
    version = str((await client.info("server")).get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < FLOOR:
        raise CommandFailed(
            f"Redis {version} is too old: its scripts cannot run when memory is full",
            "use Redis 7.0 or newer, or Valkey 7.2 or newer",
            Exit.CONFIGURATION,
        )
    policy = str((await client.info("memory")).get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        raise CommandFailed(
            f"maxmemory-policy is {policy}: the server would drop accepted intents when its memory is full",
            "set it: redis-cli CONFIG SET maxmemory-policy noeviction, and in the server's configuration file",
            Exit.CONFIGURATION,
        )
    appendonly = bool((await client.info("persistence")).get("aof_enabled", 1))
    fsync = await _setting(client, "appendfsync") if appendonly else None
    if not appendonly or fsync not in (None, "always"):
        log.warning(
            "the server may lose accepted intents in a power cut",
            appendonly="yes" if appendonly else "no",
            appendfsync=fsync,
            remedy="appendonly yes and appendfsync always, as in ops/redis/redis.conf",
        )


async def _setting(client: aioredis.Redis, name: str) -> str | None:
    """One setting of the server, or None where it does not tell (a managed server, or a user without the right)."""
    try:
        reply = await command(client, "CONFIG GET", name)
    except ResponseError:
        return None
    return reply[1].decode() if isinstance(reply, list) and len(reply) > 1 else _of_mapping(reply, name)


def _of_mapping(reply: object, name: str) -> str | None:
    value = reply.get(name) if isinstance(reply, dict) else None
    return value.decode() if isinstance(value, bytes) else value
