"""What tests of a failover share: a desk that goes on asking, and what is to be seen of it afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from redis.exceptions import RedisError

from cancelq import AsyncClient, BatchIncomplete, BrokerDown, BrokerRefused, Event, Lane, Uncertain
from cancelq_worker.trips import command
from tests.integration.floor import Floor, spelled

T = TypeVar("T")


async def patiently(job: Callable[[], Awaitable[T]], within_s: float = 30.0) -> T:
    """The result of the first try that meets no error of Redis."""
    async with asyncio.timeout(within_s):
        while True:
            try:
                return await job()
            except RedisError:
                await asyncio.sleep(0.05)  # between two tries


async def outcomes(floor: Floor, lane: Lane) -> dict[str, list[Event]]:
    """Every final event that the lane's results hold now, by intent."""
    page = await patiently(lambda: command(floor.client, "XRANGE", lane.results, "-", "+"))
    found: dict[str, list[Event]] = {}
    for entry_id, flat in page:
        event = Event.read(entry_id.decode(), dict(zip(flat[::2], flat[1::2], strict=True)))
        if event.final:
            found.setdefault(event.id, []).append(event)
    return found


async def settled(floor: Floor, lane: Lane, ids: Sequence[str], within_s: float = 60.0) -> dict[str, list[Event]]:
    """The same, once all of these have one."""
    async with asyncio.timeout(within_s):
        while True:
            found = await outcomes(floor, lane)
            if not set(ids) - set(found):
                return found
            await asyncio.sleep(0.1)  # between two looks


def passed_limits(floor: Floor) -> list[dict[str, Any]]:
    """The venue's limits that were passed, by its own log: refused, or more within a window than allowed."""
    return [row for row in floor.simulator.rates() if row["refused"] or row["worst_arrived"] > row["limit"]]


def calls_of_routes(floor: Floor, lane: Lane) -> list[dict[str, Any]]:
    """The calls for the lane's account that need a bucket's permit: what the key may do is asked by turns instead,
    which replicas confirm."""
    return [call for call in floor.calls(lane) if call["endpoint"] != "info"]


def calls_between(floor: Floor, lane: Lane, from_us: int, to_us: int) -> list[str]:
    """What the venue was asked for in that time with a permit."""
    return [str(call["endpoint"]) for call in calls_of_routes(floor, lane) if from_us <= int(call["at_us"]) <= to_us]


async def true(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    """Until the condition holds."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 # there is no event for what servers and venues do
            await asyncio.sleep(0.02)


class Asking:
    """A producer that asks for cancels all the time, each durably unless told otherwise; what it could not have
    confirmed it sends again under the same id, as the errors say. `accepted`: what was confirmed, id → order."""

    def __init__(self, floor: Floor, lane: Lane, url: str, name: str, per_s: float, *, durable: bool = True) -> None:
        self.accepted: dict[str, str] = {}
        self.doubted = 0
        self._floor, self._lane, self._url, self._pause_s = floor, lane, url, 1 / per_s
        self._name = name
        self._durable = durable
        self._asked = 0

    async def run(self, stop: asyncio.Event) -> None:
        async with AsyncClient.from_url(self._url, timeout_s=2.0) as client:
            while not stop.is_set():
                self._asked += 1
                order, id_ = self._floor.order(self._lane), f"{self._name}-{self._asked}"
                fields = {"id": id_, "symbol": spelled(self._lane.venue), "order_id": order}
                if await self._confirmed(client, fields, stop):
                    self.accepted[id_] = order
                await asyncio.sleep(self._pause_s)  # the pace of this producer

    async def _confirmed(self, client: AsyncClient, fields: dict[str, Any], stop: asyncio.Event) -> bool:
        while not stop.is_set():
            try:
                await client.submit(self._lane, fields, durable=self._durable)
                return True
            except (Uncertain, BatchIncomplete, BrokerDown, BrokerRefused):
                self.doubted += 1
                await asyncio.sleep(0.05)  # before it is tried again
        return False


def epoch_us() -> int:
    return time.time_ns() // 1000
