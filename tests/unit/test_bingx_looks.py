"""Looking for an order: every place is read to where it would stand, and no list proves more than it shows."""

import random
from collections import Counter
from typing import Any

import pytest

from cancelq.contract import Status
from cancelq_worker.rulings import Finish, Go, Moment, Policy
from cancelq_worker.state import State, Work
from cancelq_worker.venues.bingx.looks import PAGE
from cancelq_worker.venues.port import Answer, Plan, Request, Stage, Target, Word
from cancelq_worker.verdict import Judge
from tests.unit.bingx_account import (
    BINGX,
    ORDER_ID,
    OTHER_ID,
    PAIR,
    ROUNDED_ID,
    ROUTES,
    answer,
    decode,
    encode,
    listed,
    raw,
    row,
    target,
)
from tests.unit.bingx_book import Book
from tests.unit.journey import Journey, by_venue

ONE, MINE = target(ORDER_ID), target(client_order_id="mine_1")
LISTS = ["open", "history-one", "history-page", "open-first"]


def run(intent: Target, book: Book, *, policy: Policy | None = None, most: int = 300) -> tuple[Finish, Journey]:
    journey = Journey(intent, venue=BINGX, policy=policy or Policy())
    return journey.run(by_venue(book, BINGX), most=most), journey


@pytest.mark.parametrize("told", ["mine_1", "", "theirs"])
def test_a_row_with_anothers_client_id_says_nothing_of_an_order_that_is_named_by_its_own(told: str) -> None:
    mine = target(client_order_id="mine_1", notes={"oid": ORDER_ID})
    done = row(clientOrderID=told)
    meant = Word.UNCLEAR if told == "theirs" else Word.CANCELLED
    assert decode("query", answer(done), mine)[0].word is meant
    for route in LISTS:
        assert decode(route, listed(done), mine)[0].word is meant


# -- where to look -------------------------------------------------------------------------------------------

EVERYWHERE = {"query", "openOrders", "historyOrders"}


@pytest.mark.parametrize("budget_us", [0, 10_000_000])
@pytest.mark.parametrize("intent", [ONE, MINE, target(ORDER_ID, scope="stop"), target(ORDER_ID, only_if="NEW")])
def test_every_place_is_read_twice_before_an_order_is_not_found(intent: Target, budget_us: int) -> None:
    """Without any budget of time too: one that was accepted milliseconds ago may not be visible yet."""
    book = Book()
    book.end(*range(1, 20))
    end, _ = run(intent, book, policy=Policy(lookup_budget_us=budget_us))
    assert (end.status, end.evidence) == (Status.not_found, "query")
    asked = Counter(name for name, _ in book.calls)
    assert set(asked) == EVERYWHERE | {"cancel"}
    assert asked["openOrders"] >= 3, "of the pair twice, and of all pairs"
    assert asked["historyOrders"] >= 2


@pytest.mark.parametrize("intent", [ONE, MINE])
def test_the_query_is_never_needed(intent: Target) -> None:
    book = Book(closed={"query"})
    book.end(*range(1, 20))
    assert run(intent, book)[0].status is Status.not_found
    book.end(int(ORDER_ID), status="CANCELED", client="mine_1")
    assert run(intent, book)[0].status is Status.cancelled


@pytest.mark.parametrize("place", ["openOrders", "historyOrders"])
@pytest.mark.parametrize("intent", [ONE, MINE])
def test_a_place_that_cannot_be_read_leaves_an_unknown_order_unresolved(intent: Target, place: str) -> None:
    assert run(intent, Book(closed={place}))[0].status is Status.unresolved


@pytest.mark.parametrize("places", [{"openOrders", "historyOrders"}, {"query", "openOrders"}, {"query"}])
@pytest.mark.parametrize("intent", [ONE, MINE])
def test_one_place_that_can_be_read_is_enough_to_find_an_order(intent: Target, places: set[str]) -> None:
    book = Book(closed=set(places))
    book.end(int(ORDER_ID), client="mine_1")
    end, journey = run(intent, book)
    assert end.status is Status.filled
    assert len(journey.looks()) <= 4


@pytest.mark.parametrize("intent", [ONE, MINE])
def test_an_order_that_ended_is_found_by_the_first_look(intent: Target) -> None:
    for status, told in (("FILLED", Status.filled), ("CANCELED", Status.cancelled), ("FAILED", Status.closed)):
        book = Book()
        book.end(int(ORDER_ID), status=status, client="mine_1")
        end, journey = run(intent, book)
        assert (end.status, end.state.notes["oid"]) == (told, ORDER_ID)
        assert [c.route.name for c in journey.calls] == ["cancel", "query"]


def test_the_places_are_read_in_turn_whatever_was_read_before() -> None:
    def after(**absent: int) -> str:
        return BINGX.next_look(target(ORDER_ID, notes={"n": sum(absent.values()), "abs": absent})).look_class

    assert after() == f"any:{PAIR}"
    assert after(open=1) == f"any:{PAIR}", "it was looked for in the open list before it was to be sent"
    assert after(query=1) == after(history=1) == f"open:{PAIR}"
    assert after(query=1, open=1) == f"history:{PAIR}"
    assert after(query=1, open=1, history=1).startswith(f"seek:{PAIR}:")


def test_a_place_that_fails_is_not_asked_again_before_the_others() -> None:
    (reply,) = decode("history-page", raw(b"<html>"), ONE)
    assert reply.notes["bad"] == {"history": 1}
    failed = target(ORDER_ID, notes={**reply.notes, "f": 1})
    assert BINGX.next_look(failed).look_class == f"open:{PAIR}"
    (reply,) = decode("history-page", answer(code=100410, msg="rate limited"), ONE)
    assert (reply.word, reply.notes) == (Word.REFUSED, {}), "a refusal tells nothing of the place"


@pytest.mark.parametrize("route", ["query", "open", "history-one"])
def test_a_pair_that_the_venue_does_not_have_is_told_by_a_look_too(route: str) -> None:
    """As after a cancel without a readable answer: to look on would end in equal errors, and tell nothing more."""
    told = answer(code=100421, msg="CheckUserAndSymbol: contract not exist")
    (reply,) = decode(route, told, ONE)
    assert (reply.word, reply.text[:8]) == (Word.FAILED, "symbol: ")
    (reply,) = decode(route, told, target(ORDER_ID, notes={"known": 1}))
    assert reply.word is Word.UNCLEAR, "the venue knew this order of that pair"
    (reply,) = decode(route, answer(code=100400, msg="Invalid parameters"), ONE)
    assert reply.word is Word.UNCLEAR, "what is wrong with a look says nothing of the order"


def test_an_order_found_by_its_client_id_is_looked_for_by_its_order_id() -> None:
    assert BINGX.next_look(MINE).look_class == f"named:{PAIR}"
    assert BINGX.next_look(target(client_order_id="mine_1", notes={"oid": ORDER_ID})).look_class == f"any:{PAIR}"


def test_a_live_order_of_another_pair_is_told_with_its_pair() -> None:
    for intent in (ONE, MINE):
        book = Book()
        book.add(int(ORDER_ID), symbol="ETH-USDT", client="mine_1")
        end, _ = run(intent, book)
        assert (end.status, book.left) == (Status.rejected, {int(ORDER_ID)})
        assert end.detail.startswith("symbol: ")
        assert "ETH-USDT" in end.detail


@pytest.mark.parametrize(
    ("rows", "word"),
    [
        ([], Word.ABSENT),
        ([row(status="PENDING", symbol="ETH-USDT")], Word.FAILED),
        ([row(status="PENDING")], Word.OPEN),
        ([row(status="PENDING"), row(status="PENDING", symbol="ETH-USDT")], Word.OPEN),
        ([row(status="CANCELED", symbol="ETH-USDT")], Word.UNCLEAR),
        ([row(status="PENDING", symbol=pair) for pair in ("ETH-USDT", "SOL-USDT")], Word.UNCLEAR),
        ([row(OTHER_ID, "PENDING"), {"orderId": None}], Word.UNCLEAR),
        ([row(str(n + 1), "PENDING") for n in range(2000)], Word.UNCLEAR),
    ],
)
def test_the_open_list_of_all_pairs_helps_and_proves_little(rows: list[dict[str, Any]], word: Word) -> None:
    (reply,) = decode("open-abroad", listed(*rows), ONE)
    assert (reply.word, reply.place) == (word, "abroad")
    if len(rows) == 2000:
        assert reply.notes["wide"] == 1, "it is not asked again"


def test_a_scope_is_no_reason_to_refuse() -> None:
    """All orders share their ids and their cancel."""
    for kind in ("tpsl", "stop"):
        book = Book()
        book.add(int(ORDER_ID), kind=kind)
        assert run(ONE, book)[0].status is Status.cancelled


# -- a look ahead of a cancel --------------------------------------------------------------------------------


def looked_first(intent: Target, said: Answer, *, seen: bool = False, opens_us: int = 0, **before: int) -> Finish | Go:
    """What follows where equal errors have closed the cancel, and the order was looked for instead."""
    plan = BINGX.admit(intent.fields)
    assert isinstance(plan, Plan)
    notes = {"known": 1, "seen": 1} if seen else {}
    state = State(
        stage=Stage.CANCEL, cancel_class=BINGX.cancel_class(Target(intent.fields, notes)), look_class=plan.look_class,
        orders=plan.orders, attempts=before.get("attempts", int(seen)), lookups=before.get("lookups", 0), notes=notes,
    )  # fmt: skip
    work = Work("i1", {**intent.fields, "queued_us": "1"}, state, 1)
    route = ROUTES["open-again" if seen else "open-first"]
    taken = work.taken(stage=route.stage, batch_id="b1", route=route.name, size=1, taken_us=1)
    (reply,) = decode(route.name, said, intent)
    return Judge(BINGX, Policy(), random.Random(1)).look(
        state, taken, work.record, reply, Moment(1_000, 1, 2, opens_us=opens_us)
    )


@pytest.mark.parametrize(
    ("intent", "waits"),
    [
        (ONE, "seen"),
        (MINE, "seen"),  # the list told its order id
        (target(ORDER_ID, scope="stop"), "seen-trigger"),
        (target(ORDER_ID, only_if="PENDING"), "seen-only"),
    ],
)
def test_what_is_seen_open_is_sent_as_such(intent: Target, waits: str) -> None:
    follows = looked_first(intent, listed(row(status="PENDING", clientOrderID="mine_1")))
    assert isinstance(follows, Go)
    assert (follows.state.stage, follows.state.cancel_class) == (Stage.CANCEL, f"{waits}:{PAIR}")
    assert (follows.state.attempts, follows.delay_us) == (0, 0)


@pytest.mark.parametrize("said", [listed(), listed(row(OTHER_ID, "PENDING")), raw(b"<html>"), raw(b"", 502)])
def test_what_is_not_seen_is_looked_for_elsewhere_and_not_sent(said: Answer) -> None:
    follows = looked_first(ONE, said)
    assert isinstance(follows, Go)
    assert follows.state.stage is Stage.LOOK
    assert follows.state.attempts == 0


@pytest.mark.parametrize(
    "said", [listed(row(status="PENDING")), listed({"symbol": PAIR}), raw(b"<html>"), raw(b"", 502)]
)
def test_what_was_seen_before_goes_on_waiting_unless_it_is_gone(said: Answer) -> None:
    for intent in (ONE, target(ORDER_ID, scope="stop"), target(ORDER_ID, only_if="PENDING")):
        waits = looked_first(intent, said, seen=True)
        assert isinstance(waits, Go)
        assert (waits.state.stage, waits.tell) == (Stage.CANCEL, None)
        assert waits.state.cancel_class.startswith("seen")
        assert waits.delay_us == Policy().seen_again_us
        assert (waits.state.attempts, waits.state.lookups) == (1, 0)


def test_what_was_seen_before_and_is_gone_is_not_sent() -> None:
    gone = looked_first(ONE, listed(row(OTHER_ID, "PENDING")), seen=True)
    assert isinstance(gone, Go)
    assert gone.state.stage is Stage.LOOK
    end = looked_first(ONE, listed(row(status="FILLED")), seen=True)
    assert isinstance(end, Finish)
    assert end.status is Status.filled


@pytest.mark.parametrize("attempts", [0, 1])
def test_a_look_at_what_waits_costs_none_of_its_look_ups(attempts: int) -> None:
    most = Policy().max_lookups
    waits = looked_first(ONE, listed(row(status="PENDING")), seen=True, attempts=attempts, lookups=most)
    assert isinstance(waits, Go)
    assert (waits.state.stage, waits.state.lookups, waits.delay_us) == (Stage.CANCEL, most, Policy().seen_again_us)


@pytest.mark.parametrize(("opens_us", "delay_us"), [(9_001_000, 9_000_000), (90_000_000_000, 60_000_000), (500, 0)])
def test_what_waits_is_there_when_its_endpoint_opens(opens_us: int, delay_us: int) -> None:
    waits = looked_first(ONE, listed(row(status="PENDING")), seen=True, opens_us=opens_us)
    assert isinstance(waits, Go)
    assert waits.delay_us == delay_us


# -- several orders on one page ------------------------------------------------------------------------------


def ended(*ids: int, **more: Any) -> list[dict[str, Any]]:
    return [row(str(n), "FILLED", **more) for n in ids]


def test_a_page_that_is_not_full_was_read_to_its_end() -> None:
    first, second = decode("history-page", listed(*ended(*range(150, 249))), target("150"), target("300"))
    assert (first.word, second.word) == (Word.FILLED, Word.ABSENT)


@pytest.mark.parametrize("down", [True, False])
def test_a_full_page_proves_absence_only_between_its_ids(down: bool) -> None:
    """Which end of the history comes first is documented nowhere."""
    ids = sorted(range(200, 200 + 2 * PAGE, 2), reverse=down)
    between, above, below = decode("history-page", listed(*ended(*ids)), target("201"), target("999"), target("150"))
    assert [r.word for r in (between, above, below)] == [Word.ABSENT, Word.UNREAD, Word.UNREAD]
    assert above.notes == {"paged": 1}
    then = target("999", notes=above.notes)
    assert BINGX.next_look(then).look_class.startswith(f"seek:{PAIR}:")


def test_a_full_page_in_no_order_proves_nothing() -> None:
    ids = [*range(200, 200 + 2 * PAGE, 2)]
    ids[5], ids[50] = ids[50], ids[5]
    (reply, _) = decode("history-page", listed(*ended(*ids)), target("201"), target("150"))
    assert reply.word is Word.UNREAD


def test_a_page_is_asked_from_the_smallest_id_on_and_ids_are_numbers() -> None:
    query = encode("history-page", target("9"), target("1523347543495541248"), target("10")).query
    assert query == f"orderId=9&pageSize=100&symbol={PAIR}"


@pytest.mark.parametrize("route", ["history-page", "history-one"])
def test_a_page_that_ignores_where_it_should_begin_proves_nothing(route: str) -> None:
    (reply,) = decode(route, listed(*ended(5, 100)), target("50"))
    assert reply.word is Word.UNCLEAR


@pytest.mark.parametrize("oldest_first", [True, False])
@pytest.mark.parametrize("at", [1, 150, 299, 300])
def test_an_order_is_found_wherever_it_stands_in_the_history(oldest_first: bool, at: int) -> None:
    book = Book(oldest_first=oldest_first, closed={"query"})
    book.end(*(n for n in range(1, 301) if n != at), client="other")
    book.end(at, status="CANCELED", client="mine_1")
    for intent in (target(str(at)), MINE):
        end, _ = run(intent, book)
        assert (end.status, end.state.notes["oid"]) == (Status.cancelled, str(at))


# -- walking -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("oldest_first", [True, False])
def test_a_history_is_walked_page_by_page_to_its_end(oldest_first: bool) -> None:
    book = Book(oldest_first=oldest_first)
    book.end(*range(1001, 1301), client="other")
    end, _ = run(MINE, book)
    assert end.status is Status.not_found
    pages = [params.get("pageIndex", "1") for params in book.named("historyOrders")]
    assert pages[:8] == ["1", "2", "3", "4", "1", "2", "3", "4"], "300 orders fill three pages, so the fourth is empty"


def test_an_unknown_order_older_than_a_full_page_is_walked_for_from_the_grid() -> None:
    book = Book()
    book.end(*range(1001, 1151))
    end, _ = run(target("500"), book)
    assert end.status is Status.not_found
    asked = [(params["orderId"], params.get("pageIndex", "1")) for params in book.named("historyOrders")]
    assert asked[:3] == [("500", "1"), ("1", "1"), ("1", "2")]


def test_a_walk_is_read_to_its_end_whatever_order_its_pages_seem_to_have() -> None:
    walk = target("150", notes={"paged": 1, "walk": {"by": "i", "at": 2}})
    for ids in (range(101, 300, 2), range(299, 100, -2)):
        (reply,) = decode("history-on", listed(*ended(*ids)), walk)
        assert (reply.word, reply.notes["walk"]["at"]) == (Word.UNREAD, 3)
    (reply,) = decode("history-on", listed(*ended(*range(151, 250))), walk)
    assert (reply.word, reply.notes["walk"]) == (Word.ABSENT, {})


def test_those_that_walk_by_order_id_share_pages_from_the_grid() -> None:
    notes = {"paged": 1, "walk": {"by": "i", "at": 3}}
    near, far = 1523347543495541248, 1523347543495541248 + (1 << 42)
    waiting = [target(str(near + n), notes=notes) for n in range(3)]
    (shared,) = {BINGX.next_look(t).look_class for t in waiting}
    begin = near - near % (1 << 41)
    assert shared == f"stride:{PAIR}:{begin}:3"
    assert ROUTES["history-on"].most == 100
    assert encode("history-on", *waiting).query == f"orderId={begin}&pageIndex=3&pageSize=100&symbol={PAIR}"
    found, gone, missing = decode("history-on", listed(*ended(*range(far, far + 99)), *ended(near)), *waiting)
    assert (found.word, gone.word, missing.word) == (Word.FILLED, Word.UNREAD, Word.UNREAD)
    assert gone.notes["walk"] == {"by": "i", "at": 4}
    with pytest.raises(ValueError, match="one beginning"):
        encode("history-on", waiting[0], target(str(far), notes=notes))
    with pytest.raises(ValueError, match="one page"):
        encode("history-on", waiting[0], target(str(near), notes={"walk": {"by": "i", "at": 4}}))


@pytest.mark.parametrize(("stood", "goes_on"), [({}, 2), ({"walk": {}}, 2), ({"walk": {"by": "i", "at": 3}}, 1)])
def test_after_a_pause_a_walk_is_begun_anew_unless_it_has_just_begun(stood: dict[str, Any], goes_on: int) -> None:
    """What was read long ago may be otherwise by now; the first page that was waited for is of now."""
    intent = target("500", notes={"paged": 1, "t0": 0, "look_at": 0, "abs": {"open": 1}, **stood})
    (reply,) = decode("history-on" if goes_on == 1 else "history-begin", listed(*ended(*range(501, 601))), intent)
    before, at = State(stage=Stage.LOOK, notes=intent.notes), Moment(Policy().look_pause_us + 1, 0, 0)
    taken = before.at_rest(1)
    verdict = Judge(BINGX, Policy(), random.Random(7)).look(before, taken, dict(intent.fields), reply, at)
    assert verdict.state.look_class == (f"stride:{PAIR}:1:2" if goes_on > 1 else f"seek:{PAIR}:1:1")
    assert "open" not in verdict.state.notes["abs"]


def test_an_order_the_venue_has_known_is_asked_for_by_itself_up_to_the_last_third_before_the_lock() -> None:
    known = target(ORDER_ID, notes={"known": 1, "paged": 1})
    begin = int(ORDER_ID) >> 41 << 41
    assert BINGX.next_look(known).look_class == f"sure:{PAIR}:{begin}:1"
    assert BINGX.next_look(target(ORDER_ID, notes={"paged": 1})).look_class == f"seek:{PAIR}:{begin}:1"
    assert ROUTES["query-known"].errors == 15
    assert encode("query-known", known).query == f"orderId={ORDER_ID}&symbol={PAIR}"


def test_a_history_too_long_to_walk_proves_nothing_and_says_so() -> None:
    book = Book()
    book.end(*range(1, 10_101), client="other")
    end, journey = run(MINE, book, most=400)
    assert end.status is Status.unresolved
    assert "10000" in end.detail
    assert len(journey.looks()) <= Policy().max_walk_lookups


def test_those_that_walk_one_pair_share_its_pages() -> None:
    notes = {"n": 2, "walk": {"by": "c", "at": 3}}
    waiting = [target(client_order_id=name, notes=notes) for name in ("a", "b")]
    assert {BINGX.next_look(t).look_class for t in waiting} == {f"pages:{PAIR}:3"}
    assert encode("history-walk", *waiting).query == f"pageIndex=3&pageSize=100&symbol={PAIR}"


def test_a_walk_by_client_id_is_not_gone_on_with_by_order_id() -> None:
    """They go through different lists: the third page of one says nothing of the other."""
    learnt = target(client_order_id="a", notes={"oid": ORDER_ID, "walk": {"by": "c", "at": 3}})
    assert BINGX.next_look(learnt).look_class == f"any:{PAIR}"
    assert "pageIndex" not in encode("history-one", learnt).query


def test_an_open_list_that_is_cut_off_proves_nothing_and_says_so() -> None:
    book = Book()
    book.add(*range(1, 2101))
    end, journey = run(target("5000"), book)
    assert end.status is Status.unresolved
    assert "2000" in end.detail
    assert len(journey.looks()) < Policy().max_lookups
    book.end(5000)
    assert run(target("5000"), book)[0].status is Status.filled


# -- lists that do not tell client ids -----------------------------------------------------------------------


def test_lists_without_client_ids_prove_no_absence_of_one() -> None:
    for route in ("open", "open-named", "history-walk"):
        (reply,) = decode(route, listed(row(status="FILLED", clientOrderID=None)), MINE)
        assert (reply.word, reply.notes["mute"]) == (Word.UNCLEAR, 1)
        (reply,) = decode(route, listed(), MINE)
        assert reply.word is Word.ABSENT, "an empty list hides nothing"


def test_then_only_the_query_can_tell_and_the_reason_is_told() -> None:
    book = Book(tells=False)
    book.end(*range(1, 20), client="other")
    end, _ = run(MINE, book)
    assert end.status is Status.unresolved
    assert "two hours" in end.detail
    assert len(book.named("query")) >= 5
    book.end(77, status="CANCELED", client="mine_1")
    assert run(MINE, book)[0].status is Status.cancelled


# -- what a row says -----------------------------------------------------------------------------------------

STATES = {
    "NEW": Word.OPEN,
    "PENDING": Word.OPEN,  # it rests; nothing is pending
    "PARTIALLY_FILLED": Word.OPEN,
    "WORKING": Word.OPEN,
    "RUNNING": Word.OPEN,
    "FILLED": Word.FILLED,
    "CANCELED": Word.CANCELLED,
    "CANCELLED": Word.CANCELLED,
    "FAILED": Word.CLOSED,
    "EXPIRED": Word.CLOSED,
}


@pytest.mark.parametrize(("state", "word"), STATES.items())
def test_the_venues_word_for_a_state_is_read(state: str, word: Word) -> None:
    for route in LISTS:
        (reply,) = decode(route, listed(row(status=state, clientOrderID="c1")), ONE)
        assert (reply.word, reply.venue_state, reply.order_id) == (word, state, ORDER_ID)
        assert reply.client_order_id == "c1"
    (reply,) = decode("query", answer(row(status=state)), ONE)
    assert (reply.word, reply.place) == (word, "query")


def test_a_state_is_read_in_whatever_case_it_is_told() -> None:
    assert decode("query", answer(row(status="Canceled")), ONE)[0].word is Word.CANCELLED
    assert decode("open", listed(row(status="pending")), ONE)[0].word is Word.OPEN


def test_an_order_that_is_told_without_its_pair_is_known_by_its_id() -> None:
    assert decode("query", answer(row(symbol=None)), ONE)[0].word is Word.CANCELLED
    assert decode("cancel", answer(row(symbol=None)), ONE)[0].word is Word.CANCELLED


@pytest.mark.parametrize("name", ["clientOrderID", "clientOrderId", "origClientOrderId"])
def test_a_list_tells_a_client_id_under_each_of_its_names(name: str) -> None:
    """The documents spell it in several ways; one name may stand empty beside the other."""
    for others in ({}, {"clientOrderID": ""}):
        told = {**row(status="PENDING", clientOrderID=None), **others, name: "mine_1"}
        (reply,) = decode("open", listed(told), MINE)
        assert (reply.word, reply.client_order_id) == (Word.OPEN, "mine_1")


def test_a_row_that_cannot_be_read_may_be_about_the_same_order() -> None:
    seen = row(status="PENDING", clientOrderID="mine_1")
    for odd in (row(symbol="ETH-USDT", clientOrderID="mine_1"), row(symbol=None, clientOrderID="mine_1")):
        for intent in (ONE, MINE):
            assert decode("open", listed(seen), intent)[0].word is Word.OPEN
            assert decode("open", listed(seen, odd), intent)[0].word is Word.UNCLEAR


def test_looks_by_list_in_the_place_of_a_query_are_counted() -> None:
    again = target(client_order_id="mine_1", notes={"lent": 1})
    first, second = decode("open-named", listed(), MINE, again)
    assert (first.notes["lent"], second.notes["lent"]) == (1, 2)


def test_a_list_that_is_refused_tells_nothing_of_its_orders() -> None:
    (reply,) = decode("open", answer(code=80018, msg="order is already filled"), ONE)
    assert (reply.word, reply.notes) == (Word.UNCLEAR, {"bad": {"open": 1}})


def test_a_place_that_is_down_is_noted_so_that_another_is_asked_next() -> None:
    (reply,) = decode("open", answer(code=100490, msg="spot symbol offline"), ONE)
    assert (reply.word, reply.notes) == (Word.LATER, {"bad": {"open": 1}})


@pytest.mark.parametrize("state", ["", "CANCELING", "TRIGGERED", "DONE", "CANCELED ", None, 4, True, ["FILLED"]])
def test_an_unknown_state_is_unclear(state: Any) -> None:
    for route, said in (("query", answer(row(status="x") | {"status": state})), ("open", listed(row(status="x")))):
        assert decode(route, said, ONE)[0].word is Word.UNCLEAR


@pytest.mark.parametrize("kind", ["TRIGGER_LIMIT", "TRIGGER_MARKET", "TAKE_STOP_LIMIT", "TAKE_STOP_MARKET"])
@pytest.mark.parametrize(
    ("executed", "word"), [("0", Word.TRIGGERED), ("0.00", Word.TRIGGERED), ("0.1", Word.FILLED), ("?", Word.UNCLEAR)]
)
def test_a_trigger_order_that_fired_is_filled_only_if_something_was(kind: str, executed: str, word: Word) -> None:
    """What it placed is another order; no page tells how the two are written."""
    said = answer(row(status="FILLED", type=kind, executedQty=executed))
    for scope in ("order", "tpsl", "stop"):
        assert decode("query", said, target(ORDER_ID, scope=scope))[0].word is word


def test_no_such_order_is_absent_where_one_was_asked_for_and_unclear_elsewhere() -> None:
    for code, text in ((100404, "order not exist"), (100204, "no data"), (80016, ""), (100421, "order not exist")):
        said = answer(code=code, msg=text)
        (reply,) = decode("query", said, ONE)
        assert (reply.word, reply.place, reply.error) == (Word.ABSENT, "query", str(code))
        assert decode("open", said, ONE)[0].word is Word.UNCLEAR


@pytest.mark.parametrize("other", [row(OTHER_ID), row(ROUNDED_ID), row(symbol="ETH-USDT"), {}, None, [row()]])
def test_an_answer_about_another_order_proves_nothing(other: Any) -> None:
    assert decode("query", answer(other), ONE)[0].word is Word.UNCLEAR


def test_rows_of_one_order_that_differ_say_nothing() -> None:
    for route in LISTS:
        assert decode(route, listed(row(), row(status="FILLED")), ONE)[0].word is Word.UNCLEAR
        assert decode(route, listed(row(), row()), ONE)[0].word is Word.CANCELLED
    two = listed(row(clientOrderID="mine_1"), row(OTHER_ID, clientOrderID="mine_1"))
    assert decode("history-walk", two, MINE)[0].word is Word.UNCLEAR, "one client id, two orders"


@pytest.mark.parametrize("data", [None, "[]", 0, [], {}, {"orders": None}, {"orders": {}}, row()])
def test_an_answer_without_a_list_is_no_empty_list(data: Any) -> None:
    """Absence leads to `not_found`, so it is only believed from a list."""
    for route in [*LISTS, "open-abroad"]:
        assert decode(route, answer(data), ONE)[0].word is Word.UNCLEAR


@pytest.mark.parametrize("odd", [None, "x", [], {}, row(symbol="ETH-USDT"), {**row(), "orderId": float(ORDER_ID)}])
def test_a_page_with_a_row_that_cannot_be_read_proves_no_absence(odd: Any) -> None:
    """That row may be the order."""
    others = (target("1735964079647111282"), target("1735964079647111283"))
    for route, targets in (("history-page", others), ("open", others), ("history-one", others[:1])):
        for reply in decode(route, listed(row("1735964079647111290"), odd), *targets):
            assert reply.word is Word.UNCLEAR


def test_an_acknowledged_order_that_a_stale_list_still_shows_is_not_cancelled_again_at_once() -> None:
    book = Book()
    book.add(int(ORDER_ID))

    def venue(request: Request) -> Answer:
        return answer(row(status="PENDING")) if request.method == "POST" else book(request)

    journey = Journey(ONE, venue=BINGX)
    say = by_venue(venue, BINGX)
    for _ in range(4):
        journey.step(say)
    assert len(journey.cancels()) == 1
    book.open.clear()
    book.end(int(ORDER_ID), status="CANCELED")
    assert journey.run(say, most=50).status is Status.cancelled


def test_an_order_a_batch_knew_is_not_called_unknown() -> None:
    def venue(request: Request) -> Answer:
        if request.method == "GET":
            return listed() if not request.path.endswith("/query") else answer(code=100404, msg="order not exist")
        return answer(
            {"orders": [], "fails": [{"orderId": ORDER_ID, "error": "order status :CANCELED,can not delete"}]}
        )

    journey = Journey(ONE, venue=BINGX)
    plain = by_venue(venue, BINGX)
    batch = ROUTES["cancel-orders"]
    journey.step(lambda route, one: plain(batch if route.name == "cancel" else route, one))
    end = journey.run(plain, most=60)
    assert end.status is Status.unresolved
    assert "knew this order" in end.detail
