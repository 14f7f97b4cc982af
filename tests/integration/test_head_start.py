"""The second watcher of a lane: it does nothing in vain, and everything where the first does not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import redis.asyncio as aioredis
from redis.exceptions import ConnectionError as RedisConnectionError

from cancelq.contract import Status
from cancelq_worker import lane as lane_module
from cancelq_worker.lane import LaneServer
from cancelq_worker.records import LanePlan, Round, RoundRequest
from cancelq_worker.trips import RawEntry
from ops.chaos.world import until
from tests.integration.test_busy_process import Counted, turns, until_it_rests
from tests.integration.test_send_by import Hand, hand, served

SOON_S = 8.0  # well before a lane at rest looks by itself


class Noted(Counted):
    """What was wanted of rounds, and how often it was asked where the lane stands. `away`: Redis does not say."""

    def __init__(self, client: aioredis.Redis, plan: LanePlan) -> None:
        super().__init__(client, plan)
        self.wanted: list[RoundRequest] = []
        self.looked = 0
        self.away = False

    async def round(self, wanted: RoundRequest) -> Round:
        self.wanted.append(wanted)
        return await super().round(wanted)

    async def standing(self) -> tuple[str, bool]:
        self.looked += 1
        if self.away:
            raise RedisConnectionError("away")
        return await super().standing()


class Second:
    """A lane that is watched behind another watcher, which is nobody but the test."""

    def __init__(self, one: Hand) -> None:
        self.one = one
        self.ledger = Noted(one.inbox.client, one.parts.plan)
        self.lane = LaneServer(replace(one.parts, ledger=self.ledger), suspended=lambda: False)
        self.lane.head_start.us = 1_000

    async def rests(self) -> None:
        await until_it_rests(self.one, self.ledger)

    async def looked(self, times: int) -> None:
        async def so_often() -> bool:
            return self.ledger.looked >= times

        assert await until(so_often, 10)

    async def entry(self, **fields: str) -> tuple[str, list[RawEntry]]:
        """One entry of the inbox: its id, and the page that holds it."""
        id_ = await self.one.inbox.add(**{"symbol": "BTCUSDT", "order_id": self.one.rig.order(), **fields})
        return id_, await self.one.inbox.read(self.lane.cursor)


@asynccontextmanager
async def second(redis_url: str) -> AsyncIterator[Second]:
    """It rests."""
    async with hand(redis_url) as one:
        it = Second(one)
        await it.lane.open()
        async with served(it.lane):
            await it.rests()
            yield it


async def test_what_the_first_has_admitted_and_ended_needs_no_round(redis_url: str) -> None:
    async with second(redis_url) as it:
        before = it.ledger.rounds
        _, page = await it.entry(scope="nonsense")  # rejected by its admission
        await it.one.inbox.admit(page)
        it.lane.deliver(it.lane.cursor, page)
        await it.looked(1)
        await turns(it.one)
        assert it.ledger.rounds == before
        assert it.lane.cursor == page[-1][0]


async def test_what_the_first_does_not_admit_is_admitted_and_sent(redis_url: str) -> None:
    async with second(redis_url) as it:
        id_, page = await it.entry()
        it.lane.deliver(it.lane.cursor, page)
        event = await it.one.rig.final(id_, SOON_S)
        assert (event.status, event.attempt) == (Status.cancelled, 1)
        assert it.ledger.looked >= 1


async def test_what_the_first_has_begun_and_not_ended_is_looked_at(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_module, "THROUGH_US", 1_000)
    async with second(redis_url) as it:
        before = it.ledger.rounds
        id_, page = await it.entry()
        await it.one.inbox.admit(page)
        it.lane.deliver(it.lane.cursor, page)
        event = await it.one.rig.final(id_, SOON_S)
        assert (event.status, event.attempt) == (Status.cancelled, 1)
        assert all(wanted.admission is None for wanted in it.ledger.wanted[before:])


async def test_what_is_asked_of_it_meanwhile_is_done_at_once(redis_url: str) -> None:
    """A call that came back, an end, a change of the roster: the head start is for entries alone."""
    async with second(redis_url) as it:
        before = it.ledger.rounds
        it.lane.look()
        await it.rests()
        assert it.ledger.rounds == before + 1


async def test_behind_a_cursor_that_moves_it_reads_and_admits_nothing(redis_url: str) -> None:
    async with second(redis_url) as it:
        it.lane.head_start.us = 3_600_000_000
        _, page = await it.entry(scope="nonsense")
        await it.one.inbox.admit(page)
        await it.entry()
        before = it.ledger.rounds
        it.lane.look()
        await it.rests()
        (wanted,) = it.ledger.wanted[before:]
        assert wanted.standing
        assert (wanted.read_after, wanted.admission) == (None, None)
        assert it.lane.cursor == page[-1][0]
        it.lane.head_start.us = 0  # the first one is gone
        it.lane.look()

        async def admitted() -> bool:
            return any(wanted.admission for wanted in it.ledger.wanted)

        assert await until(admitted, 10)


async def test_that_redis_cannot_say_where_the_lane_stands_leaves_the_entries_to_it(redis_url: str) -> None:
    async with second(redis_url) as it:
        it.ledger.away = True
        id_, page = await it.entry()
        it.lane.deliver(it.lane.cursor, page)
        assert (await it.one.rig.final(id_, SOON_S)).status is Status.cancelled
