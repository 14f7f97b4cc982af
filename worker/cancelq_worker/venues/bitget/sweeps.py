"""Scopes `symbol` and `account` at Bitget: its one bulk call is cancel-symbol-order, which takes normal orders of a
pair; its open lists are one for each kind of order.

Source: Bitget API documentation, "Cancel Order by Symbol" and the lists of open orders and plan orders.
"""

from __future__ import annotations

import re
from typing import Any, Final

from cancelq_worker.venues.bitget.looks import PAGE, read_page
from cancelq_worker.venues.port import Reply, Route, Stage, Target, Word
from cancelq_worker.venues.reading import epoch_ms, word
from cancelq_worker.venues.sweeping import ORDER, Manner, OpenOrder, OpenPage, bulk_symbol, kinds, narrowed, progress

BATCH: Final = 50

ROUTES: Final = (
    Route("sweep-list-order", Stage.LOOK, ("sweep-order",), "unfilled-orders"),
    Route("sweep-list-tpsl", Stage.LOOK, ("sweep-tpsl",), "unfilled-orders"),
    Route("sweep-list-stop", Stage.LOOK, ("sweep-stop",), "current-plan-order"),
)
NAMES: Final = frozenset(r.name for r in ROUTES)


def _bulk(target: Target) -> str:
    return "symbol" if target.scope == "symbol" and ORDER in kinds(target) else ""


MANNER: Final = Manner(sizes={"sweep-cancel": BATCH}, at_once=_bulk)


def bulk_body(target: Target) -> dict[str, str]:
    """The bulk call of an intent. Raises ValueError for one that means anything but all normal orders of a pair."""
    symbol = None if narrowed(target) else bulk_symbol(target)
    if symbol is None:
        raise ValueError("a bulk cancel must name its pair, and means all of its orders")
    return {"symbol": symbol}


def query(route: Route, target: Target) -> tuple[str, dict[str, str]]:
    """Path and parameters of the next list page. Raises ValueError rather than read a pair's as the account's."""
    params = {"limit": str(PAGE)}
    if target.scope == "symbol" and not target.symbol:
        raise ValueError("the open list must name its pair")
    if target.symbol:
        params["symbol"] = target.symbol
    at = progress(target).get("at", "")
    if at:
        params["idLessThan"] = at
    if route.name == "sweep-list-stop":
        return "current-plan-order", params
    if route.name == "sweep-list-tpsl":
        params["tpslType"] = "tpsl"
    return "unfilled-orders", params


def read(route: Route, target: Target, data: Any) -> Reply:
    """A list page, as the sweep reads it."""
    page = read_page(data) if isinstance(data, list) or route.name == "sweep-list-stop" else None
    if page is None:
        return Reply(Word.UNCLEAR, text="an answer without a list", place=route.name)
    if not page.whole or not all(_readable(row) for row in page.rows):
        return Reply(Word.UNCLEAR, text="a row that cannot be read", place=route.name)
    at = progress(target).get("at")
    if at and any(found >= int(at) for found in page.ids):
        return Reply(Word.UNCLEAR, text="a page that ignores its cursor", place=route.name)
    kind = route.name.removeprefix("sweep-list-")
    next_at = "" if page.ended or not page.ids else str(min(page.ids))
    return MANNER.read(route.name, target, OpenPage([_order(row, kind) for row in page.rows], next_at))


def _readable(row: dict[str, Any]) -> bool:
    """An open order nobody can name must neither be skipped nor cancelled."""
    symbol = row.get("symbol")
    return isinstance(symbol, str) and re.fullmatch(r"[A-Za-z0-9]{2,32}", symbol) is not None


def _order(row: dict[str, Any], kind: str) -> OpenOrder:
    created_ms = epoch_ms(word(row, "cTime"))
    return OpenOrder(row["orderId"], word(row, "clientOid"), row["symbol"].upper(), kind, created_ms)
