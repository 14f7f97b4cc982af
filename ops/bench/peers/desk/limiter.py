"""The limiter a desk writes for several workers: a sliding window in Redis.

The window is 50 ms wider than the venue's second, because a call that leaves late and travels fast may catch up with
the one before it by as much as the network varies.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import redis
import redis.asyncio

WINDOW_US = 1_050_000
MOST = 10
KEY = "desk:permits"
SCRIPT = (Path(__file__).parent / "window.lua").read_text()


class Limiter:
    """Ten calls a second at one endpoint, over all workers."""

    def __init__(self, client: redis.Redis) -> None:
        self._script: Any = client.register_script(SCRIPT)

    def wait(self) -> None:
        """Returns once the caller may make one call."""
        while left_us := int(self._script(keys=[KEY], args=[MOST, WINDOW_US])):
            time.sleep(left_us / 1e6)


class AsyncLimiter:
    """The same for asyncio."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._script: Any = client.register_script(SCRIPT)

    async def wait(self) -> None:
        left_us = await self._ask()
        while left_us:
            await asyncio.sleep(left_us / 1e6)
            left_us = await self._ask()

    async def _ask(self) -> int:
        return int(await self._script(keys=[KEY], args=[MOST, WINDOW_US]))
