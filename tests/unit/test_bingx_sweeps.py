"""Scopes symbol and account: a bulk call only where it does just what is meant, else the open list and cancels by id,
until nothing older than the intent is open."""

from itertools import pairwise
from typing import Any

import pytest

from cancelq.contract import Status
from cancelq_worker.rulings import Finish
from cancelq_worker.venues.port import Answer, Reply, Request, Target, Word
from tests.unit.bingx_account import BINGX, ORDER_ID, PAIR, answer, decode, listed, raw, row, target
from tests.unit.bingx_book import ASKED_MS, NEW, OLD, Book
from tests.unit.journey import Journey, by_venue

FOR_EVER = 3_000
ALL_KINDS = "order,tpsl,stop"
SYMBOL, ACCOUNT = target(scope="symbol"), target(scope="account", symbol=None)
ALL_OF_IT = target(scope="symbol", kinds=ALL_KINDS)


def sweep(intent: Target, book: Book, *, rtt_us: int = 20_000, wait_us: int = 0) -> tuple[Finish, Journey]:
    journey = Journey(intent, venue=BINGX, rtt_us=rtt_us, wait_us=wait_us)
    return journey.run(by_venue(book, BINGX), most=FOR_EVER), journey


def bulks(book: Book) -> list[dict[str, str]]:
    return book.named("cancelOpenOrders")


# -- the bulk call -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spares", [True, False])
def test_a_pair_is_emptied_of_all_kinds_by_one_bulk_call_and_then_looked_at(spares: bool) -> None:
    book = Book(spares=spares)
    book.add(1, 2, 3)
    book.add(4, kind="tpsl")
    book.add(5, kind="stop")
    book.add(20, symbol="ETH-USDT")
    end, journey = sweep(ALL_OF_IT, book)
    assert (end.status, end.open_orders, book.left) == (Status.cancelled, 0, {20})
    assert bulks(book) == [{"symbol": PAIR}]
    assert journey.calls[0].route.name == "cancel-open"


def test_an_account_is_emptied_by_one_call_without_a_pair() -> None:
    book = Book()
    book.add(1, 2)
    book.add(3, symbol="ETH-USDT", kind="stop")
    end, _ = sweep(target(scope="account", symbol=None, kinds=ALL_KINDS), book)
    assert (end.status, book.left, bulks(book)) == (Status.cancelled, set(), [{}])


def test_a_pair_that_holds_nothing_but_what_is_meant_is_emptied_in_bulk_after_a_look() -> None:
    book = Book()
    book.add(*range(1, 60))
    book.add(100, symbol="ETH-USDT", kind="stop")
    end, journey = sweep(SYMBOL, book)
    assert (end.status, book.left) == (Status.cancelled, {100})
    assert [c.route.name for c in journey.calls][:2] == ["sweep-list", "cancel-open"]
    assert bulks(book) == [{"symbol": PAIR}]


@pytest.mark.parametrize(
    "other",
    [{"kind": "stop"}, {"kind": "tpsl"}, {"at_ms": NEW}, {"at_ms": ASKED_MS}],
    ids=["a trigger order", "a TP/SL order", "a newer order", "an order of unknown age"],
)
def test_one_order_that_is_not_meant_forbids_the_bulk_call(other: dict[str, Any]) -> None:
    book = Book()
    book.add(*range(1, 30))
    book.add(100, **other)
    end, _ = sweep(SYMBOL, book)
    assert book.left == {100}
    assert bulks(book) == []
    assert "100" not in book.cancelled
    assert end.status is (Status.unresolved if other.get("at_ms") == ASKED_MS else Status.cancelled)


def test_what_the_bulk_call_left_open_is_cancelled_by_id_and_never_in_bulk_again() -> None:
    for intent in (ALL_OF_IT, SYMBOL):
        book = Book(bulk_works=False)
        book.add(*range(1, 40))
        end, _ = sweep(intent, book)
        assert (end.status, book.left, len(bulks(book))) == (Status.cancelled, set(), 1)


@pytest.mark.parametrize(
    "said", [raw(b"", 502), answer(code=100500, msg="busy"), answer(code=100410, msg="The current system is busy")]
)
def test_an_unclear_bulk_call_is_not_repeated(said: Answer) -> None:
    book = Book(bulk_works=False)
    book.add(1, 2)

    def venue(request: Request) -> Answer:
        done = book(request)
        return said if request.path.endswith("/cancelOpenOrders") else done

    end = Journey(ALL_OF_IT, venue=BINGX).run(by_venue(venue, BINGX), most=FOR_EVER)
    assert (end.status, len(bulks(book)), book.left) == (Status.cancelled, 1, set())


@pytest.mark.parametrize(
    "intent",
    [
        target(scope="symbol", kinds=ALL_KINDS, client_prefix="mm_"),
        target(scope="symbol", kinds=ALL_KINDS, older_than_ms=str(NEW)),
        target(scope="account", symbol=None, kinds=ALL_KINDS, client_prefix="mm_"),
    ],
)
def test_a_narrowed_sweep_is_never_made_in_bulk(intent: Target) -> None:
    """Not even if all that is open is meant just now: the call could not tell what comes."""
    book = Book()
    book.add(*range(1, 20), client="mm_1")
    end, _ = sweep(intent, book)
    assert (end.status, book.left, bulks(book)) == (Status.cancelled, set(), [])


# -- by id ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait_us", [0, 2_000_000])
@pytest.mark.parametrize("kinds", ["order", "tpsl", "stop", "order,tpsl", "tpsl,stop"])
def test_every_kind_that_was_asked_for_is_cancelled_and_no_other(kinds: str, wait_us: int) -> None:
    book = Book()
    for n, kind in enumerate(("order", "tpsl", "stop")):
        book.add(*range(1000 * n + 1, 1000 * n + 4), kind=kind)
    wanted = kinds.split(",")
    end, _ = sweep(target(scope="account", symbol=None, kinds=kinds), book, wait_us=wait_us)
    assert end.status is Status.cancelled
    left = {n // 1000 for n in book.left}
    assert left == {n for n, kind in enumerate(("order", "tpsl", "stop")) if kind not in wanted}
    assert len(book.cancelled) == 3 * len(wanted), "each order once"
    assert bulks(book) == []


def test_normal_orders_go_in_batches_of_one_pair_and_the_others_one_by_one() -> None:
    book = Book()
    book.add(*range(1, 16))
    book.add(*range(101, 106), symbol="ETH-USDT")
    book.add(201, 202, kind="stop")
    book.add(301, at_ms=NEW)
    end, journey = sweep(target(scope="account", symbol=None, kinds="order,stop"), book)
    assert (end.status, book.left) == (Status.cancelled, {301})
    sizes = [len(params["orderIds"].split(",")) for params in book.named("cancelOrders")]
    assert sorted(sizes) == [5, 5, 10]
    assert len(book.named("cancel")) == 2
    assert len(journey.cancels()) == 5


@pytest.mark.parametrize("rtt_us", [1_000, 300_000])
@pytest.mark.parametrize("wait_us", [0, 2_000_000])
def test_an_order_that_cannot_be_cancelled_is_told_with_the_number_left_open(rtt_us: int, wait_us: int) -> None:
    book = Book(deaf={"2", "3"})
    book.add(*range(1, 6))
    book.add(9, kind="stop")
    end, journey = sweep(ACCOUNT, book, rtt_us=rtt_us, wait_us=wait_us)
    assert (end.status, end.open_orders, book.left) == (Status.unresolved, 2, {2, 3, 9})
    assert len(journey.cancels()) < 30


def test_an_order_is_not_cancelled_twice_within_the_gap() -> None:
    book = Book(deaf={"2"})
    book.add(1, 2)
    book.add(9, kind="stop")
    _, journey = sweep(ACCOUNT, book)
    cancels = journey.cancels()
    assert len(cancels) > 2
    for first, second in pairwise(cancels):
        assert second.sent_us - first.back_us >= BINGX.timing.gap_us


def test_orders_that_ended_since_they_were_listed_are_not_named_one_by_one() -> None:
    """Equal errors lock the endpoint for all cancels: where many triggers fire at once, one error is enough."""
    book = Book()
    book.add(*range(1, 31), kind="stop")
    book.add(40)

    def crash(request: Request) -> Answer:
        if request.path.endswith("/cancel"):
            for n in range(2, 30):
                book.open.pop(str(n), None)
        return book(request)

    journey = Journey(target(scope="account", symbol=None, kinds="stop"), venue=BINGX, rtt_us=20_000)
    end = journey.run(by_venue(crash, BINGX), most=FOR_EVER)
    assert (end.status, end.open_orders, book.left) == (Status.cancelled, 0, {40})
    in_vain = [params for params in book.named("cancel") if params["orderId"] not in book.cancelled]
    assert len(in_vain) == 1


def test_a_list_that_is_cut_off_is_worked_through() -> None:
    book = Book()
    book.add(*range(1, 2301))
    book.add(5000, kind="stop")
    end, _ = sweep(target(scope="symbol"), book)
    assert (end.status, book.left) == (Status.cancelled, {5000})


def test_a_list_cut_off_before_what_is_meant_proves_nothing() -> None:
    book = Book()
    book.add(1, kind="stop")
    book.add(*range(10, 2100))
    end, _ = sweep(target(scope="symbol", kinds="stop"), book)
    assert (end.status, len(book.left)) == (Status.unresolved, 2091)


# -- which orders are meant ----------------------------------------------------------------------------------


def test_orders_newer_than_the_intent_are_left_alone() -> None:
    book = Book()
    book.add(1, 2, at_ms=OLD)
    book.add(3, 4, at_ms=NEW)
    end, _ = sweep(ACCOUNT, book)
    assert (end.status, end.open_orders, book.left) == (Status.cancelled, 0, {3, 4})


def test_an_order_whose_age_nobody_can_tell_is_never_cancelled_and_keeps_the_intent_open() -> None:
    book = Book()
    book.add(1, at_ms=OLD)
    book.add(2, at_ms=ASKED_MS)
    end, _ = sweep(ACCOUNT, book)
    assert (end.status, end.open_orders, book.left) == (Status.unresolved, 1, {2})
    assert "2" not in book.cancelled


def test_only_orders_whose_client_id_begins_so() -> None:
    book = Book()
    book.add(1, client="mm_1")
    book.add(2, client="xmm_1")
    book.add(3)
    end, _ = sweep(target(scope="symbol", client_prefix="mm_"), book)
    assert (end.status, book.left) == (Status.cancelled, {2, 3})


def test_only_orders_created_before_the_given_time() -> None:
    book = Book()
    book.add(1, at_ms=OLD - 1)
    book.add(2, at_ms=OLD)
    end, _ = sweep(target(scope="symbol", older_than_ms=str(OLD)), book)
    assert (end.status, book.left) == (Status.cancelled, {2})


# -- what a list proves --------------------------------------------------------------------------------------

BAND = (ASKED_MS - 5, ASKED_MS + 6)
LISTING = target(scope="account", symbol=None, age_band_ms=BAND)
OF_A_PAIR = target(scope="symbol", age_band_ms=BAND)
BY_PREFIX = target(scope="account", symbol=None, client_prefix="mm_", age_band_ms=BAND)


def shown(order_id: int = 1, **more: Any) -> dict[str, Any]:
    return row(str(order_id), **{"status": "PENDING", "time": OLD, **more})


def page(*rows: Any, intent: Target = LISTING) -> Reply:
    (reply,) = decode("sweep-list", listed(*rows), intent)
    return reply


def test_orders_of_one_pair_are_cancelled_together_however_the_list_mixes_them() -> None:
    """A call of BingX' is about one pair, and two a second are allowed."""
    mixed = [shown(n, symbol=("BTC-USDT", "ETH-USDT")[n % 2]) for n in range(1, 9)]
    newer = shown(9, time=NEW)
    reply = page(*mixed, newer)
    assert [row["symbol"] for row in reply.notes["sweep"]["todo"]] == ["BTC-USDT"] * 4 + ["ETH-USDT"] * 4


def test_an_empty_list_is_read_to_its_end() -> None:
    reply = page()
    assert (reply.word, reply.notes["sweep"]["end"], reply.notes["sweep"].get("open", 0)) == (Word.LISTED, True, 0)


@pytest.mark.parametrize("data", [None, "", 0, [], {}, {"orders": None}, {"orders": "[]"}, {"order": []}, shown()])
def test_an_answer_without_a_list_is_no_empty_list(data: Any) -> None:
    """An empty list ends the intent as cancelled, so it is only believed from a list."""
    (reply,) = decode("sweep-list", answer(data), LISTING)
    assert reply.word is Word.UNCLEAR


ODD: dict[str, Any] = {
    "null": None,
    "text": "x",
    "list": [shown()],
    "empty": {},
    "no id": shown(orderId=None),
    "an id that is a float": shown(orderId=float(ORDER_ID)),
    "no pair": shown(symbol=None),
    "an empty pair": shown(symbol=""),
    "a pair of another venue": shown(symbol="BTCUSDT"),
    "two pairs": shown(symbol="BTC-USDT,ETH-USDT"),
    "no type": shown(type=None),
    "a type that is none": shown(type=7.5, symbol=3),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
@pytest.mark.parametrize("intent", [LISTING, OF_A_PAIR, BY_PREFIX])
def test_a_row_that_cannot_be_read_spoils_the_list(odd: Any, intent: Target) -> None:
    """It is an open order, and nobody can tell which: neither skipped nor cancelled."""
    for rows in ([odd], [shown(2), odd], [odd, shown(2)]):
        assert page(*rows, intent=intent).word is Word.UNCLEAR


def test_a_pair_of_unusual_letters_does_not_hide_the_others() -> None:
    """A kill switch must not fail because of one coin's name."""
    book = Book()
    book.add(1)
    book.add(2, symbol="\u5e01\u5b89-USDT")
    book.add(3, kind="stop")
    end, _ = sweep(ACCOUNT, book)
    assert (end.status, book.left) == (Status.cancelled, {3})
    assert {params["symbol"] for params in book.named("cancelOrders")} == {PAIR, "\u5e01\u5b89-USDT"}


def test_a_row_of_another_pair_than_was_asked_for_spoils_the_list() -> None:
    assert page(shown(1), shown(2, symbol="ETH-USDT"), intent=OF_A_PAIR).word is Word.UNCLEAR
    assert page(shown(1), shown(2, symbol="ETH-USDT")).word is Word.LISTED


def test_a_list_without_client_ids_cannot_tell_a_prefix() -> None:
    """The tables of the list's fields lack it. Skipped, such a row would end the intent as cancelled."""
    mute = shown(clientOrderID=None)
    assert page(mute, intent=BY_PREFIX).word is Word.UNCLEAR
    assert page(mute).word is Word.LISTED
    assert page(shown(clientOrderID=""), intent=BY_PREFIX).word is Word.LISTED, "an order without a client id"


def test_an_order_listed_twice_is_one_order_and_two_that_differ_are_none() -> None:
    todo = page(shown(1), shown(1), shown(2), shown(3, type="TRIGGER_LIMIT")).notes["sweep"]["todo"]
    assert [item["id"] for item in todo] == ["1", "2"]
    assert page(shown(1), shown(1, symbol="ETH-USDT")).word is Word.UNCLEAR
    assert page(shown(1), shown(1, type="TRIGGER_LIMIT")).word is Word.UNCLEAR


@pytest.mark.parametrize("status", ["CANCELED", "CANCELLED", "FILLED", "FAILED"])
def test_an_open_list_that_still_shows_an_ended_order_is_not_cancelled_again(status: str) -> None:
    progress = page(shown(1, status=status), shown(2)).notes["sweep"]
    assert ([item["id"] for item in progress["todo"]], progress["open"]) == (["2"], 1)


@pytest.mark.parametrize("status", ["PENDING", "NEW", "PARTIALLY_FILLED", "SOMETHING", ""])
def test_whatever_else_the_open_list_shows_is_open(status: str) -> None:
    progress = page(shown(1, status=status)).notes["sweep"]
    assert ([item["id"] for item in progress["todo"]], progress["open"]) == (["1"], 1)


@pytest.mark.parametrize(
    ("kind", "scope"),
    [
        ("LIMIT", "order"),
        ("MARKET", "order"),
        ("TAKE_STOP_LIMIT", "tpsl"),
        ("TAKE_STOP_MARKET", "tpsl"),
        ("TRIGGER_LIMIT", "stop"),
        ("TRIGGER_MARKET", "stop"),
    ],
)
def test_a_rows_type_tells_its_kind(kind: str, scope: str) -> None:
    for wanted in ("order", "tpsl", "stop"):
        intent = target(scope="account", symbol=None, kinds=wanted, age_band_ms=BAND)
        assert page(shown(1, type=kind), intent=intent).notes["sweep"].get("open", 0) == (wanted == scope)


@pytest.mark.parametrize("created", ["", None, "yesterday", -1, "²", "1e12", 1.5, True, "9" * 50])
def test_an_order_without_a_readable_time_is_not_cancelled(created: Any) -> None:
    progress = page({**shown(1), "time": created}).notes["sweep"]
    assert (progress["todo"], progress["open"], progress["unsure"]) == ([], 1, 1)


@pytest.mark.parametrize(
    ("created_ms", "age"),
    [
        (ASKED_MS - 6, "older"),
        (ASKED_MS - 5, "unsure"),
        (ASKED_MS + 5, "unsure"),
        (ASKED_MS + 6, "newer"),
    ],
)
def test_the_band_of_doubt_is_kept_clear(created_ms: int, age: str) -> None:
    progress = page(shown(1, time=created_ms)).notes["sweep"]
    assert len(progress["todo"]) == (age == "older")
    assert progress.get("open", 0) == (age != "newer")


def test_the_open_list_that_cannot_be_read_ends_the_intent_unresolved() -> None:
    book = Book(closed={"openOrders"})
    book.add(1)
    end, _ = sweep(SYMBOL, book)
    assert (end.status, book.left, book.cancelled) == (Status.unresolved, {1}, [])
