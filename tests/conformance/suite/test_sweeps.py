"""Sweeps: one bulk call at most, every page, and no order that is not surely meant."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cancelq.contract import Status
from cancelq_worker.venues.port import ABOUT_THE_CALL, Answer, Request, Word
from tests.conformance.suite.claims import objects
from tests.conformance.suite.dossier import Dossier, World
from tests.conformance.suite.journeys import ASKED_MS, NEW_MS, OLD_MS, travel
from tests.conformance.suite.mutations import STATUSES, mutated
from tests.conformance.suite.papers import Look
from tests.conformance.suite.written import body, decode, look_target, row
from tests.unit.journey import POLICY

SCOPES = ("symbol", "account")
BAND = (ASKED_MS - 5, ASKED_MS + 6)


@pytest.mark.parametrize("scope", SCOPES)
def test_a_long_book_is_emptied_with_one_bulk_call_at_most(dossier: Dossier, scope: str) -> None:
    """More orders than stand on any page."""
    world = dossier.world(dossier)
    mine = [world.add(symbol=dossier.symbol, created_ms=OLD_MS + n) for n in range(130)]
    other = world.add(symbol=dossier.other_symbol, created_ms=OLD_MS)
    end, _ = travel(dossier, world, dossier.intent(scope))
    assert (end.status, end.open_orders) == (Status.cancelled, 0)
    assert {world.state(order_id) for order_id in mine} == {"cancelled"}
    assert world.state(other) == ("cancelled" if scope == "account" else "live")
    assert bulk_calls(dossier, world) <= 1


@pytest.mark.parametrize("scope", SCOPES)
def test_a_bulk_call_that_leaves_orders_open_is_not_repeated(dossier: Dossier, scope: str) -> None:
    world = dossier.world(dossier)
    stuck = world.add(symbol=dossier.symbol, created_ms=OLD_MS)
    world.ignores_cancels(stuck)
    world.add(symbol=dossier.symbol, created_ms=OLD_MS)
    end, _ = travel(dossier, world, dossier.intent(scope))
    assert (end.status, end.open_orders) == (Status.unresolved, 1)
    assert bulk_calls(dossier, world) <= 1


@pytest.mark.parametrize("scope", SCOPES)
def test_an_order_that_cannot_be_cancelled_keeps_no_other_from_being_so(dossier: Dossier, scope: str) -> None:
    """Narrowed, so that all of them are named in one call where the venue has batches."""
    world = dossier.world(dossier)
    made = [world.add(symbol=dossier.symbol, client_id=f"mm_{n}", created_ms=OLD_MS) for n in range(4)]
    world.refuses_cancels(made[1])
    end, _ = travel(dossier, world, dossier.intent(scope, client_prefix="mm_"))
    assert (end.status, end.open_orders) == (Status.unresolved, 1)
    assert [world.state(order_id) for order_id in made] == ["cancelled", "live", "cancelled", "cancelled"]


@pytest.mark.parametrize("scope", SCOPES)
def test_a_narrowed_sweep_makes_no_bulk_call_and_takes_only_what_is_meant(dossier: Dossier, scope: str) -> None:
    world = dossier.world(dossier)
    mine = [world.add(symbol=dossier.symbol, client_id=f"mm_{n}", created_ms=OLD_MS) for n in range(60)]
    other = world.add(symbol=dossier.symbol, client_id="hand_1", created_ms=OLD_MS)
    nameless = world.add(symbol=dossier.symbol, created_ms=OLD_MS)
    end, _ = travel(dossier, world, dossier.intent(scope, client_prefix="mm_"))
    assert (end.status, end.open_orders) == (Status.cancelled, 0)
    assert {world.state(order_id) for order_id in mine} == {"cancelled"}
    assert world.state(other) == world.state(nameless) == "live"
    assert bulk_calls(dossier, world) == 0


@pytest.mark.parametrize("scope", SCOPES)
def test_a_bound_in_time_is_kept(dossier: Dossier, scope: str) -> None:
    world = dossier.world(dossier)
    bound = OLD_MS - 1_000
    before = world.add(symbol=dossier.symbol, created_ms=bound - 1)
    at, behind = (world.add(symbol=dossier.symbol, created_ms=ms) for ms in (bound, OLD_MS))
    end, _ = travel(dossier, world, dossier.intent(scope, older_than_ms=str(bound)))
    assert (end.status, end.open_orders) == (Status.cancelled, 0)
    assert (world.state(before), world.state(at), world.state(behind)) == ("cancelled", "live", "live")
    assert bulk_calls(dossier, world) == 0


@pytest.mark.parametrize("scope", SCOPES)
def test_by_id_no_order_newer_than_the_intent_is_cancelled(dossier: Dossier, scope: str) -> None:
    """Narrowed, because a bulk call takes what is open when it arrives."""
    world = dossier.world(dossier)
    old, new = (world.add(symbol=dossier.symbol, client_id=f"mm_{ms}", created_ms=ms) for ms in (OLD_MS, NEW_MS))
    end, _ = travel(dossier, world, dossier.intent(scope, client_prefix="mm_"))
    assert (end.status, end.open_orders) == (Status.cancelled, 0)
    assert (world.state(old), world.state(new)) == ("cancelled", "live")


@pytest.mark.parametrize("scope", SCOPES)
def test_an_order_of_an_unsure_age_is_spared_and_keeps_the_intent_open(dossier: Dossier, scope: str) -> None:
    world = dossier.world(dossier)
    old, unsure = (world.add(symbol=dossier.symbol, client_id=f"mm_{ms}", created_ms=ms) for ms in (OLD_MS, ASKED_MS))
    end, journey = travel(dossier, world, dossier.intent(scope, client_prefix="mm_"))
    assert (end.status, end.open_orders) == (Status.unresolved, 1)
    assert (world.state(old), world.state(unsure)) == ("cancelled", "live")
    assert "1 were created within 6 ms of the intent" in end.detail
    assert "ask anew" in end.detail
    took_us = journey.now_us - journey.calls[0].sent_us
    assert POLICY.sweep_doubt_us <= took_us <= POLICY.sweep_budget_us // 2, "no look tells more of it"


def test_what_no_look_can_tell_puts_an_end_to_nothing_else(dossier: Dossier) -> None:
    """Beside an order of an unsure age another stays open, of which more may be heard."""
    world = dossier.world(dossier)
    stuck, _ = (world.add(symbol=dossier.symbol, client_id=f"mm_{ms}", created_ms=ms) for ms in (OLD_MS, ASKED_MS))
    world.ignores_cancels(stuck)
    end, journey = travel(dossier, world, dossier.intent("symbol", client_prefix="mm_"))
    assert (end.status, end.open_orders) == (Status.unresolved, 2)
    assert end.detail.startswith("2 orders are still open, of 1 nobody can tell whether they are meant: 1 were created")
    assert journey.now_us - journey.calls[0].sent_us >= POLICY.sweep_budget_us


def test_a_bound_that_the_intent_named_is_not_moved_by_asking_anew(dossier: Dossier) -> None:
    world = dossier.world(dossier)
    at = world.add(symbol=dossier.symbol, created_ms=ASKED_MS)
    end, _ = travel(dossier, world, dossier.intent("symbol", older_than_ms=str(NEW_MS)))
    assert (end.status, world.state(at)) == (Status.unresolved, "live")
    assert "of older_than_ms or the intent" in end.detail
    assert "ask anew" not in end.detail


@pytest.mark.parametrize("scope", SCOPES)
def test_the_kinds_that_are_asked_for_are_cancelled_and_no_others(dossier: Dossier, kinds: str, scope: str) -> None:
    world = dossier.world(dossier)
    every = {kind: world.add(kind, symbol=dossier.symbol, created_ms=OLD_MS) for kind in dossier.sweeps}
    end, _ = travel(dossier, world, dossier.intent(scope, kinds=kinds))
    assert (end.status, end.open_orders) == (Status.cancelled, 0)
    left = {kind for kind, order_id in every.items() if world.state(order_id) == "live"}
    assert left == set(dossier.sweeps) - set(kinds.split(","))
    assert bulk_calls(dossier, world) <= 1


@pytest.mark.parametrize("odd", [None, {}, "x", {"symbol": "BTCUSDT"}, {"orderId": "x y"}], ids=repr)
def test_a_row_that_cannot_be_read_keeps_a_sweep_open(dossier: Dossier, odd: Any) -> None:
    world = dossier.world(dossier)
    world.add(symbol=dossier.symbol, created_ms=NEW_MS)

    def spoil(request: Request, said: Answer) -> Answer:
        if request.method != "GET":
            return said
        return Answer(said.status, said.headers, orjson.dumps(_with_row(orjson.loads(said.body), odd)))

    end, _ = travel(dossier, world, dossier.intent("account"), spoil)
    assert end.status is Status.unresolved, end


# -- single pages ---------------------------------------------------------------------------------------------


def test_a_page_names_what_is_to_be_cancelled(dossier: Dossier, listing: Look) -> None:
    older = {**row(dossier, listing, ""), listing.made: str(OLD_MS)}
    newer = {**row(dossier, listing, "", number=int(dossier.other_id)), listing.made: str(NEW_MS)}
    (reply,) = page(dossier, listing, [newer, older])
    assert reply.word is Word.LISTED, reply
    sweep = reply.notes["sweep"]
    assert [found["id"] for found in sweep["todo"]] == [dossier.order_id]
    assert sweep["open"] == 1
    assert sweep["end"], "the last page of the only list"


def test_a_full_page_is_not_the_end(dossier: Dossier, listing: Look) -> None:
    first = int(dossier.order_id)
    rows = [{**row(dossier, listing, "", number=first - n), listing.made: str(NEW_MS)} for n in range(listing.full)]
    (reply,) = page(dossier, listing, rows, more=True)
    assert reply.word is not Word.LISTED or not reply.notes["sweep"]["end"], reply


@pytest.mark.parametrize("made", [None, "", "x", 0, "0", -1, "1", "²", [], "1" * 40], ids=repr)
def test_an_order_that_tells_no_age_is_not_cancelled_and_not_passed_over(
    dossier: Dossier, listing: Look, made: Any
) -> None:
    (reply,) = page(dossier, listing, [{**row(dossier, listing, ""), listing.made: made}])
    if reply.word is Word.LISTED:
        sweep = reply.notes["sweep"]
        assert (sweep["todo"], sweep["open"], sweep["unsure"]) == ([], 1, 1)
    else:
        assert reply.word is Word.UNCLEAR


def test_a_page_within_the_gap_only_counts(dossier: Dossier, listing: Look) -> None:
    target = look_target(dossier, listing)
    target.age_band_ms, target.may_cancel = BAND, False
    rows = [{**row(dossier, listing, ""), listing.made: str(OLD_MS)}]
    (reply,) = decode(dossier, listing.route, [target], body(dossier, listing, rows))
    assert (reply.notes["sweep"]["todo"], reply.notes["sweep"]["open"]) == ([], 1)


@settings(max_examples=150)
@given(data=st.data())
def test_whatever_a_page_holds_only_orders_that_stand_on_it_are_cancelled(
    dossier: Dossier, data: st.DataObject
) -> None:
    listing = data.draw(st.sampled_from(dossier.papers.lists))
    numbers = data.draw(st.lists(st.integers(1, 9), max_size=3, unique=True))
    rows = [{**row(dossier, listing, "", number=number), listing.made: str(OLD_MS)} for number in numbers]
    said, status = data.draw(mutated(body(dossier, listing, rows))), data.draw(STATUSES)
    target = look_target(dossier, listing)
    target.age_band_ms = BAND
    (reply,) = decode(dossier, listing.route, [target], said, status)
    if reply.word is not Word.LISTED:
        assert reply.word in (Word.UNCLEAR, Word.LATER, *ABOUT_THE_CALL), reply
        return
    assert status == 200
    for found in reply.notes["sweep"]["todo"]:
        assert found["symbol"] == dossier.symbol, "of the pair that is meant"
        named = [{str(value) for value in held.values() if isinstance(value, str | int)} for held in objects(said)]
        assert any({found["id"], found["symbol"]} <= values for values in named), "as its row has it"


def page(dossier: Dossier, listing: Look, rows: list[Any], *, more: bool = False) -> list[Any]:
    target = look_target(dossier, listing)
    target.age_band_ms = BAND
    return decode(dossier, listing.route, [target], body(dossier, listing, rows, more=more))


def bulk_calls(dossier: Dossier, world: World) -> int:
    return sum(path in dossier.bulk for path in world.paths())


def _with_row(value: Any, odd: Any) -> Any:
    """The answer with one more row in the list it holds."""
    if isinstance(value, list):
        return [*value, odd]
    if isinstance(value, dict):
        return {name: _with_row(item, odd) if isinstance(item, list | dict) else item for name, item in value.items()}
    return value
