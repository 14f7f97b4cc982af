"""The second watcher of a lane: it does nothing in vain, and everything where the first does not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from cancelq.contract import Status
from cancelq_worker import lane as lane_module
from cancelq_worker.lane import LaneServer
from cancelq_worker.ledger import RawEntry, RedisLedger, Round, RoundRequest
from ops.chaos.world import until
from tests.integration.test_send_by import Hand, hand, served

TURNS = 50  # trips of others: time enough for a lane to make a round
SOON_S = 8.0  # well before a lane at rest looks by itself


class Noted(RedisLedger):
    """What was asked for in rounds, and how often it was asked where the lane stands."""

    asked: list[RoundRequest]
    looked: int

    async def round(self, wanted: RoundRequest) -> Round:
        self.asked.append(wanted)
        return await super().round(wanted)

    async def standing(self) -> tuple[str, bool]:
        standing = await super().standing()
        self.looked += 1
        return standing


class Second:
    """A lane that is watched behind another watcher, which is nobody but the test."""

    def __init__(self, one: Hand) -> None:
        self.one = one
        self.ledger = Noted(one.inbox.client, one.parts.plan)
        self.ledger.asked, self.ledger.looked = [], 0
        self.lane = LaneServer(replace(one.parts, ledger=self.ledger), suspended=lambda: False)
        self.lane.head_start.us = 1_000

    async def turns(self) -> None:
        for _ in range(TURNS):
            await self.one.inbox.client.ping()

    async def rests(self) -> bool:
        before = len(self.ledger.asked)
        await self.turns()
        return 0 < before == len(self.ledger.asked)

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
            assert await until(it.rests, 10)
            yield it


async def test_what_the_first_has_admitted_and_ended_needs_no_round(redis_url: str) -> None:
    async with second(redis_url) as it:
        before = len(it.ledger.asked)
        _, page = await it.entry(scope="nonsense")  # rejected by its admission
        await it.one.inbox.admit(page)
        it.lane.deliver(it.lane.cursor, page)
        await it.looked(1)
        await it.turns()
        assert len(it.ledger.asked) == before
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
        before = len(it.ledger.asked)
        id_, page = await it.entry()
        await it.one.inbox.admit(page)
        it.lane.deliver(it.lane.cursor, page)
        event = await it.one.rig.final(id_, SOON_S)
        assert (event.status, event.attempt) == (Status.cancelled, 1)
        assert all(wanted.admission is None for wanted in it.ledger.asked[before:])


async def test_what_is_asked_of_it_meanwhile_is_done_at_once(redis_url: str) -> None:
    """A call that came back, an end, a change of the roster: the head start is for entries alone."""
    async with second(redis_url) as it:
        before = len(it.ledger.asked)
        it.lane.look()
        assert await until(it.rests, 10)
        assert len(it.ledger.asked) == before + 1


async def test_behind_a_cursor_that_moves_it_reads_and_admits_nothing(redis_url: str) -> None:
    async with second(redis_url) as it:
        it.lane.head_start.us = 3_600_000_000
        _, page = await it.entry(scope="nonsense")
        await it.one.inbox.admit(page)
        await it.entry()
        before = len(it.ledger.asked)
        it.lane.look()
        assert await until(it.rests, 10)
        (wanted,) = it.ledger.asked[before:]
        assert wanted.standing
        assert (wanted.read_after, wanted.admission) == (None, None)
        assert it.lane.cursor == page[-1][0]
        it.lane.head_start.us = 0  # the first one is gone
        it.lane.look()

        async def admitted() -> bool:
            return any(wanted.admission for wanted in it.ledger.asked)

        assert await until(admitted, 10)


async def test_that_redis_cannot_say_where_the_lane_stands_leaves_the_entries_to_it(redis_url: str) -> None:
    class Away(Noted):
        async def standing(self) -> tuple[str, bool]:
            self.looked += 1
            raise ConnectionError("away")

    async with second(redis_url) as it:
        it.ledger.__class__ = Away
        id_, page = await it.entry()
        it.lane.deliver(it.lane.cursor, page)
        assert (await it.one.rig.final(id_, SOON_S)).status is Status.cancelled
