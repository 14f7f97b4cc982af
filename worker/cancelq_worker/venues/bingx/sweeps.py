"""Scopes `symbol` and `account` at BingX: one open list holds orders of every kind, and the one bulk call is
cancelOpenOrders.

Whether that call spares trigger and TP/SL orders is documented nowhere. So it is made only for an intent that means
all kinds, or once the open list showed nothing but what is meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cancelq_worker.venues.bingx.looks import OPEN_MOST, read_page
from cancelq_worker.venues.bingx.rows import STATES, client_id_of, is_pair, kind_of, order_id_of
from cancelq_worker.venues.port import ENDED, Reply, Route, Stage, Target, Word
from cancelq_worker.venues.reading import epoch_ms, word
from cancelq_worker.venues.sweeping import LIST, Manner, OpenOrder, OpenPage, kinds

BULK: Final = "bulk"
ALL: Final = frozenset({"order", "tpsl", "stop"})
ERRORS: Final = 15  # of the twenty equal errors that lock an endpoint: these orders were seen open

ROUTES: Final = (
    Route("cancel-open", Stage.CANCEL, (BULK,), "cancelOpenOrders", errors=ERRORS),
    Route("sweep-cancel", Stage.CANCEL, ("sweep-order",), "cancelOrders", errors=ERRORS),
    # Also for normal orders, where the batch endpoint is closed or its share used up.
    Route("sweep-one", Stage.CANCEL, ("sweep-order", "sweep-tpsl", "sweep-stop"), "cancel", errors=ERRORS),
    Route(LIST, Stage.LOOK, ("sweep-all",), "openOrders"),
)


def manner(batch: int) -> Manner:
    """How BingX is swept, `batch` orders in a call."""
    return Manner(
        lists=lambda _: ("all",),
        sizes={"sweep-cancel": batch},
        at_once=lambda target: BULK if set(kinds(target)) == ALL else "",
        if_all_meant=lambda _: BULK,
        one_symbol=True,
    )


def query(target: Target) -> dict[str, str]:
    """Parameters of the open list: of a pair, or of the account. Raises ValueError for a pair that cannot be sent."""
    if target.scope == "account" and not target.symbol:
        return {}
    if not target.symbol or not is_pair(target.symbol):
        raise ValueError("the open list must name its pair")
    return {"symbol": target.symbol}


def read(by: Manner, target: Target, data: Any) -> Reply:
    """The open list, as the sweep reads it."""
    page = read_page(data, target.symbol, OPEN_MOST)
    if page is None:
        return Reply(Word.UNCLEAR, text="an answer without a list", place=LIST)
    orders: dict[str, OpenOrder] = {}
    for row in page.rows:
        order = _order(target, row)
        if order is None or orders.get(order.order_id, order) != order:
            return Reply(Word.UNCLEAR, text="a row that cannot be read", place=LIST)
        orders[order.order_id] = order
    if not page.whole:
        return Reply(Word.UNCLEAR, text="a row that cannot be read", place=LIST)
    ended = {order_id_of(row) for row in page.rows if STATES.get(word(row, "status").upper()) in ENDED}
    rows = [order for order in orders.values() if order.order_id not in ended]
    return by.read(LIST, target, OpenPage(rows, cut=page.full))


def _order(target: Target, row: Mapping[str, Any]) -> OpenOrder | None:
    """An order of the open list; None if the row does not tell what the intent asks."""
    kind, client_id = kind_of(row), client_id_of(row)
    if not kind or (client_id is None and "client_prefix" in target.fields):
        return None
    return OpenOrder(order_id_of(row), client_id or "", word(row, "symbol"), kind, epoch_ms(word(row, "time")))
