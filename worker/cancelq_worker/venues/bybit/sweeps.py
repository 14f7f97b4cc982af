"""Scopes `symbol` and `account` at Bybit: cancel-all does in one call what an intent for one kind of orders asks; its
open orders are one list for each kind.

Source: Bybit API documentation v5, "Cancel All Orders" (without a symbol: the whole account; one orderFilter per call,
normal orders without) and "Get Open & Closed Orders" (newest first, at most 50 a page; a cursor is handed out with
every page that holds anything, percent-encoded already).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from cancelq_worker.venues.bybit.looks import KINDS, PLAIN_TYPES, STATES, WAITING, rows_of_list
from cancelq_worker.venues.port import Reply, Route, Stage, Target, Word
from cancelq_worker.venues.reading import epoch_ms, row_id, word
from cancelq_worker.venues.sweeping import ORDER, Manner, OpenOrder, OpenPage, bulk_symbol, kinds, narrowed, progress

PAGE: Final = 50
PAGES_MOST: Final = 200  # a list that goes on for longer goes in circles: an account has 500 open spot orders
CURSOR_MOST: Final = 512
BATCH: Final = "sweep-batch"

ROUTES: Final = (
    Route("sweep-list-order", Stage.LOOK, ("sweep-order",), "realtime"),
    Route("sweep-list-tpsl", Stage.LOOK, ("sweep-tpsl",), "realtime"),
    Route("sweep-list-stop", Stage.LOOK, ("sweep-stop",), "realtime"),
)
NAMES: Final = frozenset(r.name for r in ROUTES)

#: An intent's kinds in the venue's words.
FILTERS: Final = {"order": "Order", "tpsl": "tpslOrder", "stop": "StopOrder"}


def manner(batch: int) -> Manner:
    """How an account sweeps whose batches name `batch` orders; 1: it has none, orders are cancelled singly."""
    if batch < 2:
        return Manner(sizes={}, at_once=_bulk)
    return Manner(sizes={BATCH: batch}, at_once=_bulk, counted=BATCH)


def bulk_body(target: Target) -> dict[str, str]:
    """The bulk call of an intent. Raises ValueError for one that means only some of the orders."""
    if narrowed(target):
        raise ValueError("a bulk cancel must name all orders that are meant, and no others")
    symbol = bulk_symbol(target)
    return {"category": "spot", **({"symbol": symbol} if symbol else {}), **filter_of(_bulk_kind(target))}


def filter_of(kind: str) -> dict[str, str]:
    """The filter a cancel of that kind needs; normal orders are meant without."""
    return {} if kind == ORDER else {"orderFilter": FILTERS[kind]}


def query(route: Route, target: Target) -> dict[str, str]:
    """The parameters of the next list page. Raises ValueError rather than read a pair's as the account's."""
    params = {"category": "spot"}
    if target.scope == "symbol" and not target.symbol:
        raise ValueError("the open list must name its pair")
    if target.symbol:
        params["symbol"] = target.symbol
    params |= {"openOnly": "0", "limit": str(PAGE), "orderFilter": FILTERS[_kind_of(route)]}
    at = progress(target).get("at", "")
    return {**params, "cursor": at} if at else params


def encoded(params: Mapping[str, str]) -> str:
    """A query as it is signed and sent. A cursor is encoded as it comes, and must not be encoded once more."""
    return "&".join(f"{name}={quote(value, safe='%' if name == 'cursor' else '')}" for name, value in params.items())


def read(route: Route, by: Manner, target: Target, result: Any) -> Reply:
    """A list page, as the sweep reads it."""
    rows = rows_of_list(result)
    if rows is None:
        return _unclear(route, "an answer without a list that can be read")
    now = progress(target)
    at, cursor = str(now.get("at") or ""), word(result, "nextPageCursor", CURSOR_MOST + 1)
    page = int(now.get("page", 0)) + 1 if at else 1
    if rows and cursor and (cursor == at or len(cursor) > CURSOR_MOST or page >= PAGES_MOST):
        return _unclear(route, "a list that does not come to an end")
    orders = [_order(row, _kind_of(route)) for row in rows]
    if None in orders:
        return _unclear(route, "a row that cannot be read")
    listed = OpenPage([order for order in orders if order], cursor if rows else "")
    reply = by.read(route.name, target, listed)
    if reply.word is Word.LISTED:
        reply.notes["sweep"]["page"] = page
    return reply


def _bulk(target: Target) -> str:
    return f"bulk-{_bulk_kind(target)}"


def _bulk_kind(target: Target) -> str:
    """One bulk call takes one kind; normal orders are the many. The lists find the others."""
    asked = kinds(target)
    return ORDER if ORDER in asked else asked[0]


def _kind_of(route: Route) -> str:
    return route.name.removeprefix("sweep-list-")


def _unclear(route: Route, why: str) -> Reply:
    return Reply(Word.UNCLEAR, text=why, place=route.name)


def _order(row: Mapping[str, Any], listed: str) -> OpenOrder | None:
    """A row of the list of one kind; None if it cannot be read: an open order nobody can name must neither be skipped
    nor cancelled."""
    symbol, kind = word(row, "symbol", 33), _kind(row, listed)
    if kind is None or not (symbol.isascii() and symbol.isalnum() and len(symbol) <= 32):
        return None
    created_ms = epoch_ms(word(row, "createdTime"))
    told = not isinstance(row.get("orderLinkId"), bool | float | dict | list)
    client_id = word(row, "orderLinkId") if told else None
    return OpenOrder(row_id(row, "orderId"), client_id, symbol, kind, created_ms)


def _kind(row: Mapping[str, Any], listed: str) -> str | None:
    """An order's kind by its own row, if the list it stands on does not contradict; "" if they disagree: then it is
    found on its own list. None if it cannot be told."""
    state, stop_type = word(row, "orderStatus", 40), word(row, "stopOrderType", 40)
    if state not in STATES:
        return None
    if STATES[state] is not Word.OPEN:
        return ""
    if state != WAITING:
        # Working in the book. One that fired may stand on the list it came from, and perhaps on no other.
        return ORDER if listed == ORDER or stop_type in KINDS else ""
    if listed == ORDER:
        return ""
    if stop_type in PLAIN_TYPES:  # it waits for a trigger, and says no more
        return listed
    kind = KINDS.get(stop_type)
    return kind if kind in (None, listed) else ""
