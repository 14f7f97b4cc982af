"""The roster of live workers, and which of them watches which lane."""

from __future__ import annotations

import hashlib
from typing import Final

import redis.asyncio as aioredis

from cancelq_worker.data_version import DATA_VERSION
from cancelq_worker.scripts import SCRIPTS

#: One for each version of the data, so that workers of one version share the lanes among themselves.
ROSTERS: Final = tuple("cancelq:workers" + f":{v}" * (v > 1) for v in range(1, DATA_VERSION + 1))
ROSTER: Final = ROSTERS[-1]
FRESH_MS: Final = 1_600  # how old a heartbeat may be


def rank(lane: str, worker: str, alive: list[str]) -> int:
    """A worker's place for a lane by rendezvous hashing: 0 watches first, 1 second, others not at all."""

    def weight(name: str) -> bytes:
        return hashlib.blake2b(f"{lane}|{name}".encode(), digest_size=8).digest()

    return sorted({*alive, worker}, key=weight, reverse=True).index(worker)


async def workers_of(client: aioredis.Redis, *rosters: str) -> list[str]:
    """The workers of these rosters with a fresh heartbeat, sorted. Raises RedisError."""
    found = [name for roster in rosters for name in await SCRIPTS.run(client, "alive", [roster], [FRESH_MS])]
    return sorted(name.decode() for name in found)
