"""A strategy engine that cancels its own orders by asynchronous ccxt: no queue, no broker.

Every engine has every third order of the load. As shipped: `cancel_order` for each. With `cancel_orders`: what has
gathered, fifty at a time. Both with ccxt's rate limiter on. Helped: with a permit of a limiter that the engines share
in Redis instead. A refused call is made again after a second.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import ccxt.async_support as ccxt  # type: ignore[import-untyped]
import redis.asyncio

from peers.desk.limiter import AsyncLimiter
from peers.desk.noting import note
from peers.desk.plan import Step, play, read_plan, starting

PAIR = "BTC/USDT"
MOST = 50
AGAIN_S = 1.0
ENGINES = 3
AT_ONCE = 20  # calls of `cancel_order` under way; what waits in ccxt's throttle is bounded


class Engine:
    """One process: its orders as they fall due, its calls one after another, as ccxt's throttle has it."""

    def __init__(self, row: str) -> None:
        self._single = row == "as shipped"
        # Where the engines share a limiter, ccxt's own would only hold each call once more.
        self._exchange = _exchange(own_limiter=row != "helped")
        self._limiter = None
        if row == "helped":
            self._limiter = AsyncLimiter(redis.asyncio.Redis.from_url(os.environ["DESK_REDIS"]))
        self._waiting: list[str] = []
        self._asked = asyncio.Event()
        self._room = asyncio.Semaphore(AT_ONCE)

    async def serve(self, number: int) -> None:
        """Plays this engine's share of the plan; ends with its process."""
        await self._exchange.load_markets()
        print("ready", flush=True)
        start_us = await starting()
        worker = asyncio.create_task(self._one_by_one() if self._single else self._in_batches())
        await play([_share(step, number) for step in read_plan()], self._ask, start_us)
        await worker

    async def _ask(self, order_ids: list[str], urgent: bool) -> None:
        self._waiting[:0] = order_ids if urgent else []
        self._waiting += [] if urgent else order_ids
        self._asked.set()

    async def _one_by_one(self) -> None:
        """As many calls at once as ccxt's throttle lets out."""
        under_way: set[asyncio.Task[None]] = set()
        while True:
            await self._asked.wait()
            self._asked.clear()
            some, self._waiting = self._waiting, []
            for order_id in some:
                task = asyncio.create_task(self._cancel(order_id))
                under_way.add(task)
                task.add_done_callback(under_way.discard)

    async def _cancel(self, order_id: str) -> None:
        while True:
            try:
                async with self._room:
                    await self._exchange.cancel_order(order_id, PAIR)
            except (ccxt.DDoSProtection, ccxt.RateLimitExceeded):
                await asyncio.sleep(AGAIN_S)
                continue
            except ccxt.ExchangeError as error:
                note({order_id: type(error).__name__})
                return
            note({order_id: "00000"})
            return

    async def _in_batches(self) -> None:
        while True:
            await self._asked.wait()
            if not self._waiting:
                self._asked.clear()
                continue
            if self._limiter:
                await self._limiter.wait()
            some, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
            try:
                answers = await self._exchange.cancel_orders(some, PAIR)
            except (ccxt.DDoSProtection, ccxt.RateLimitExceeded):
                self._waiting[:0] = some
                await asyncio.sleep(AGAIN_S)
                continue
            told = {answer["id"] for answer in answers}
            note({order_id: "00000" if order_id in told else "failed" for order_id in some})


def _share(step: Step, number: int) -> Step:
    own = [order_id for order_id in step.order_ids if int(order_id[-4:]) % ENGINES == number]
    return Step(step.at_us, own, step.urgent)


def _exchange(own_limiter: bool) -> Any:
    exchange = ccxt.bitget(
        {
            "apiKey": os.environ["DESK_KEY"],
            "secret": os.environ["DESK_SECRET"],
            "password": os.environ["DESK_PASSPHRASE"],
            "enableRateLimit": own_limiter,
            "options": {"fetchMarkets": {"types": ["spot"]}, "defaultType": "spot"},
        }
    )
    exchange.urls["api"] = dict.fromkeys(exchange.urls["api"], os.environ["DESK_VENUE"])
    return exchange


if __name__ == "__main__":
    asyncio.run(Engine(os.environ["DESK_ROW"]).serve(int(sys.argv[1])))
