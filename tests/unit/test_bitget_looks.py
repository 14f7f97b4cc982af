"""Looking for an order at Bitget: which places are read, and what a page proves."""

from typing import Any
from urllib.parse import parse_qsl

import pytest

from cancelq.contract import Status
from cancelq_worker.rulings import Finish, Policy
from cancelq_worker.venues.bitget.looks import PAGE, WALK_PAGES
from cancelq_worker.venues.port import Answer, Request, Target, Word
from cancelq_worker.venues.reading import safe_id
from tests.unit.bitget_account import BITGET, ORDER_ID, OTHER_ID, ROUTES, answer, decode, encode, raw, target
from tests.unit.journey import Journey, Say, by_venue, place_of

ONE = target(ORDER_ID)
MINE = target(client_order_id="mine-1")


def row(order_id: str = ORDER_ID, status: str = "live", **more: Any) -> dict[str, Any]:
    return {"orderId": order_id, "symbol": "BTCUSDT", "clientOid": "", "status": status, "baseVolume": "0", **more}


def full_page(above: int) -> list[dict[str, Any]]:
    """A hundred orders of others, newest first, all of them above an id."""
    return [row(str(above + n), "filled") for n in range(PAGE, 0, -1)]


# -- where to look next --------------------------------------------------------------------------------------


class NothingThere:
    """A venue that took the cancel of an order nobody knows: every list is empty. Keeps what was asked."""

    def __init__(self, cancel: Answer) -> None:
        self.cancel = cancel
        self.asked: list[str] = []

    def __call__(self, request: Request) -> Answer:
        if request.method == "POST":
            return self.cancel
        params = dict(parse_qsl(request.query))
        kind = ":tpsl" if params.get("tpslType") == "tpsl" else ""
        self.asked.append(request.path.rpartition("/")[2] + kind)
        plan = request.path.endswith("plan-order")
        return answer({"nextFlag": False, "orderList": []} if plan else [])


UNKNOWN = answer(code="43001", status=400)

# Every list in which an order with such an id might stand.
PLACES = {
    "by order id": (
        ONE,
        {"orderInfo", "history-orders", "unfilled-orders", "unfilled-orders:tpsl", "current-plan-order"},
    ),
    "by client id": (MINE, {"orderInfo", "history-orders", "unfilled-orders"}),
    "tpsl": (
        target(ORDER_ID, scope="tpsl"),
        {"history-orders:tpsl", "unfilled-orders:tpsl", "orderInfo", "current-plan-order"},
    ),
    "stop": (
        target(ORDER_ID, scope="stop"),
        {"history-plan-order", "current-plan-order", "orderInfo", "unfilled-orders:tpsl"},
    ),
    "stop by client id": (
        target(client_order_id="mine-1", scope="stop"),
        {"history-plan-order", "current-plan-order"},
    ),
}


@pytest.mark.parametrize(("intent", "places"), PLACES.values(), ids=PLACES)
def test_every_place_is_read_before_an_order_is_not_found(intent: Target, places: set[str]) -> None:
    venue = NothingThere(UNKNOWN)
    end = Journey(intent).run(by_venue(venue), most=100)
    assert end.status is Status.not_found
    assert set(venue.asked) == places


@pytest.mark.parametrize(("intent", "places"), PLACES.values(), ids=PLACES)
def test_nothing_is_done_before_every_place_was_read(intent: Target, places: set[str]) -> None:
    """Without any budget of time, the places themselves still have to be read, an order's own more than once:
    one that was accepted milliseconds ago may not be visible yet."""
    venue = NothingThere(UNKNOWN)
    end = Journey(intent, policy=Policy(lookup_budget_us=0)).run(by_venue(venue), most=100)
    assert end.status is Status.not_found
    assert set(venue.asked) == places
    assert len(venue.asked) > len(places) or intent is PLACES["stop by client id"][0]


@pytest.mark.parametrize("gone", ["orderInfo", "history-orders", "unfilled-orders"])
def test_a_place_that_cannot_be_read_leaves_an_order_unresolved(gone: str) -> None:
    venue = NothingThere(UNKNOWN)

    def broken(request: Request) -> Answer:
        said = venue(request)
        return raw(b"<html>", 502) if venue.asked and request.method == "GET" and venue.asked[-1] == gone else said

    end = Journey(ONE).run(by_venue(broken), most=200)
    assert end.status is Status.unresolved


def test_an_order_that_was_only_acknowledged_is_awaited_where_many_fit_on_a_page() -> None:
    assert [BITGET.next_look(target(ORDER_ID, notes={"ack": 1, "n": n})).look_class for n in range(4)] == ["any"] * 4


def test_an_order_found_by_its_client_id_is_looked_for_by_its_order_id() -> None:
    assert BITGET.next_look(MINE).look_class == "named:BTCUSDT"
    assert BITGET.next_look(target(client_order_id="mine-1", notes={"oid": ORDER_ID})).look_class == "any"


@pytest.mark.parametrize(
    ("notes", "look_class"),
    [
        ({"n": 2, "abs": {"history": 1, "open": 1}}, "many"),
        ({"n": 4, "abs": {"history": 2, "open": 1}}, "many"),
        ({"n": 4, "abs": {"history": 3, "open": 1}}, "info"),
        ({"f": 3}, "many"),
        ({"f": 6}, "info"),
        ({"f": 3, "abs": {"history": 3}}, "info"),
    ],
)
def test_pages_serve_who_waits_for_a_call_of_its_own_until_they_failed_to(
    notes: dict[str, Any], look_class: str
) -> None:
    assert BITGET.next_look(target(ORDER_ID, notes=notes)).look_class == look_class


def test_forty_that_wait_for_calls_of_their_own_share_a_page() -> None:
    pages, alone = ROUTES["history-many"], ROUTES["order-info"]
    assert {"many", "history"} <= set(pages.kinds)
    assert "many" in alone.kinds
    assert (pages.most, pages.least, pages.downwards) == (PAGE, 40, True)
    named = ROUTES["history-named"]
    assert (named.kinds, named.most, named.least) == (("named",), PAGE, 40)
    assert "named" in alone.kinds


@pytest.mark.parametrize("told", ["mine-1", "", "theirs"])
def test_a_row_with_anothers_client_id_says_nothing_of_an_order_that_is_named_by_its_own(told: str) -> None:
    """Its order id was only learnt."""
    mine = target(client_order_id="mine-1", notes={"oid": ORDER_ID})
    done = row(status="cancelled", clientOid=told)
    meant = Word.UNCLEAR if told == "theirs" else Word.CANCELLED
    for route in ("order-info", "history", "open"):
        assert decode(route, answer([done]), mine)[0].word is meant
    assert decode("history", answer([{**done, "clientOid": "theirs"}]), target(ORDER_ID, "mine-1"))[0].word is (
        Word.CANCELLED
    ), "of two ids that are given the order id counts"
    acknowledged = decode("cancel-order", answer({"orderId": ORDER_ID, "clientOid": told}), mine)[0].word
    assert acknowledged is (Word.UNCLEAR if told == "theirs" else Word.ACKNOWLEDGED)


def test_a_page_that_does_not_show_a_client_id_is_the_first_of_its_walk() -> None:
    """From where it ended, behind the open list; a page that cannot be read leaves the order to a call of its own."""
    other = target(client_order_id="mine-2")
    rows = [row(str(n), "filled", clientOid=f"theirs-{n}") for n in range(300, 300 - PAGE + 1, -1)]
    shown, hidden = decode("history-named", answer([row("777", "cancelled", clientOid="mine-2"), *rows]), other, MINE)
    assert (shown.word, shown.order_id) == (Word.CANCELLED, "777")
    assert hidden.word is Word.UNREAD
    assert hidden.notes["walk"] == {"walk-history": {"pages": 1, "at": "202", "end": False}}
    walked = target(client_order_id="mine-1", notes=hidden.notes)
    assert BITGET.next_look(walked).look_class == "walk-open:BTCUSDT:"
    walked.notes["walk"]["walk-open"] = {"pages": 1, "at": "", "end": True}
    assert BITGET.next_look(walked).look_class == "walk-history:BTCUSDT:202"
    walked.notes["walk"]["walk-history"]["pages"] = 5
    assert BITGET.next_look(walked).look_class == "info"
    walked.notes["abs"] = {"info": 1}
    assert BITGET.next_look(walked).look_class == "walk-history:BTCUSDT:202"
    assert encode("history-named", MINE, other).query == "limit=100&symbol=BTCUSDT"
    assert BITGET.next_look(target(client_order_id="mine-1", notes={"f": 3})).look_class == "info"


# -- walking a history by client id --------------------------------------------------------------------------


class LongHistory:
    """Lists of `pages` full pages each, of which the walk sees every id once. Anything by id is unknown."""

    def __init__(self, pages: int, found: dict[str, Any] | None = None) -> None:
        self.pages = pages
        self.found = found
        self.read: dict[str, list[str]] = {}

    def __call__(self, request: Request) -> Answer:
        if request.method == "POST":
            return UNKNOWN
        name = request.path.rpartition("/")[2]
        if name == "orderInfo":
            return answer([])
        params = dict(parse_qsl(request.query))
        assert params["limit"] == str(PAGE)
        at = int(params.get("idLessThan", str(self.pages * PAGE + 1)))
        self.read.setdefault(name, []).append(params.get("idLessThan", ""))
        rows = [row(str(n), "filled") for n in range(at - 1, max(0, at - 1 - PAGE), -1)]
        if self.found and name == "history-orders" and len(rows) < PAGE:
            rows.append(self.found)
        return answer(rows)


def test_a_history_is_walked_page_by_page_to_its_end() -> None:
    venue = LongHistory(3)
    end = Journey(MINE).run(by_venue(venue), most=100)
    assert end.status is Status.not_found
    for name in ("history-orders", "unfilled-orders"):
        # The first walk: from the newest, each page below the last one's lowest id, to the empty one.
        assert venue.read[name][:4] == ["", "201", "101", "1"]


def test_an_order_at_the_end_of_a_history_is_found() -> None:
    end = Journey(MINE).run(by_venue(LongHistory(3, row("7", "cancelled", clientOid="mine-1"))), most=100)
    assert end.status is Status.cancelled
    assert end.state.notes["oid"] == "7"


def test_a_history_too_long_to_walk_proves_nothing_and_says_so() -> None:
    venue = LongHistory(10_000)
    journey = Journey(MINE)
    end = journey.run(by_venue(venue), most=1_000)
    assert end.status is Status.unresolved
    assert len(journey.looks()) <= Policy().max_walk_lookups
    for name, pages in venue.read.items():
        assert len(set(pages)) <= WALK_PAGES, name
    assert f"longer than {WALK_PAGES * PAGE} orders" in end.detail


def test_a_history_just_short_enough_to_walk_is_read_to_its_end() -> None:
    history = LongHistory(WALK_PAGES - 1)

    def venue(request: Request) -> Answer:
        return answer([]) if request.path.endswith("/unfilled-orders") else history(request)

    assert Journey(MINE).run(by_venue(venue), most=1_000).status is Status.not_found


@pytest.mark.parametrize("place", ["walk-open", "walk-history"])
def test_the_reason_of_a_gap_names_the_list(place: str) -> None:
    ended = {"at": "1", "pages": 2, "end": True}
    walks = {"walk-open": ended, "walk-history": ended, place: {"at": "1", "pages": WALK_PAGES, "end": False}}
    look = BITGET.next_look(target(client_order_id="mine-1", notes={"walk": walks, "abs": {"info": 2}, "n": 5}))
    assert look.done
    assert place in look.gap
    assert str(WALK_PAGES * PAGE) in look.gap


def test_a_walk_that_was_read_to_its_end_has_no_gap() -> None:
    ended = {"at": "1", "pages": WALK_PAGES, "end": True}
    notes = {"walk": {"walk-open": ended, "walk-history": ended}, "abs": {"info": 2}, "n": 5}
    look = BITGET.next_look(target(client_order_id="mine-1", notes=notes))
    assert (look.done, look.gap) == (True, "")


def test_the_class_of_a_walk_keeps_apart_what_one_page_cannot_serve() -> None:
    """Those that walk one symbol from one cursor share its pages."""
    notes = {"n": 1, "walk": {"walk-open": {"at": "500", "pages": 1, "end": False}}}
    assert BITGET.next_look(target(client_order_id="a", notes=notes)).look_class == "walk-open:BTCUSDT:500"
    assert BITGET.next_look(target(client_order_id="b", notes=notes)).look_class == "walk-open:BTCUSDT:500"
    assert (
        encode("walk-open", target(client_order_id="a", notes=notes)).query == "idLessThan=500&limit=100&symbol=BTCUSDT"
    )


# -- what is asked -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("route", "intents", "query"),
    [
        ("order-info", [ONE], f"orderId={ORDER_ID}"),
        ("order-info", [MINE], "clientOid=mine-1"),
        ("history", [ONE], f"limit=100&orderId={ORDER_ID}&symbol=BTCUSDT"),
        ("open", [ONE], f"limit=100&orderId={ORDER_ID}&symbol=BTCUSDT"),
        ("history-page", [ONE, target(OTHER_ID)], "idLessThan=121211212124&limit=100&symbol=BTCUSDT"),
        ("history-page", [ONE, target(OTHER_ID, symbol="ETHUSDT")], "idLessThan=121211212124&limit=100"),
        ("tpsl-open", [ONE], f"limit=100&orderId={ORDER_ID}&symbol=BTCUSDT&tpslType=tpsl"),
        ("tpsl-history", [target(ORDER_ID, scope="tpsl", symbol=None)], f"limit=100&orderId={ORDER_ID}&tpslType=tpsl"),
        ("stop-open", [target(ORDER_ID, scope="stop")], "idLessThan=121211212123&limit=100&symbol=BTCUSDT"),
        ("stop-history", [target(ORDER_ID, scope="stop", symbol=None)], "idLessThan=121211212123&limit=100"),
        ("walk-history", [MINE], "limit=100&symbol=BTCUSDT"),
    ],
)  # fmt: skip
def test_a_look_asks_for_the_orders_in_question(route: str, intents: list[Target], query: str) -> None:
    assert encode(route, *intents).query == query


def test_a_page_is_aimed_just_above_the_largest_id_that_waits() -> None:
    """Ids are compared as numbers: as text, 9 would stand above 10."""
    query = encode("history-page", target("9"), target("1523347543495541248"), target("10")).query
    assert "idLessThan=1523347543495541249&" in query


def test_a_look_names_an_order() -> None:
    with pytest.raises(ValueError, match="name"):
        encode("order-info", target())


# -- what a page proves --------------------------------------------------------------------------------------

STATES = {
    "live": Word.OPEN,
    "new": Word.OPEN,
    "init": Word.OPEN,
    "partially_filled": Word.OPEN,
    "filled": Word.FILLED,
    "cancelled": Word.CANCELLED,
    "reject": Word.CLOSED,
}
PLAN_STATES = {
    "live": Word.OPEN,
    "not_trigger": Word.OPEN,
    "executing": Word.OPEN,
    "executed": Word.TRIGGERED,
    "fail_execute": Word.CLOSED,
    "cancelled": Word.CANCELLED,
}


@pytest.mark.parametrize(("state", "word"), STATES.items())
def test_the_venues_word_for_a_state_is_read(state: str, word: Word) -> None:
    for route in ("order-info", "history", "open", "history-page"):
        (reply,) = decode(route, answer([row(status=state)]), ONE)
        assert (reply.word, reply.venue_state, reply.place) == (word, state, place_of(ROUTES[route]))


@pytest.mark.parametrize(("state", "word"), PLAN_STATES.items())
def test_the_states_of_plan_orders_are_read(state: str, word: Word) -> None:
    said = answer({"nextFlag": False, "orderList": [row(status=state)]})
    (reply,) = decode("stop-history", said, target(ORDER_ID, scope="stop"))
    assert reply.word is word


@pytest.mark.parametrize("state", ["Cancelled", "CANCELLED"])
def test_a_state_is_read_in_whatever_case_it_is_told(state: str) -> None:
    (reply,) = decode("order-info", answer([row(status=state)]), ONE)
    assert (reply.word, reply.venue_state) == (Word.CANCELLED, state)


@pytest.mark.parametrize("state", ["", "canceling", "unknown", "cancelled ", "部分成交", "closed", "done"])
def test_an_unknown_state_is_unclear(state: str) -> None:
    (reply,) = decode("order-info", answer([row(status=state)]), ONE)
    assert reply.word is Word.UNCLEAR


def test_what_was_filled_of_a_cancelled_order_is_told() -> None:
    (reply,) = decode("order-info", answer([row(status="cancelled", baseVolume="0.0125")]), ONE)
    assert (reply.word, reply.filled) == (Word.CANCELLED, "0.0125")


@pytest.mark.parametrize("volume", ["0", "0.000", "", None, "-1", "1e3", "n/a", "1,5"])
def test_a_volume_that_is_none_is_not_told(volume: Any) -> None:
    (reply,) = decode("order-info", answer([row(status="cancelled", baseVolume=volume)]), ONE)
    assert (reply.word, reply.filled) == (Word.CANCELLED, "")


def test_a_trigger_that_fired_left_another_order() -> None:
    said = answer({"orderList": [row(status="executed", executeOrderId="777")]})
    (reply,) = decode("stop-history", said, target(ORDER_ID, scope="stop"))
    assert (reply.word, reply.child_order_id) == (Word.TRIGGERED, "777")
    (reply,) = decode("tpsl-history", answer([row(status="filled")]), target(ORDER_ID, scope="tpsl"))
    assert reply.word is Word.TRIGGERED
    said = answer([row(status="filled", baseVolume="0.5")])
    (reply,) = decode("tpsl-history", said, target(ORDER_ID, scope="tpsl"))
    assert (reply.word, reply.filled) == (Word.FILLED, "0.5"), "it was filled itself: that is a position"


def test_an_unknown_order_is_an_empty_list_and_absent() -> None:
    """Not an error at this venue, and not a cancelled order either."""
    for route in ("order-info", "history", "open"):
        (reply,) = decode(route, answer([]), ONE)
        assert reply.word is Word.ABSENT


def test_no_such_order_is_absent_where_one_was_asked_for() -> None:
    assert decode("order-info", answer(code="43001", status=400), ONE)[0].word is Word.ABSENT
    assert decode("history", answer(code="43001", status=400), ONE)[0].word is Word.UNCLEAR


@pytest.mark.parametrize("code", ["43026", "43021", "45031", "45055"])
def test_a_look_that_is_answered_with_an_end_shows_that_there_was_such_an_order(code: str) -> None:
    """Finalised, closed: the order that was asked for has been there, so it is not absent. A list's code is about no
    order."""
    said = answer(code=code, status=400)
    (reply,) = decode("order-info", said, ONE)
    assert (reply.word, reply.notes) == (Word.UNCLEAR, {"known": 1})
    for route in ("history", "open", "history-page"):
        (reply,) = decode(route, said, ONE)
        assert (reply.word, reply.notes) == (Word.UNCLEAR, {})


def test_a_full_page_that_ends_just_above_an_order_does_not_show_that_it_is_absent() -> None:
    page = [row(str(int(ORDER_ID) + n), "filled") for n in range(PAGE, 0, -1)]
    newer, older = target(str(int(ORDER_ID) + PAGE + 1)), ONE
    replies = decode("history-page", answer([row(newer.order_id or "", "cancelled"), *page[1:]]), newer, older)
    assert [reply.word for reply in replies] == [Word.CANCELLED, Word.UNREAD]


def test_a_page_that_begins_at_its_cursor_ignores_it() -> None:
    """`idLessThan` leaves out the order it names."""
    at = target(client_order_id="mine-1", notes={"walk": {"walk-history": {"at": ORDER_ID, "pages": 1, "end": False}}})
    page = [row(str(int(ORDER_ID) - n), "filled") for n in range(PAGE)]
    assert decode("walk-history", answer(page), at)[0].word is Word.UNCLEAR
    below = [row(str(int(ORDER_ID) - n), "filled") for n in range(1, PAGE + 1)]
    assert decode("walk-history", answer(below), at)[0].word is Word.UNREAD


def test_rows_about_others_prove_nothing() -> None:
    (reply,) = decode("order-info", answer([row(OTHER_ID, "cancelled")]), ONE)
    assert reply.word is Word.UNCLEAR
    (reply,) = decode("order-info", answer([row(OTHER_ID, "cancelled", clientOid="mine-2")]), MINE)
    assert reply.word is Word.UNCLEAR


def test_a_page_proves_absence_only_as_far_as_it_was_read() -> None:
    above, below = target("500"), target("150")
    rows = full_page(above=300)
    first, second = decode("history-page", answer(rows), above, below)
    assert (first.word, second.word) == (Word.ABSENT, Word.UNREAD)
    first, second = decode("history-page", answer(rows[:99]), above, below)
    assert (first.word, second.word) == (Word.ABSENT, Word.ABSENT)


def test_a_plan_list_tells_itself_whether_it_goes_on() -> None:
    one = target("150", scope="stop")
    rows = [row("200"), row("180")]
    assert decode("stop-open", answer({"nextFlag": True, "orderList": rows}), one)[0].word is not Word.ABSENT
    assert decode("stop-open", answer({"nextFlag": False, "orderList": rows}), one)[0].word is Word.ABSENT
    assert decode("stop-open", answer({"nextFlag": True, "orderList": [row("100")]}), one)[0].word is Word.ABSENT


NO_LIST: dict[str, Any] = {
    "null": None,
    "text": "[]",
    "number": 0,
    "object": {},
    "object about the order": row(status="live"),
    "object with another list": {"entrustedList": []},
    "list in text": {"orderList": "[]"},
}


@pytest.mark.parametrize("data", NO_LIST.values(), ids=NO_LIST)
def test_an_answer_without_a_list_is_no_empty_list(data: Any) -> None:
    """Absence leads to `not_found`, so it is only believed from a list."""
    for route in ("order-info", "history", "open", "history-page", "tpsl-open", "stop-open", "stop-history"):
        (reply,) = decode(route, answer(data), target(ORDER_ID, scope="stop" if route == "stop-history" else "order"))
        assert reply.word is Word.UNCLEAR, route


@pytest.mark.parametrize("client_id", [[[]], {}, True, 1.5])
def test_a_row_whose_client_id_cannot_be_read_may_be_the_one_looked_for(client_id: Any) -> None:
    rows = [row(OTHER_ID, clientOid="other"), row(clientOid=client_id)]
    for place in ("walk-open", "walk-history"):
        (reply,) = decode(place, answer(rows), MINE)
        assert reply.word is not Word.ABSENT
    # By order id it is found all the same.
    (reply,) = decode("history-page", answer(rows), target(ORDER_ID))
    assert reply.word is Word.OPEN


@pytest.mark.parametrize("odd", [None, "x", 1, [], [row()], {}, {"orderId": ""}, {"orderId": None, "status": "live"}])
def test_a_page_with_a_row_that_cannot_be_read_proves_no_absence(odd: Any) -> None:
    """That row may be the order."""
    by_id, plan = (ONE, target(OTHER_ID)), (target(ORDER_ID, scope="stop"), target(OTHER_ID, scope="stop"))
    by_client_id = (MINE, target(client_order_id="mine-2"))
    for route, intents in (("history-page", by_id), ("walk-open", by_client_id), ("stop-open", plan)):
        for reply in decode(route, answer([row("1", clientOid="x"), odd]), *intents):
            assert reply.word is not Word.ABSENT, route


def test_an_empty_page_that_says_there_is_more_proves_nothing() -> None:
    said = answer({"nextFlag": True, "orderList": []})
    for one in (target(ORDER_ID, scope="stop"), target(client_order_id="mine-1", scope="stop")):
        (reply,) = decode("stop-history", said, one)
        assert reply.word is not Word.ABSENT
        assert not reply.notes.get("walk", {}).get("stop-history", {}).get("end")


def test_a_full_page_without_ids_does_not_end_a_walk() -> None:
    (reply,) = decode("walk-history", answer([{"status": "filled"}] * PAGE), MINE)
    assert reply.word is not Word.ABSENT
    assert not reply.notes.get("walk", {}).get("walk-history", {}).get("end")


def test_an_order_of_another_scope_is_told_with_its_scope() -> None:
    for route, scope in (("tpsl-open", "tpsl"), ("stop-open", "stop")):
        (reply,) = decode(route, answer([row()]), ONE)
        assert reply.word is Word.FAILED
        assert f"scope {scope}" in reply.text
        assert reply.text.startswith("scope: ")


def test_an_order_of_another_scope_ends_as_rejected_with_that_remedy() -> None:
    """Asked for as a normal order, the venue says that there is none; its own list shows it, and it stays open."""

    def venue(request: Request) -> Answer:
        if request.method == "POST":
            return answer(code="40109", status=400)
        if "plan" in request.path:
            return answer({"nextFlag": False, "orderList": [row()]} if "current" in request.path else None)
        return answer([])

    journey = Journey(ONE)
    end = journey.run(by_venue(venue), most=100)
    assert (end.status, end.evidence) == (Status.rejected, "query")
    assert "scope stop" in end.detail


@pytest.mark.parametrize("word", ["43001", "40109", "22001"])
def test_gone_and_then_seen_ends_as_it_was_seen(word: str) -> None:
    """Already cancelled and too late look alike in the answer to a cancel; only a look tells them apart."""
    for state, status in (("cancelled", Status.cancelled), ("filled", Status.filled), ("reject", Status.closed)):

        def venue(request: Request, state: str = state) -> Answer:
            return answer(code=word, status=400) if request.method == "POST" else answer([row(status=state)])

        end: Finish = Journey(ONE).run(by_venue(venue), most=2)
        assert end.status is status


def test_a_busy_list_that_hides_the_order_does_not_hide_it_for_ever() -> None:
    """Full pages of newer orders, whatever cursor was asked for: nothing is proven, and the intent still ends."""

    def venue(request: Request) -> Answer:
        if request.method == "POST":
            return UNKNOWN
        return answer({"nextFlag": True, "orderList": full_page(above=int(OTHER_ID))})

    say: Say = by_venue(venue)
    end = Journey(target(ORDER_ID, scope="stop")).run(say, most=1_000)
    assert end.status is Status.unresolved


# -- ids from answers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("given_id", ["²", "٣", "12²", "9" * 33, "9" * 5000, "-1", " 1", "0x1", "1.0", "1,2", "1 2"])
def test_an_id_that_is_no_id_is_not_kept(given_id: str) -> None:
    """What is kept is asked for later, and stands in the state line between blanks and commas."""
    (reply,) = decode("order-info", answer([row(given_id, clientOid="mine-1")]), MINE)
    assert reply.order_id == ""
    (page, _) = decode("history-page", answer([row(given_id), row("2")]), ONE, target(OTHER_ID))
    assert page.word in (Word.ABSENT, Word.UNREAD, Word.UNCLEAR)
    (reply,) = decode("cancel-order", answer({"orderId": given_id, "clientOid": "mine-1"}), MINE)
    assert reply.order_id == ""


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("mine-1", True),
        ("a#b+c_d", True),
        ("", False),
        ("a b", False),
        ("a,b", False),
        ("é", False),
        ("x" * 65, False),
        ("a\n", False),
    ],
)
def test_a_client_id_is_kept_if_it_can_stand_in_a_line(text: str, kept: bool) -> None:
    assert safe_id(text) == (text if kept else "")
