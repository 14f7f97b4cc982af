"""Intents that two workers ended with: a process carries one of them at a time, over all of its lanes."""

from __future__ import annotations

import pytest

from cancelq_worker.records import Batch, RoundRequest, Taken, TakeRequest
from cancelq_worker.state import State, Work
from cancelq_worker.suspects import TURN_S, Suspects, Turn
from cancelq_worker.venues.port import Stage
from tests.integration.lone_ledger import Desk, lone_desk, make_suspect
from tests.integration.rig import LANE

pytestmark = pytest.mark.one_server


async def two_and_one(lane: Desk) -> None:
    """Two suspects, and one that is none behind them."""
    for n in range(3):
        await lane.add(id=f"i{n}", symbol="BTCUSDT", order_id=str(100 + n))
    await lane.admit(await lane.read())
    for id_ in ("i0", "i1"):
        await make_suspect(lane.client, LANE, id_)


async def take(lane: Desk, batch_id: str, *, suspects: bool) -> Taken:
    (taken,) = (await lane.ledger.round(RoundRequest(takes=[TakeRequest("c", batch_id, suspects=suspects)]))).taken
    assert isinstance(taken, Taken)
    return taken


def ids(batch: Batch | None) -> list[str]:
    return [work.id for work in batch.works] if batch else []


async def test_a_take_without_the_turn_passes_suspects_over_and_says_so(redis_url: str) -> None:
    async with lone_desk(redis_url) as lane:
        await two_and_one(lane)
        without = await take(lane, "b1", suspects=False)
        assert (ids(without.batch), without.suspects) == (["i2"], True)
        assert without.batch
        assert not without.batch.suspect
        again = await take(lane, "b2", suspects=False)
        assert not again.batch
        assert 0 < again.wait_us <= 20_000


async def test_a_take_with_the_turn_brings_one_alone(redis_url: str) -> None:
    async with lone_desk(redis_url) as lane:
        await two_and_one(lane)
        with_it = await take(lane, "b1", suspects=True)
        assert (ids(with_it.batch), with_it.suspects) == (["i0"], False)
        assert with_it.batch
        assert with_it.batch.suspect


def taken(batch_id: str = "", *, suspect: bool = False, waits: bool = False) -> Taken:
    works = [Work("i1", {}, State(strikes=2 if suspect else 1), 1)]
    batch = Batch(batch_id, "route", Stage.CANCEL, works, 0, 0, 0) if batch_id else None
    return Taken(0, 0, 0, [], batch, suspects=waits)


def test_one_lane_of_a_process_has_the_turn_until_its_suspect_is_settled() -> None:
    all_of_them = Suspects()
    one, other = Turn(all_of_them), Turn(all_of_them)
    assert not one.ask(), "nothing waits"
    for turn in (one, other):
        turn.took(taken(waits=True))
        turn.round_over()
    assert one.ask()
    assert not other.ask()
    one.took(taken("b1", suspect=True))
    one.round_over()
    assert not one.ask(), "one at a time"
    assert not other.ask()
    one.over("another batch")
    assert not other.ask()
    one.over("b1")
    assert other.ask()


def test_a_lane_at_rest_does_not_keep_the_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1.0
    monkeypatch.setattr("cancelq_worker.suspects.monotonic_s", lambda: now_s)
    all_of_them = Suspects()
    one, other = Turn(all_of_them), Turn(all_of_them)
    one.took(taken(waits=True))
    assert one.ask()
    one.round_over()  # another worker had it meanwhile, and the lane has nothing to do for seconds
    now_s += TURN_S
    other.took(taken(waits=True))
    assert other.ask()
    one.round_over()
    assert all_of_them.holder is other


def test_rounds_that_bring_no_suspect_end_the_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1.0
    monkeypatch.setattr("cancelq_worker.suspects.monotonic_s", lambda: now_s)
    all_of_them = Suspects()
    one, other = Turn(all_of_them), Turn(all_of_them)
    one.took(taken(waits=True))
    other.took(taken(waits=True))
    assert one.ask()
    one.took(taken("b1"))
    one.round_over()
    assert one.ask(), "another worker that may not take it puts it off: it is looked for a little longer"
    assert not other.ask()
    now_s += TURN_S
    other.took(taken(waits=True))
    one.round_over()
    assert other.ask()
    other.end()
    assert not one.ask(), "nothing waited at its last takes"
