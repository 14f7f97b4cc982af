"""Which lanes each worker of a roster has settings for, so that a lane is watched by two that can serve it.

Beside the roster: a hash, worker → digest of its lanes, and for each digest the lanes once, as most workers have the
same. A worker that tells nothing, of an older version say, counts as one that has every lane.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, Final, cast

import redis.asyncio as aioredis

from cancelq_worker.clocks import monotonic_s
from cancelq_worker.scripts import SCRIPTS

TOLD_AGAIN_S: Final = 3_600.0
KEPT_S: Final = 30 * 86_400  # a list that nobody tells any more
GONE_MOST: Final = 16  # workers of the hash that are not alive, before they are removed


class LaneLists:
    """What is known of the workers of one roster."""

    def __init__(self, client: aioredis.Redis, roster: str) -> None:
        self._client = client
        self._key = f"{roster}:lanes"
        self._of: dict[str, str] = {}
        self._lists: dict[str, frozenset[str]] = {}
        self._told_s = -TOLD_AGAIN_S

    async def tell(self, worker: str, lanes: Iterable[str]) -> None:
        """These are the worker's lanes; told again now and then, and where it was forgotten. Raises RedisError."""
        text = "\n".join(sorted(lanes))
        digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        if self._of.get(worker) == digest and monotonic_s() - self._told_s < TOLD_AGAIN_S:
            return
        await SCRIPTS.run(self._client, "lanes", [f"{self._key}:{digest}"], ["list", text, KEPT_S])
        await SCRIPTS.run(self._client, "lanes", [self._key], ["of", worker, digest])
        self._told_s = monotonic_s()

    async def tidy(self, alive: Sequence[str]) -> None:
        """Removes workers that were killed, once they are many. Raises RedisError."""
        gone = self._of.keys() - set(alive)
        if len(gone) > GONE_MOST:
            await self._client.hdel(self._key, *gone)

    async def read(self) -> bool:
        """Learns what the workers told; whether that is anything new. Raises RedisError."""
        kept = await cast("Awaitable[dict[bytes, bytes]]", self._client.hgetall(self._key))
        told = {worker.decode(): digest.decode() for worker, digest in kept.items()}
        for digest in set(told.values()) - self._lists.keys():
            text: Any = await self._client.get(f"{self._key}:{digest}")
            if text is not None:
                self._lists[digest] = frozenset(text.decode().split("\n"))
        before, self._of = self._of, told
        self._lists = {digest: lanes for digest, lanes in self._lists.items() if digest in told.values()}
        return before != told

    def having(self, lane: str, workers: Iterable[str]) -> list[str]:
        """Those of the workers that have the lane, as far as is known."""
        return [worker for worker in workers if self._has(worker, lane)]

    def _has(self, worker: str, lane: str) -> bool:
        lanes = self._lists.get(self._of.get(worker, ""))
        return lanes is None or lane in lanes

    async def leave(self, worker: str) -> None:
        """The worker ends. Raises RedisError."""
        await self._client.hdel(self._key, worker)
