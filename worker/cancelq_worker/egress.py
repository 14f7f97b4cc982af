"""The limit a venue counts per address: shares of it are taken ahead, so that no call waits for them.

A share lives two seconds in this process; what was not used is given back (`lua/egress.lua`).
"""

from __future__ import annotations

import asyncio
import time

import redis.asyncio as aioredis
from redis.exceptions import RedisError

from cancelq_worker.ledger import SCRIPTS
from cancelq_worker.venues.port import Bucket

SHARE_LIVES_NS = 2_000_000_000
STOCK = 32


class Egress:
    """This process' stock of one venue's per-address limit."""

    def __init__(self, client: aioredis.Redis, name: str, bucket: Bucket) -> None:
        self._client = client
        self._key = f"cancelq:{{egress:{name}}}:{bucket.name}"
        self._bucket = bucket
        self._left = 0
        self._second = 0
        self._got_ns = 0
        self._filling: asyncio.Task[None] | None = None
        self._busy = False
        self.held_ms = 0

    def left(self) -> int:
        """Calls that may be made now. Asks for more in the background when the stock runs low or old."""
        age_ns = time.monotonic_ns() - self._got_ns
        usable = 0 if age_ns > SHARE_LIVES_NS else self._left
        if usable < STOCK // 2 or age_ns > SHARE_LIVES_NS // 2:
            self._refill()
        return usable

    def use(self) -> None:
        self._left -= 1

    def unuse(self) -> None:
        """A call that was not made."""
        self._left += 1

    def _refill(self) -> None:
        if self._filling is None or self._filling.done():
            self._filling = asyncio.ensure_future(self.fill())

    async def fill(self) -> None:
        """Trades what is left of the old share for a fresh one."""
        if self._busy:
            return
        self._busy = True
        back, second = max(0, self._left), self._second
        self._left -= back
        try:
            before_ns = time.monotonic_ns()
            units, window_s = self._bucket.units, self._bucket.window_us // 1_000_000
            args = [units, window_s, STOCK, back, second, 0, ""]
            granted, self._second, self.held_ms = await SCRIPTS.run(self._client, "egress", [self._key], args)
            self._left += granted
            self._got_ns = before_ns
        except (RedisError, OSError):
            pass  # without Redis nothing may be sent: the stock stays empty and the next round asks again
        finally:
            self._busy = False

    async def hold(self, for_ms: int, detail: str) -> None:
        """Closes the address for every process that leaves from it."""
        args = [self._bucket.units, self._bucket.window_us // 1_000_000, 0, 0, 0, for_ms, detail]
        await SCRIPTS.run(self._client, "egress", [self._key], args)
        self._left, self.held_ms = 0, for_ms
