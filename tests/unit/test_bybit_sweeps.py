"""Scopes symbol and account at Bybit: one bulk call, then the open lists of each kind, until nothing older is open."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qsl

import orjson
import pytest

from cancelq.contract import Status
from cancelq_worker.rulings import Finish
from cancelq_worker.venues.bybit.adapter import Bybit
from cancelq_worker.venues.bybit.sweeps import PAGE, PAGES_MOST
from cancelq_worker.venues.port import Answer, Reply, Request, Target, Word
from tests.unit.bitget_account import target
from tests.unit.bybit_account import BYBIT, ROUTES, account, answer, batch, decode, encode, listed, row
from tests.unit.journey import UTC_US, Journey, by_venue

ASKED_MS = UTC_US // 1000
OLD, NEW = ASKED_MS - 60_000, ASKED_MS + 60_000
FOR_EVER = 3_000

FILTERS = {"Order": "order", "tpslOrder": "tpsl", "StopOrder": "stop"}
TYPES = {"order": ("New", ""), "tpsl": ("Untriggered", "tpslOrder"), "stop": ("Untriggered", "Stop")}


@dataclass
class Book:
    """The open orders of one account, and a venue that lists and cancels them. `deaf`: ids it never cancels;
    `filters`: whether it obeys `orderFilter`; `last_cursor`: whether its last page has a cursor too."""

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    deaf: set[str] = field(default_factory=set)
    bulk_works: bool = True
    filters: bool = True
    last_cursor: bool = True
    cancelled: list[str] = field(default_factory=list)
    bulk_calls: list[dict[str, str]] = field(default_factory=list)
    pages: int = 0

    def add(self, *ids: int, kind: str = "order", symbol: str = "BTCUSDT", at_ms: int = OLD, client: str = "") -> None:
        status, stop_type = TYPES[kind]
        for n in ids:
            self.kinds[str(n)] = kind
            self.rows[str(n)] = row(
                str(n), status, symbol=symbol, orderLinkId=client, createdTime=str(at_ms), stopOrderType=stop_type
            )

    @property
    def open(self) -> set[int]:
        return {int(order_id) for order_id in self.rows}

    def __call__(self, request: Request) -> Answer:
        if request.method == "GET":
            return self._page(dict(parse_qsl(request.query)))
        body = orjson.loads(request.body)
        name = request.path.rpartition("/")[2]
        if name == "cancel-all":
            return self._bulk(body)
        if name == "cancel-batch":
            assert 1 <= len(body["request"]) <= 10
            codes = [self._cancel("order", **item) for item in body["request"]]
            return batch([{"orderId": ""}] * len(codes), [{"code": code, "msg": ""} for code in codes])
        kind = FILTERS[body.get("orderFilter", "Order")]
        return answer({"orderId": body["orderId"]}, code=self._cancel(kind, body["symbol"], body["orderId"]))

    def _page(self, params: dict[str, str]) -> Answer:
        self.pages += 1
        assert params["openOnly"] == "0"
        kind = FILTERS[params["orderFilter"]]
        below = int(params.get("cursor", f"x:{'9' * 20}").split(":")[1])
        found = [
            r
            for order_id, r in sorted(self.rows.items(), key=lambda one: -int(one[0]))
            if (self.kinds[order_id] == kind or not self.filters)
            and params.get("symbol") in (None, r["symbol"])
            and int(order_id) < below
        ]
        page = found[: int(params["limit"])]
        goes_on = page and (self.last_cursor or len(found) > len(page))
        return listed(*page, cursor=f"x%3A{page[-1]['orderId']}" if goes_on else "")

    def _bulk(self, body: dict[str, str]) -> Answer:
        self.bulk_calls.append(body)
        for order_id, r in list(self.rows.items()):
            meant = self.kinds[order_id] == FILTERS[body.get("orderFilter", "Order")]
            if meant and body.get("symbol") in (None, r["symbol"]) and self.bulk_works:
                self._cancel(self.kinds[order_id], r["symbol"], order_id)
        return answer({"list": [], "success": "1"})

    def _cancel(self, kind: str, symbol: str, orderId: str) -> int:
        if orderId not in self.rows or self.kinds[orderId] != kind or self.rows[orderId]["symbol"] != symbol:
            return 170213
        self.cancelled.append(orderId)
        if orderId not in self.deaf:
            del self.rows[orderId]
        return 0


def sweep(
    intent: Target, book: Book, *, venue: Bybit = BYBIT, rtt_us: int = 20_000, wait_us: int = 0
) -> tuple[Finish, Journey]:
    journey = Journey(intent, venue=venue, rtt_us=rtt_us, wait_us=wait_us)
    return journey.run(by_venue(book, venue), most=FOR_EVER), journey


SYMBOL, ACCOUNT = target(scope="symbol"), target(scope="account", symbol=None)
MINE = target(scope="account", symbol=None, client_prefix="mm")


def test_a_symbol_is_emptied_by_one_bulk_call_and_then_looked_at() -> None:
    book = Book()
    book.add(*range(1, 8))
    book.add(20, symbol="ETHUSDT")
    book.add(30, kind="tpsl")
    end, journey = sweep(SYMBOL, book)
    assert (end.status, end.open_orders, book.open) == (Status.cancelled, 0, {20, 30})
    assert book.bulk_calls == [{"category": "spot", "symbol": "BTCUSDT"}]
    assert [c.route.name for c in journey.calls] == ["cancel-all", "sweep-list-order", "sweep-list-order"]
    assert journey.calls[-1].sent_us - journey.calls[0].sent_us >= 1_000_000


def test_an_account_goes_in_one_bulk_call_of_all_pairs() -> None:
    book = Book()
    book.add(*range(1, 70))
    book.add(*range(100, 170), symbol="ETHUSDT")
    end, _ = sweep(ACCOUNT, book)
    assert (end.status, end.open_orders, book.open) == (Status.cancelled, 0, set())
    assert book.bulk_calls == [{"category": "spot"}]


@pytest.mark.parametrize("venue", [BYBIT, account(singly=True)], ids=["batches", "singly"])
def test_what_the_bulk_call_left_open_is_cancelled_by_id_and_never_in_bulk_again(venue: Bybit) -> None:
    book = Book(bulk_works=False)
    book.add(*range(1, 60))
    end, journey = sweep(SYMBOL, book, venue=venue)
    assert (end.status, book.open, len(book.bulk_calls)) == (Status.cancelled, set(), 1)
    assert len(journey.cancels()) == 1 + (6 if venue is BYBIT else 59)


@pytest.mark.parametrize("filters", [True, False])
@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("kinds", ["order", "tpsl", "stop", "order,tpsl", "stop,tpsl", "stop,order,tpsl"])
def test_every_kind_that_was_asked_for_is_cancelled_and_no_other(kinds: str, narrow: bool, filters: bool) -> None:
    """Also at a venue that shows every kind whatever was asked for: the row itself tells."""
    book = Book(filters=filters)
    for n, kind in enumerate(TYPES):
        book.add(*range(1000 * n + 1, 1000 * n + 4), kind=kind, client="mm-1")
    wanted = kinds.split(",")
    narrowed: dict[str, Any] = {"client_prefix": "mm"} if narrow else {}
    end, _ = sweep(target(scope="account", symbol=None, kinds=kinds, **narrowed), book)
    assert end.status is Status.cancelled
    assert {book.kinds[str(i)] for i in book.open} == set(TYPES) - set(wanted)
    assert len(book.cancelled) == 3 * len(wanted), "each order once"
    assert len(book.bulk_calls) == (0 if narrow else 1)


def test_an_order_that_cannot_be_cancelled_is_told_with_the_number_left_open() -> None:
    book = Book(deaf={"2", "3"})
    book.add(*range(1, 6), client="mm-1")
    end, journey = sweep(MINE, book)
    assert (end.status, end.open_orders, book.open) == (Status.unresolved, 2, {2, 3})
    cancels = journey.cancels()
    assert 2 < len(cancels) < 30
    for first, second in pairwise(cancels):
        assert second.sent_us - first.back_us >= BYBIT.timing.gap_us


@pytest.mark.parametrize("last_cursor", [True, False])
def test_a_long_book_is_read_to_its_end(last_cursor: bool) -> None:
    book = Book(last_cursor=last_cursor)
    book.add(*range(1, 351), client="mm-1")
    book.add(*range(400, 480), client="hand-1")
    end, journey = sweep(MINE, book)
    assert (end.status, book.open) == (Status.cancelled, set(range(400, 480)))
    assert sorted(map(int, book.cancelled)) == list(range(1, 351)), "each order once"
    assert len(journey.cancels()) <= 44


def test_which_orders_are_meant() -> None:
    book = Book()
    book.add(1, 2, client="mm-1")
    book.add(3, client="hand-1")
    book.add(4, client="mm-2", at_ms=NEW)
    end, _ = sweep(MINE, book)
    assert (end.status, book.open) == (Status.cancelled, {3, 4})
    book.add(5, at_ms=ASKED_MS - 90_000)
    end, _ = sweep(target(scope="symbol", older_than_ms=str(ASKED_MS - 61_000)), book)
    assert (end.status, book.open) == (Status.cancelled, {3, 4})


# -- what a page says ----------------------------------------------------------------------------------------


def page(said: Answer, route: str = "sweep-list-order", **more: Any) -> Reply:
    fields = {"scope": "account", "symbol": None, "kinds": "order,tpsl,stop", **more}
    (reply,) = decode(route, said, target(age_band_ms=(ASKED_MS, ASKED_MS + 1), **fields))
    return reply


UNREADABLE = {
    "no id": row("", createdTime=str(OLD)),
    "an impossible id": row("1 2"),
    "no symbol": row(symbol=""),
    "a symbol that is none": row(symbol="BTC,USDT"),
    "a symbol of another kind": row(symbol=["BTCUSDT"]),
    "an unknown state": row(status="Waiting"),
    "no state": row(status=None),
    "no row": None,
}


@pytest.mark.parametrize("odd", UNREADABLE.values(), ids=UNREADABLE)
def test_a_row_that_cannot_be_read_is_neither_skipped_nor_cancelled(odd: Any) -> None:
    for rows in ([row("1"), odd], [odd]):
        assert page(listed(*rows)).word is Word.UNCLEAR


def test_a_waiting_order_of_an_unknown_type_is_unclear_on_the_lists_it_may_belong_to() -> None:
    odd = row("1", "Untriggered", stopOrderType="TrailingStop")
    assert page(listed(odd), "sweep-list-tpsl").word is page(listed(odd), "sweep-list-stop").word is Word.UNCLEAR
    assert page(listed(odd), "sweep-list-order").word is Word.LISTED, "surely no normal order"


@pytest.mark.parametrize(
    ("listed_as", "status", "stop_type", "kind"),
    [
        ("order", "New", "", "order"),
        ("order", "PartiallyFilled", "UNKNOWN", "order"),
        ("order", "New", "tpslOrder", "order"),
        ("order", "Untriggered", "tpslOrder", None),
        ("order", "Untriggered", "", None),
        ("order", "Filled", "", None),
        ("order", "Cancelled", "", None),
        ("tpsl", "Untriggered", "tpslOrder", "tpsl"),
        ("tpsl", "Untriggered", "", "tpsl"),
        ("tpsl", "Untriggered", "Stop", None),
        ("tpsl", "Untriggered", "OcoOrder", None),
        ("tpsl", "New", "", None),
        ("tpsl", "New", "tpslOrder", "order"),
        ("tpsl", "Deactivated", "tpslOrder", None),
        ("stop", "Untriggered", "Stop", "stop"),
        ("stop", "Untriggered", "UNKNOWN", "stop"),
        ("stop", "Untriggered", "tpslOrder", None),
        ("stop", "Untriggered", "BidirectionalTpslOrder", None),
        ("stop", "Triggered", "Stop", None),
    ],
)
def test_an_orders_kind_is_what_its_own_row_says(listed_as: str, status: str, stop_type: str, kind: str | None) -> None:
    said = listed(row("7", status, stopOrderType=stop_type, createdTime=str(OLD)))
    reply = page(said, f"sweep-list-{listed_as}")
    assert reply.word is Word.LISTED
    assert [one.get("kind", "order") for one in reply.notes["sweep"]["todo"]] == ([kind] if kind else [])


NO_LIST: list[Any] = [None, [], {}, {"list": None}, {"list": "x"}, {"list": [], "category": "option"}, row()]


@pytest.mark.parametrize("result", NO_LIST)
def test_an_answer_without_a_list_is_no_empty_list(result: Any) -> None:
    for route in ("sweep-list-order", "sweep-list-tpsl", "sweep-list-stop"):
        assert page(answer(result), route).word is Word.UNCLEAR


def test_an_empty_page_ends_a_list_whatever_cursor_it_carries() -> None:
    reply = page(listed(cursor="again"), "sweep-list-stop", kinds="stop", notes={"sweep": {"at": "again"}})
    assert (reply.word, reply.notes["sweep"]["end"]) == (Word.LISTED, True)


def test_a_cursor_that_repeats_itself_is_unclear() -> None:
    assert page(listed(row(), cursor="again"), notes={"sweep": {"at": "again"}}).word is Word.UNCLEAR
    assert page(listed(row(), cursor="x" * 600)).word is Word.UNCLEAR


def test_a_list_that_goes_in_circles_comes_to_an_end() -> None:
    turn = iter(range(10**6))

    def venue(request: Request) -> Answer:
        return listed(row("1", createdTime=str(NEW)), cursor=f"c{next(turn) % 3}")

    journey = Journey(MINE, venue=BYBIT)
    end = journey.run(by_venue(venue, BYBIT), most=PAGES_MOST + 100)
    assert end.status is Status.unresolved
    assert "does not come to an end" in end.detail


def test_an_order_whose_client_id_cannot_be_read_is_nobody_s() -> None:
    """It may be another strategy's: named by its prefix, a sweep neither cancels it nor ends well."""
    said = listed(
        row("1", createdTime=str(OLD), orderLinkId=1.5e17), row("2", createdTime=str(OLD), orderLinkId="mm-1")
    )
    for fields, meant in (({"client_prefix": "mm"}, ["2"]), ({}, ["1", "2"])):
        progress = page(said, **fields).notes["sweep"]
        assert [one["id"] for one in progress["todo"]] == meant
        assert (progress["open"], progress.get("unsure", 0)) == (2, 2 - len(meant))


def test_a_cursor_is_sent_as_it_came() -> None:
    at = "page_args%3Dfd4300ae-7847%26symbol%3D6%26"
    sent = encode("sweep-list-order", target(scope="symbol", notes={"sweep": {"at": at}})).query
    assert sent.endswith(f"&limit={PAGE}&orderFilter=Order&cursor={at}")
    sent = encode("sweep-list-order", target(scope="symbol", notes={"sweep": {"at": "a&b #c"}})).query
    assert sent.endswith("&cursor=a%26b%20%23c"), "never a parameter of its own"


def test_the_pages_of_one_kind_are_asked_for_by_their_filter() -> None:
    for kind, filter_ in (("order", "Order"), ("tpsl", "tpslOrder"), ("stop", "StopOrder")):
        sent = dict(parse_qsl(encode(f"sweep-list-{kind}", ACCOUNT).query))
        assert sent == {"category": "spot", "openOnly": "0", "limit": "50", "orderFilter": filter_}
    assert {r.bucket for n, r in ROUTES.items() if n.startswith("sweep-list")} == {"realtime"}
