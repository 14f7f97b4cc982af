"""Fuzz over admission as a whole: a batch of hostile entries with good ones among them, through a real server."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any, cast

import redis.asyncio as aioredis

from cancelq.contract import Event, Lane
from cancelq_worker.intake import Intake
from cancelq_worker.ledger import RedisLedger
from cancelq_worker.records import Admitted, LanePlan, RoundRequest
from cancelq_worker.trips import RawEntry, command, read_entries
from tests.fuzz.answers import VENUES
from tests.fuzz.entries import Flat, check_event, entry

GOOD_EVERY = 8  # one entry of so many is a good one


class Admission:
    """One venue's lane on a server, open and served by nobody."""

    def __init__(self, client: aioredis.Redis, venue: str) -> None:
        adapter = VENUES[venue].venue
        self.lane = Lane(venue, "main")
        plan = LanePlan(self.lane, adapter.routes, adapter.buckets, 5_000_000, 0, 1, errors_us=adapter.errors_us)
        self._client = client
        self._ledger = RedisLedger(client, plan)
        self._intake = Intake(self.lane, adapter, "w1")
        self._symbol = VENUES[venue].symbol
        self._good = 0

    async def open(self) -> None:
        await self._ledger.open()

    async def batch(self, rng: Random, size: int) -> Counter[str]:
        """Queues and admits so many entries: what became of them, by kind. Raises AssertionError if not exactly one
        thing became of each, or if a good one was harmed."""
        flats, good = self._flats(rng, size)
        for flat in flats:
            await command(self._client, "XADD", self.lane.inbox, "*", *flat)
        before = await self._ledger.cursor()
        entries = await self._unread(before)
        told_before = await self._client.xlen(self.lane.results)
        reply = await self._ledger.round(RoundRequest(admission=self._intake.prepare(before, entries)))
        assert isinstance(reply.admitted, Admitted), reply.admitted
        assert reply.admitted.applied
        events = [event async for event in self._events(told_before)]
        became = Counter(str(event.status.value) for event in events)
        became["admitted"] = reply.admitted.admitted
        assert reply.admitted.admitted + became["rejected"] + became["duplicate"] == len(entries) == len(flats), became
        kept = set(await cast("Any", self._client.hkeys(self.lane.key("intents"))))
        assert {id_.encode() for id_ in good} <= kept, "a good one was harmed"
        for event in events:
            fields = {name: str(value) for name, value in event.model_dump(mode="json", exclude_none=True).items()}
            check_event(event, {**fields, **event.extras, "final": "1" if event.final else "0"})
        return became

    def _flats(self, rng: Random, size: int) -> tuple[list[Flat], list[str]]:
        flats, good = [], []
        for n in range(size):
            if n % GOOD_EVERY == 0:
                self._good += 1
                id_ = f"good-{self._good}"
                good.append(id_)
                words = ("id", id_, "symbol", self._symbol, "order_id", str(10**17 + self._good))
                flats.append([word.encode() for word in words])
            else:
                flats.append(entry(rng))
        return flats, good

    async def _unread(self, after: str) -> list[RawEntry]:
        reply = await command(self._client, "XREAD", "COUNT", 10_000, "STREAMS", self.lane.inbox, after)
        return read_entries(reply).get(self.lane.inbox, [])

    async def _events(self, skip: int) -> Any:
        page = await command(self._client, "XRANGE", self.lane.results, "-", "+")
        for entry_id, flat in page[skip:]:
            yield Event.read(entry_id.decode(), dict(zip(flat[::2], flat[1::2], strict=True)))
