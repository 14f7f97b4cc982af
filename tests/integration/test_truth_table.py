"""What the venue did with an order, times what the worker saw: the one final event is always the truth."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from cancelq.contract import Event, Lane
from tests.integration.floor import Floor, floor, spelled
from tests.integration.truth_table import (
    LAGGING_SIGHTS,
    LATE_SIGHTS,
    SIGHTS,
    VENUES,
    WORLDS,
    Sight,
    World,
    expected,
    gone_sights,
    page,
)

pytestmark = [pytest.mark.one_server, pytest.mark.timeout(240)]

#: Short, so that an unknown order is earned soon and a deaf venue is given up soon.
ENV = {"CANCELQ_LOOKUP_BUDGET_MS": "2500", "CANCELQ_MAX_ATTEMPTS": "2"}
THREE_HOURS_MS = 3 * 3_600_000
CANCELS = "cancel-order batch-cancel-order cancel cancel-batch cancelOrders"
NOWHERE = itertools.count(1_500_000_000_000_000_001)


class Cell:
    """One order in one world, as one lane sees it."""

    def __init__(self, desk: Floor, lane: Lane, world: World, sight: Sight) -> None:
        self.desk, self.lane, self.world, self.sight = desk, lane, world, sight
        self.client_id = f"c{next(NOWHERE)}"
        created_ms = time.time_ns() // 1_000_000 - (THREE_HOURS_MS if sight.by_client_id else 1_000)
        if world.state:
            self.order_id = desk.order(lane, state=world.state, client_id=self.client_id, created_ms=created_ms)
        else:
            self.order_id = str(next(NOWHERE))
        self.name = self.client_id if sight.by_client_id else self.order_id

    @property
    def entry(self) -> dict[str, str]:
        id_field = "client_order_id" if self.sight.by_client_id else "order_id"
        return {
            "symbol": spelled(self.lane.venue),
            id_field: self.name,
            "x_cell": f"{self.world.name} x {self.sight.name}",
        }

    def check(self, event: Event) -> str | None:
        """What is wrong with an outcome, None if nothing is."""
        want = expected(self.world, self.sight, self.lane.account.endswith("alone"))
        if event.status.value != want:
            seen = [
                f"{call['at_us']} {call['code']}" for call in self.desk.calls(self.lane) if self.name in call["ids"]
            ]
            told = f"{event.status.value} instead of {want}: {event.detail}; {event.attempt} attempts, seen {seen}"
            return f"{self.world.name} x {self.sight.name}: {told}"
        if self.world.state == "partially_filled" and not event.filled:
            return f"{self.world.name} x {self.sight.name}: what was filled is not told"
        if event.status.value in ("cancelled", "filled"):
            truth = self.desk.truth(self.lane, self.order_id)["state"]
            if truth != event.status.value:
                return f"{self.world.name} x {self.sight.name}: told {event.status.value}, the venue did {truth}"
            if event.order_id != self.order_id:
                return f"{self.world.name} x {self.sight.name}: told of order {event.order_id}"
        return None


async def play(desk: Floor, cells: Sequence[Cell], alone: bool) -> list[str]:
    """Every cell of one lane: all at once, so that they share calls, or one after the other."""
    lane, sight = cells[0].lane, cells[0].sight
    if alone:
        finals = []
        for cell in cells:
            if sight.fault:
                desk.fault(lane, sight.fault, endpoint=CANCELS, order_id=cell.name, **sight.more)
            finals.append(await desk.final(lane, await desk.send(lane, **cell.entry), 60))
    else:
        if sight.fault:
            desk.fault(lane, sight.fault, endpoint=CANCELS, **sight.more)
        ids = await desk.send_all(lane, [cell.entry for cell in cells])
        outcomes = await desk.finals(lane, ids, 60)
        finals = [outcomes[id_] for id_ in ids]
    return [wrong for cell, event in zip(cells, finals, strict=True) if (wrong := cell.check(event))]


async def play_all(redis_url: str, venue: str, sights: Sequence[Sight], **sim: int) -> None:
    """Two lanes for each sight, each with an order in every world."""
    sights = [sight for sight in sights if venue in sight.venues]
    names = [f"{venue}:s{n}{how}" for n in range(len(sights)) for how in ("together", "alone")]
    async with floor(redis_url, *names, env=ENV) as desk:
        jobs = []
        special: dict[str, set[str]] = {"race_fill_ids": set(), "deaf_ids": set()}
        for n, lane in enumerate(desk.lanes):
            cells = [Cell(desk, lane, world, sights[n // 2]) for world in WORLDS]
            for cell in cells:
                if cell.world.special:
                    special[cell.world.special].add(cell.order_id)
            jobs.append(play(desk, cells, lane.account.endswith("alone")))
        desk.simulator.configure({**special, **sim})
        wrong = list(itertools.chain(*await asyncio.gather(*jobs)))
        assert not wrong, "\n".join(wrong)
        assert [row for row in desk.simulator.rates() if row["refused"]] == []


@pytest.mark.parametrize("venue", VENUES)
async def test_whatever_was_seen_of_the_call(redis_url: str, venue: str) -> None:
    await play_all(redis_url, venue, SIGHTS)


@pytest.mark.parametrize("venue", VENUES)
async def test_every_code_that_says_gone(redis_url: str, venue: str) -> None:
    await play_all(redis_url, venue, list(gone_sights(venue)))


@pytest.mark.parametrize("venue", VENUES)
async def test_acknowledged_now_and_done_later(redis_url: str, venue: str) -> None:
    await play_all(redis_url, venue, LATE_SIGHTS, cancel_delay_ms=400)


@pytest.mark.parametrize("venue", VENUES)
async def test_lists_that_show_what_was_true_a_while_ago(redis_url: str, venue: str) -> None:
    await play_all(redis_url, venue, LAGGING_SIGHTS, history_lag_ms=900, open_lag_ms=900, info_lag_ms=400)


def test_the_page_says_what_is_played() -> None:
    written = (Path(__file__).parents[2] / "docs" / "TRUTH.md").read_text()
    assert written == page(), "python -m tests.integration.truth_table > docs/TRUTH.md"
