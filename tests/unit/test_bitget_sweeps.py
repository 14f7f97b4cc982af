"""Scopes symbol and account: a bulk call at most, then the open lists, until nothing older than the intent is open."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qsl

import orjson
import pytest

from cancelq.contract import Status
from cancelq_worker.rulings import Finish
from cancelq_worker.venues.bitget.looks import PAGE
from cancelq_worker.venues.port import Answer, Reply, Request, Target, Word
from tests.unit.bitget_account import BITGET, answer, decode, target
from tests.unit.journey import UTC_US, Journey, by_venue

ASKED_MS = UTC_US // 1000
OLD, NEW = ASKED_MS - 60_000, ASKED_MS + 60_000
FOR_EVER = 3_000


@dataclass
class Book:
    """The open orders of one account, and a venue that lists and cancels them. `deaf`: ids it never cancels."""

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    deaf: set[str] = field(default_factory=set)
    bulk_works: bool = True
    small_letters: bool = False
    refused: list[str] = field(default_factory=list)  # codes of the next cancels by ids
    cancelled: list[str] = field(default_factory=list)
    bulk_calls: int = 0
    pages: int = 0

    def add(self, *ids: int, kind: str = "order", symbol: str = "BTCUSDT", at_ms: int = OLD, client: str = "") -> None:
        for n in ids:
            self.rows[str(n)] = {
                "orderId": str(n), "symbol": symbol, "clientOid": client, "cTime": str(at_ms), "kind": kind,
            }  # fmt: skip

    @property
    def open(self) -> set[int]:
        return {int(order_id) for order_id in self.rows}

    def __call__(self, request: Request) -> Answer:
        name = request.path.rpartition("/")[2]
        if request.method == "GET":
            return self._page(name, dict(parse_qsl(request.query)))
        body = orjson.loads(request.body)
        if name == "cancel-symbol-order":
            return self._bulk(body["symbol"])
        if self.refused:
            return answer(None, code=self.refused.pop())
        if name == "batch-cancel-order":
            return self._batch([item["orderId"] for item in body["orderList"]])
        self._cancel(body["orderId"])
        return answer({"result": "success"} if "plan" in name else {"orderId": body["orderId"], "clientOid": ""})

    def _page(self, name: str, params: dict[str, str]) -> Answer:
        self.pages += 1
        kind = "stop" if name == "current-plan-order" else params.get("tpslType", "order")
        found = [
            row
            for row in self.rows.values()
            if row["kind"] == kind
            and params.get("symbol") in (None, row["symbol"])
            and int(row["orderId"]) < int(params.get("idLessThan", "9" * 20))
        ]
        found.sort(key=lambda row: -int(row["orderId"]))
        page = found[: int(params["limit"])]
        if self.small_letters:
            page = [{**row, "symbol": row["symbol"].lower()} for row in page]
        if kind == "stop":
            return answer({"nextFlag": len(found) > len(page), "orderList": page})
        return answer(page)

    def _bulk(self, symbol: str) -> Answer:
        self.bulk_calls += 1
        for order_id, row in list(self.rows.items()):
            if row["symbol"] == symbol and row["kind"] == "order" and self.bulk_works:
                self._cancel(order_id)
        return answer({"symbol": symbol})

    def _batch(self, ids: list[str]) -> Answer:
        assert 1 <= len(ids) <= 50
        for order_id in ids:
            self._cancel(order_id)
        return answer({"successList": [{"orderId": i, "clientOid": ""} for i in ids], "failureList": []})

    def _cancel(self, order_id: str) -> None:
        self.cancelled.append(order_id)
        if order_id not in self.deaf:
            self.rows.pop(order_id, None)


def sweep(intent: Target, book: Book, *, rtt_us: int = 20_000, wait_us: int = 0) -> tuple[Finish, Journey]:
    journey = Journey(intent, rtt_us=rtt_us, wait_us=wait_us)
    return journey.run(by_venue(book), most=FOR_EVER), journey


SYMBOL, ACCOUNT = target(scope="symbol"), target(scope="account", symbol=None)


def test_a_symbol_is_emptied_by_one_bulk_call_and_then_looked_at() -> None:
    book = Book()
    book.add(*range(1, 8))
    book.add(20, symbol="ETHUSDT")
    end, journey = sweep(SYMBOL, book)
    assert (end.status, end.open_orders, book.open) == (Status.cancelled, 0, {20})
    assert book.bulk_calls == 1
    # Listed again a second later: an open list that lags would hide an order placed just before.
    assert [c.route.name for c in journey.calls] == ["cancel-symbol-order", "sweep-list-order", "sweep-list-order"]
    assert journey.calls[-1].sent_us - journey.calls[0].sent_us >= 1_000_000


def test_what_the_bulk_call_left_open_is_cancelled_by_id_and_never_in_bulk_again() -> None:
    book = Book(bulk_works=False)
    book.add(*range(1, 120))
    end, _ = sweep(SYMBOL, book)
    assert (end.status, book.open, book.bulk_calls) == (Status.cancelled, set(), 1)


@pytest.mark.parametrize("orders", [1, 7])
def test_a_cancel_by_ids_that_is_refused_does_not_end_the_sweep(orders: int) -> None:
    book = Book(bulk_works=False, refused=["40404"])
    book.add(*range(1, orders + 1))
    end, _ = sweep(SYMBOL, book)
    assert (book.refused, end.status, end.open_orders, book.open) == ([], Status.cancelled, 0, set())


@pytest.mark.parametrize("wish", [SYMBOL, ACCOUNT])
def test_pairs_in_small_letters_are_the_same_pairs(wish: Target) -> None:
    book = Book(bulk_works=False, small_letters=True)
    book.add(*range(1, 8))
    end, _ = sweep(wish, book)
    assert (end.status, end.open_orders, book.open) == (Status.cancelled, 0, set())


def test_an_account_is_a_sweep_from_the_start() -> None:
    book = Book()
    book.add(*range(1, 70))
    book.add(*range(100, 170), symbol="ETHUSDT")
    end, _ = sweep(ACCOUNT, book)
    assert (end.status, end.open_orders, book.open, book.bulk_calls) == (Status.cancelled, 0, set(), 0)


@pytest.mark.parametrize("wait_us", [0, 2_000_000])
@pytest.mark.parametrize("kinds", ["order", "tpsl", "stop", "order,tpsl", "order,tpsl,stop"])
def test_every_kind_that_was_asked_for_is_cancelled_and_no_other(kinds: str, wait_us: int) -> None:
    book = Book()
    for n, kind in enumerate(("order", "tpsl", "stop")):
        book.add(*range(1000 * n + 1, 1000 * n + 4), kind=kind)
    wanted = kinds.split(",")
    end, _ = sweep(target(scope="account", symbol=None, kinds=kinds), book, wait_us=wait_us)
    assert end.status is Status.cancelled
    assert {row["kind"] for row in book.rows.values()} == {"order", "tpsl", "stop"} - set(wanted)
    assert len(book.cancelled) == 3 * len(wanted), "each order once"


@pytest.mark.parametrize("rtt_us", [1_000, 300_000])
@pytest.mark.parametrize("wait_us", [0, 2_000_000])
def test_an_order_that_cannot_be_cancelled_is_told_with_the_number_left_open(rtt_us: int, wait_us: int) -> None:
    """Also where scarce permits put more time between a cancel and the next list than the gap that spares an order
    a second cancel."""
    book = Book(deaf={"2", "3"})
    book.add(*range(1, 6))
    end, journey = sweep(ACCOUNT, book, rtt_us=rtt_us, wait_us=wait_us)
    assert (end.status, end.open_orders, book.open) == (Status.unresolved, 2, {2, 3})
    assert len(journey.cancels()) < 30


def test_an_order_is_not_cancelled_twice_within_the_gap() -> None:
    book = Book(deaf={"2"})
    book.add(1, 2)
    journey = Journey(ACCOUNT)
    journey.run(by_venue(book), most=FOR_EVER)
    cancels = journey.cancels()
    assert len(cancels) > 2
    for first, second in pairwise(cancels):
        assert second.sent_us - first.back_us >= BITGET.timing.gap_us


def test_a_long_book_is_read_to_its_end() -> None:
    book = Book()
    book.add(*range(1, 351))
    end, _ = sweep(ACCOUNT, book)
    assert (end.status, book.open) == (Status.cancelled, set())
    assert sorted(map(int, book.cancelled)) == list(range(1, 351)), "each order once"


def test_a_kill_of_a_thousand_orders_needs_few_calls() -> None:
    """20 cancels at 10/s are two seconds; lists are limited to 20/s, so they must not cost more than that."""
    book = Book()
    book.add(*range(1, 1001))
    end, journey = sweep(ACCOUNT, book)
    assert (end.status, book.open) == (Status.cancelled, set())
    assert len(journey.cancels()) == 20
    assert len(journey.looks()) <= 30


def test_exactly_full_pages_are_followed_by_one_more() -> None:
    book = Book()
    book.add(*range(1, PAGE + 1), symbol="ETHUSDT", at_ms=NEW)
    end, _ = sweep(ACCOUNT, book)
    assert (end.status, book.pages) == (Status.cancelled, 2 * 2), "two passes of two pages"


# -- which orders are meant ----------------------------------------------------------------------------------


def test_orders_newer_than_the_intent_are_left_alone() -> None:
    book = Book()
    book.add(1, 2, at_ms=OLD)
    book.add(3, 4, at_ms=NEW)
    end, _ = sweep(ACCOUNT, book)
    assert (end.status, end.open_orders, book.open) == (Status.cancelled, 0, {3, 4})


def test_an_order_whose_age_nobody_can_tell_is_never_cancelled_and_keeps_the_intent_open() -> None:
    book = Book()
    book.add(1, at_ms=OLD)
    book.add(2, at_ms=ASKED_MS)
    end, _ = sweep(ACCOUNT, book)
    assert (end.status, end.open_orders, book.open) == (Status.unresolved, 1, {2})
    assert "nobody can tell" in end.detail
    assert "2" not in book.cancelled


@pytest.mark.parametrize(
    ("created_ms", "age"),
    [
        (ASKED_MS - 6, "older"),
        (ASKED_MS - 5, "close"),
        (ASKED_MS, "close"),
        (ASKED_MS + 5, "close"),
        (ASKED_MS + 6, "newer"),
    ],
)
def test_the_band_of_doubt_is_kept_clear(created_ms: int, age: str) -> None:
    reply = page([row(1, cTime=str(created_ms))], target(scope="account", symbol=None, age_band_ms=BAND))
    progress = reply.notes["sweep"]
    assert len(progress["todo"]) == (age == "older")
    assert progress.get("open", 0) == (age != "newer")
    assert progress.get("unsure", 0) == progress.get("close", 0) == (age == "close")
    assert progress.get("doubt") == (6 if age == "close" else None)


def test_as_long_as_the_venue_has_not_told_its_time_no_order_is_old_new_or_close() -> None:
    rows = [row(1, cTime="1"), row(2, cTime=str(ASKED_MS)), row(3, cTime=str(ASKED_MS + 3_600_000))]
    unbound = target(scope="account", symbol=None, age_band_ms=None)
    for intent in (unbound, target(scope="account", symbol=None, age_band_ms=None, older_than_ms=str(ASKED_MS))):
        progress = page(rows, intent).notes["sweep"]
        assert (progress["todo"], progress["open"], progress["unsure"]) == ([], 3, 3)
        assert not progress.get("newer")
        assert not progress.get("close"), "to read its time may tell of each"


@pytest.mark.parametrize("created", ["", None, "yesterday", "-1", "²", "1e12", "9" * 5000])
def test_an_order_without_a_readable_time_is_not_cancelled(created: Any) -> None:
    reply = page([row(1, cTime=created)], target(scope="account", symbol=None, age_band_ms=BAND))
    if reply.word is Word.LISTED:
        assert reply.notes["sweep"]["todo"] == []
        assert reply.notes["sweep"]["open"] == 1


def test_a_time_in_seconds_is_not_taken_for_milliseconds() -> None:
    """In milliseconds it would lie in 1970: older than everything."""
    for created_s, cancelled in ((ASKED_MS // 1000 + 60, 0), (ASKED_MS // 1000 - 60, 1)):
        reply = page([row(1, cTime=str(created_s))], target(scope="account", symbol=None, age_band_ms=BAND))
        assert len(reply.notes["sweep"]["todo"]) == cancelled


def test_only_orders_created_before_the_given_time() -> None:
    book = Book()
    book.add(1, at_ms=OLD - 1)
    book.add(2, at_ms=OLD)
    end, _ = sweep(target(scope="symbol", older_than_ms=str(OLD)), book)
    assert (end.status, book.open, book.bulk_calls) == (Status.cancelled, {2}, 0)


def test_a_time_to_come_means_no_order_that_is_newer_than_the_intent() -> None:
    book = Book()
    book.add(1, at_ms=OLD)
    book.add(2, at_ms=NEW)
    end, _ = sweep(target(scope="symbol", older_than_ms=str(NEW + 60_000)), book)
    assert (end.status, book.open, book.bulk_calls) == (Status.cancelled, {2}, 0)


def test_only_orders_whose_client_id_begins_so() -> None:
    book = Book()
    book.add(1, client="mm-1")
    book.add(2, client="xmm-1")
    book.add(3)
    end, _ = sweep(target(scope="symbol", client_prefix="mm-"), book)
    assert (end.status, book.open, book.bulk_calls) == (Status.cancelled, {2, 3}, 0)


def test_only_the_symbol_that_was_asked_for() -> None:
    """Also if the venue lists others: the filter may have been overlooked."""
    intent = target(scope="symbol", older_than_ms=str(NEW), age_band_ms=BAND)
    reply = page([row(1), row(2, symbol="ETHUSDT")], intent)
    assert [r["id"] for r in reply.notes["sweep"]["todo"]] == ["1"]


def test_what_may_not_be_cancelled_now_is_counted() -> None:
    reply = page([row(1), row(2)], target(scope="account", symbol=None, age_band_ms=BAND, may_cancel=False))
    assert (reply.notes["sweep"]["todo"], reply.notes["sweep"]["open"]) == ([], 2)


def test_after_a_pass_that_was_over_the_next_one_counts_anew() -> None:
    """Its worker may have ended before it read the last page's answer."""
    over = {"k": 1, "at": "", "end": True, "open": 3, "newer": 2, "unsure": 1, "pairs": {"BTCUSDT": 3}}
    reply = page([row(1)], target(scope="account", symbol=None, age_band_ms=BAND, notes={"sweep": over}))
    now = reply.notes["sweep"]
    assert (now["open"], now.get("newer", 0), now.get("unsure", 0), now["pairs"]) == (1, 0, 0, {"BTCUSDT": 1})


# -- what a page proves --------------------------------------------------------------------------------------

BAND = (ASKED_MS - 5, ASKED_MS + 6)
LISTING = target(scope="account", symbol=None, age_band_ms=BAND)


def row(order_id: int, **more: Any) -> dict[str, Any]:
    return {"orderId": str(order_id), "symbol": "BTCUSDT", "clientOid": "", "cTime": str(OLD), **more}


def page(rows: Any, intent: Target = LISTING, route: str = "sweep-list-order") -> Reply:
    (reply,) = decode(route, answer(rows), intent)
    return reply


def test_an_empty_list_is_read_to_its_end() -> None:
    reply = page([])
    assert (reply.word, reply.notes["sweep"]["end"], reply.notes["sweep"].get("open", 0)) == (Word.LISTED, True, 0)


def test_an_empty_page_that_says_there_is_more_is_not_the_end() -> None:
    """It would end the intent as cancelled with stop orders open."""
    intent = target(scope="account", symbol=None, kinds="stop", age_band_ms=BAND)
    assert page({"nextFlag": True, "orderList": []}, intent, "sweep-list-stop").word is Word.UNCLEAR


@pytest.mark.parametrize(
    "data",
    [None, "", 0, {}, {"entrustedList": []}, {"orderList": "[]"}, {"data": []}, row(1)],
    ids=lambda data: repr(data)[:24],
)
@pytest.mark.parametrize("route", ["sweep-list-order", "sweep-list-tpsl", "sweep-list-stop"])
def test_an_answer_without_a_list_is_no_empty_list(route: str, data: Any) -> None:
    """An empty list ends the intent as cancelled, so it is only believed from a list."""
    assert page(data, route=route).word is Word.UNCLEAR


@pytest.mark.parametrize(
    "odd",
    [None, "x", 1, [], [row(1)], {}, {"orderId": "", "symbol": "BTCUSDT"}, {"symbol": "BTCUSDT"}, row(1, orderId="²")],
)
def test_a_row_that_cannot_be_read_spoils_its_page(odd: Any) -> None:
    """It is an open order, and nobody can tell which."""
    assert page([odd]).word is Word.UNCLEAR
    assert page([row(2), odd]).word is Word.UNCLEAR


@pytest.mark.parametrize("symbol", ["", None])
@pytest.mark.parametrize("intent", [LISTING, target(scope="symbol", kinds="tpsl", age_band_ms=BAND)])
def test_a_row_without_a_symbol_is_neither_skipped_nor_cancelled_without_one(intent: Target, symbol: Any) -> None:
    reply = page([row(1, symbol=symbol)], intent, "sweep-list-tpsl")
    if reply.word is Word.LISTED:
        progress = reply.notes["sweep"]
        assert progress["open"] == 1
        assert all(item["symbol"] for item in progress["todo"])
    else:
        assert reply.word is Word.UNCLEAR


def test_a_page_that_ignores_its_cursor_is_no_page() -> None:
    """It would be listed for ever, or taken for the rest of the list."""
    below = target(scope="account", symbol=None, age_band_ms=BAND, notes={"sweep": {"at": "500", "open": 3}})
    listed = page([row(n) for n in range(499, 399, -1)], below)
    assert (listed.word, listed.notes["sweep"]["at"]) == (Word.LISTED, "400")
    for rows in ([row(500)], [row(700), row(450)], [row(n) for n in range(700, 600, -1)]):
        assert page(rows, below).word is Word.UNCLEAR


def test_a_list_that_never_ends_ends_the_intent_unresolved() -> None:
    def venue(request: Request) -> Answer:
        return answer([row(n, cTime=str(NEW)) for n in range(900, 800, -1)])

    journey = Journey(ACCOUNT)
    end = journey.run(by_venue(venue), most=FOR_EVER)
    assert end.status is Status.unresolved


def test_the_open_lists_that_cannot_be_read_end_the_intent_unresolved() -> None:
    end, _ = sweep(SYMBOL, Book())
    assert end.status is Status.cancelled

    def venue(request: Request) -> Answer:
        return answer(code="40725", status=400) if request.method == "GET" else answer({"symbol": "BTCUSDT"})

    end = Journey(SYMBOL).run(by_venue(venue), most=FOR_EVER)
    assert (end.status, end.open_orders) == (Status.unresolved, None)


def test_an_unclear_bulk_call_is_not_repeated() -> None:
    book = Book(bulk_works=False)
    book.add(1, 2)

    def venue(request: Request) -> Answer:
        said = book(request)
        return answer(code="40010", status=400) if request.path.endswith("cancel-symbol-order") else said

    end = Journey(SYMBOL).run(by_venue(venue), most=FOR_EVER)
    assert (end.status, book.bulk_calls, book.open) == (Status.cancelled, 1, set())
