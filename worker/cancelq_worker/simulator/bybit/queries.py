"""Bybit's endpoints that only look at orders and fills.

Lists run from the newest order down and go on behind a cursor, which is handed out with every page that holds
anything: the page behind the last one is empty.
"""

import re
from collections.abc import Iterable
from heapq import merge
from itertools import islice
from typing import NamedTuple
from urllib.parse import unquote

from cancelq_worker.simulator.bybit import codes
from cancelq_worker.simulator.bybit.ask import (
    Answer,
    Ask,
    Params,
    check_category,
    ids_of,
    kinds_of,
    limit_of,
    optional_symbol,
    text,
    whole,
)
from cancelq_worker.simulator.bybit.codes import Refusal
from cancelq_worker.simulator.bybit.rows import Rows
from cancelq_worker.simulator.core import DAY_US, Core
from cancelq_worker.simulator.orders import Book, Kind, Order, Trade

PAGE, PAGE_MOST = 20, 50
TRADES_PAGE, TRADES_PAGE_MOST = 50, 100
WEEK_MS = 7 * DAY_US // 1000
# Two times "id:time", of the first and of the last row, as in captured cursors.
CURSOR = re.compile(r"(\d{1,19}):\d{1,16},(\d{1,19}):\d{1,16}")
EVERY_KIND = tuple(Kind)


class _Span(NamedTuple):
    start_ms: int
    end_ms: int


class Queries:
    """One method per endpoint; each returns an `Answer` or raises `Refusal`."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._rows = Rows(core)

    def realtime(self, ask: Ask) -> Answer:
        """Open orders; one order by its id, open or among those that ended lately; or both together (`openOnly=1`)."""
        params, settings = ask.params, self._core.settings
        check_category(params)
        order_id, link_id = ids_of(params)
        kinds = kinds_of(params, EVERY_KIND)
        limit = limit_of(params, PAGE, PAGE_MOST)
        if order_id or link_id:
            lag_us = settings.info_lag_ms * 1000
            order = self._rows.find(ask.book, order_id, link_id)
            entered = order is not None and order.entered_us <= self._core.now_us - lag_us
            here = order is not None and entered and order.kind in kinds and self._remembered(order, ask.book)
            return self._answer([order] if order is not None and here else [], ask.book, lag_us)
        if params.get("settleCoin"):
            raise Refusal(codes.PARAMETER, ": settleCoin is not supported for spot")
        symbol = optional_symbol(params, settings.pairs)
        below = _below(params)
        lists = [self._core.shown_open(ask.book, kind, symbol, below) for kind in kinds]
        open_only = whole(params, "openOnly") or 0
        if open_only not in (0, 1):
            raise Refusal(codes.PARAMETER, ": openOnly")
        if open_only:
            lists.append(iter(self._ended_lately(ask.book, kinds, symbol, below)))
        shown = filter(self._rows.shown, merge(*lists, key=_number, reverse=True))
        return self._answer(islice(shown, limit), ask.book, settings.open_lag_ms * 1000)

    def _remembered(self, order: Order, book: Book) -> bool:
        """Open, or among the orders that ended last and since the last restart."""
        if order.is_open:
            return True
        settings = self._core.settings
        recent = len(book.ended) - order.ended_as <= settings.bybit_recent_closed
        return recent and order.updated_us >= settings.bybit_restarted_ms * 1000

    def _ended_lately(self, book: Book, kinds: tuple[Kind, ...], symbol: str | None, below: int | None) -> list[Order]:
        # An order that ended within the lag of the open list is in that list already.
        seen_us = self._core.now_us - self._core.settings.open_lag_ms * 1000
        kept = self._core.settings.bybit_recent_closed
        orders = [
            order
            for order in (book.ended[-kept:] if kept else [])
            if order.kind in kinds
            and symbol in (None, order.symbol)
            and (below is None or order.number < below)
            and order.settled_us <= seen_us
            and self._remembered(order, book)
        ]
        return sorted(orders, key=_number, reverse=True)

    def history(self, ask: Ask) -> Answer:
        """What has ended, a little late; what ended without a fill only for a day."""
        params, core = ask.params, self._core
        check_category(params)
        order_id, link_id = ids_of(params)
        kinds = kinds_of(params, EVERY_KIND)
        limit = limit_of(params, PAGE, PAGE_MOST)
        if order_id or link_id:
            order = self._rows.find(ask.book, order_id, link_id)
            here = order is not None and order.kind in kinds and self._in_history(order)
            return self._answer([order] if order is not None and here else [], ask.book, 0)
        symbol = optional_symbol(params, core.settings.pairs)
        below = _below(params)
        span = self._span(params)
        word = text(params, "orderStatus")
        lists = [core.shown_closed(ask.book, kind, symbol, below) for kind in kinds]
        shown = (
            order
            for order in merge(*lists, key=_number, reverse=True)
            if self._rows.shown(order)
            and self._kept(order)
            and span.start_ms <= order.created_us // 1000 <= span.end_ms
            and word in ("", self._rows.word(order, order.state, order.filled))
        )
        return self._answer(islice(shown, limit), ask.book, 0)

    def _in_history(self, order: Order) -> bool:
        core = self._core
        if order.is_open or order.settled_us > core.now_us - core.settings.history_lag_ms * 1000:
            return False
        return order.created_us >= core.venue_us() - core.settings.history_days * DAY_US and self._kept(order)

    def _kept(self, order: Order) -> bool:
        age_us = self._core.venue_us() - order.updated_us
        return order.filled != "0" or age_us <= self._core.settings.bybit_cancelled_kept_ms * 1000

    def executions(self, ask: Ask) -> Answer:
        """Fills, newest first. By an order's id all other filters are ignored."""
        params, book = ask.params, ask.book
        check_category(params)
        order_id, link_id = ids_of(params)
        limit = limit_of(params, TRADES_PAGE, TRADES_PAGE_MOST)
        below = _below(params)
        trades: Iterable[Trade] = reversed(book.trades)
        if order_id or link_id:
            order = self._rows.find(book, order_id, link_id)
            trades = (trade for trade in trades if trade.order is order)
        else:
            symbol = optional_symbol(params, self._core.settings.pairs)
            span = self._span(params)
            trades = (
                trade
                for trade in trades
                if symbol in (None, trade.order.symbol) and span.start_ms <= trade.at_us // 1000 <= span.end_ms
            )
        page = list(islice((trade for trade in trades if below is None or trade.number < below), limit))
        cursor = _cursor([(trade.number, trade.at_us) for trade in page])
        rows = [self._rows.trade(trade, book) for trade in page]
        return Answer({"nextPageCursor": cursor, "category": "spot", "list": rows})

    def _span(self, params: Params) -> _Span:
        """Without times the last seven days, with one of them seven days from or to it; never more than seven."""
        start_ms, end_ms = whole(params, "startTime"), whole(params, "endTime")
        if start_ms is None:
            end_ms = self._core.venue_us() // 1000 if end_ms is None else end_ms
            return _Span(end_ms - WEEK_MS, end_ms)
        if end_ms is None:
            return _Span(start_ms, start_ms + WEEK_MS)
        if not 0 <= end_ms - start_ms <= WEEK_MS:
            raise Refusal(codes.PARAMETER, ": The time range between startTime and endTime cannot exceed 7 days")
        return _Span(start_ms, end_ms)

    def _answer(self, orders: Iterable[Order], book: Book, lag_us: int) -> Answer:
        page = list(orders)
        cursor = _cursor([(order.number, order.created_us) for order in page])
        rows = [self._rows.order(order, book, lag_us) for order in page]
        return Answer({"nextPageCursor": cursor, "category": "spot", "list": rows})


def _cursor(page: list[tuple[int, int]]) -> str:
    """As captured: percent-encoded already, so that it can be put into the next query as it is."""
    if not page:
        return ""
    return "%2C".join(f"{number}%3A{at_us // 1000}" for number, at_us in (page[0], page[-1]))


def _below(params: Params) -> int | None:
    """The number of the last row of the page before. A cursor that was encoded once more is read as well."""
    cursor = text(params, "cursor")
    if not cursor:
        return None
    found = CURSOR.fullmatch(unquote(cursor))
    if found is None:
        raise Refusal(codes.PARAMETER, ": cursor")
    return int(found[2])


def _number(order: Order) -> int:
    return order.number
