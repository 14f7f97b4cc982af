"""BingX's endpoints that only look: single orders, lists, fills, and what clients read before they start."""

from collections.abc import Iterator
from heapq import merge
from itertools import islice, takewhile

import orjson
from orjson import Fragment

from cancelq_worker.simulator.bingx import codes
from cancelq_worker.simulator.bingx.ask import Ask, Params, known_pair, one_of, optional_pair, order_id_of, text, whole
from cancelq_worker.simulator.bingx.codes import Refusal, invalid
from cancelq_worker.simulator.bingx.placing import TYPES
from cancelq_worker.simulator.bingx.rows import Rows, traded_at, type_word, worth
from cancelq_worker.simulator.bingx.trading import named
from cancelq_worker.simulator.core import DAY_US, Core
from cancelq_worker.simulator.faults import Reply
from cancelq_worker.simulator.orders import Kind, Order, Right, State

# "Query user API Key permissions": 2 is reading, which every key may.
RIGHTS = {Right.trade: 1, Right.transfer: 4, Right.withdraw: 5}
PAGE_MOST = 100
REACH_MOST = 10_000
FILLS_PAGE, FILLS_MOST = 500, 1_000
FILLS_DAYS = 7
ENDS = {"FILLED": (State.filled, State.triggered), "CANCELED": (State.cancelled,), "FAILED": (State.failed,)}


class Queries:
    """One method per endpoint; each returns the answer's `data` or raises `Refusal`."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._rows = Rows(core)

    # ---- orders

    def query(self, ask: Ask) -> Fragment:
        """One order of any kind; by its client id only one of the last 2 hours."""
        pair = known_pair(ask.params, self._core.settings.pairs)
        order_id, client_id = order_id_of(ask.params), text(ask.params, "clientOrderID")
        if not order_id and not client_id:
            raise invalid("orderId", "required")
        order = named(self._core, ask.book, order_id, client_id)
        if order is None or order.symbol != pair or not self._answers_for(order):
            raise Refusal(self._core.settings.bingx_unknown_order)
        return self._rows.queried(order, self._core.settings.info_lag_ms * 1000)

    def _answers_for(self, order: Order) -> bool:
        """Whether the look-up knows an order yet, and knows it still."""
        settings, now_us = self._core.settings, self._core.now_us
        if settings.info_lag_ms and order.entered_us > now_us - settings.info_lag_ms * 1000:
            return False
        kept_ms = settings.bingx_query_kept_ms
        return order.is_open or kept_ms is None or now_us - order.settled_us <= kept_ms * 1000

    def open_orders(self, ask: Ask) -> Params:
        """Newest first; what is over the most rows is left out without a word."""
        pair = optional_pair(ask.params, self._core.settings.pairs)
        shown = _newest_first(self._core.shown_open(ask.book, kind, pair, None) for kind in Kind)
        lag_us = self._core.settings.open_lag_ms * 1000
        return {"orders": self._rows.listed(islice(shown, self._core.settings.bingx_open_most), lag_us)}

    def history(self, ask: Ask) -> Params:
        """Ended orders. "If orderId is set, orders >= orderId. Otherwise, the most recent orders"."""
        params, settings = ask.params, self._core.settings
        pair = optional_pair(params, settings.pairs)
        lowest = int(order_id_of(params) or 0)
        skipped, size = _page(params)
        shown = _newest_first(self._core.shown_closed(ask.book, kind, pair, None) for kind in Kind)
        wanted = _filtered(takewhile(lambda order: order.number >= lowest, shown), params)
        if settings.bingx_history_order == "oldest":
            wanted = reversed(list(wanted))
        return {"orders": self._rows.listed(islice(wanted, skipped, skipped + size))}

    def my_trades(self, ask: Ask) -> Params:
        """Fills of the last 24 hours, or of a span within the last 7 days, oldest first."""
        params, now_us = ask.params, self._core.venue_us()
        pair = known_pair(params, self._core.settings.pairs)
        order_id, from_id = order_id_of(params), whole(params, "fromId") or 0
        start_ms, end_ms = whole(params, "startTime"), whole(params, "endTime")
        start_us = now_us - DAY_US if start_ms is None else start_ms * 1000
        start_us = max(start_us, now_us - FILLS_DAYS * DAY_US)
        limit = min(whole(params, "limit") or FILLS_PAGE, FILLS_MOST)
        matching = [
            trade
            for trade in ask.book.trades
            if trade.order.symbol == pair
            and order_id in ("", trade.order.order_id)
            and trade.number >= from_id
            and start_us <= trade.at_us
            and (end_ms is None or trade.at_us // 1000 <= end_ms)
        ]
        base, _, quote = pair.partition("-")
        return {
            "fills": [
                {
                    "symbol": pair,
                    "id": trade.number,
                    "orderId": Fragment(self._rows.id_of(trade.order)),
                    "price": traded_at(trade.order),
                    "qty": trade.size,
                    "quoteQty": worth(trade.size, traded_at(trade.order)),
                    "commission": -0.001,
                    "commissionAsset": base if trade.order.side == "buy" else quote,
                    "time": trade.at_us // 1000,
                    "isBuyer": trade.order.side == "buy",
                    "isMaker": trade.order.order_type == "limit",
                }
                for trade in matching[-limit:]
            ]
        }

    # ---- what clients read before they start

    def time(self, ask: Ask) -> Params:
        return {"serverTime": self._core.venue_us() // 1000}

    def symbols(self, ask: Ask) -> Params:
        wanted = text(ask.params, "symbol")
        return {
            "symbols": [
                {
                    "symbol": pair,
                    "minQty": 0.000001,
                    "maxQty": 1_000_000_000,
                    "minNotional": 1,
                    "maxNotional": 1_000_000_000,
                    "status": 1,
                    "tickSize": 0.01,
                    "stepSize": 0.000001,
                    "apiStateSell": True,
                    "apiStateBuy": True,
                    "timeOnline": 0,
                    "offTime": 0,
                    "maintainTime": 0,
                }
                for pair in self._core.settings.pairs
                if wanted in ("", pair)
            ]
        }

    def contracts(self, ask: Ask) -> list[Params]:
        """No swap is traded; clients that load markets ask nevertheless."""
        return []

    def coins(self, ask: Ask) -> list[Params]:
        names = dict.fromkeys(coin for pair in self._core.settings.pairs for coin in pair.split("-"))
        return [{"coin": name, "name": name, "networkList": []} for name in names]

    def key_rights(self, ask: Ask) -> Params | Reply:
        account = ask.account
        read_only = account.key in self._core.settings.bingx_read_only_keys
        may = {number for right, number in RIGHTS.items() if right in account.rights} - ({1} if read_only else set())
        told = {
            "apiKey": account.key,
            "permissions": sorted({2, *may}),
            "ipAddresses": list(account.addresses),
            "note": "simulated",
        }
        return Reply(200, orjson.dumps(told)) if self._core.settings.bingx_rights_bare else told

    def balance(self, ask: Ask) -> Params:
        names = dict.fromkeys(coin for pair in self._core.settings.pairs for coin in pair.split("-"))
        return {"balances": [{"asset": name, "free": "1000000", "locked": "0"} for name in names]}


def _newest_first(lists: Iterator[Iterator[Order]]) -> Iterator[Order]:
    return merge(*lists, key=lambda order: order.number, reverse=True)


def _page(params: Params) -> tuple[int, int]:
    """How many orders a page skips, and how many it holds; refused (100400) beyond the venue's reach."""
    index, size = whole(params, "pageIndex"), whole(params, "pageSize")
    index, size = 1 if index is None else index, PAGE_MOST if size is None else size
    if index < 1:
        raise invalid("pageIndex", "min")
    if not 1 <= size <= PAGE_MOST:
        raise invalid("pageSize", "max")
    if index * size > REACH_MOST:
        raise Refusal(codes.PARAMETER, "Invalid parameters, err:pageIndex * pageSize should be <= 10,000")
    return (index - 1) * size, size


def _filtered(orders: Iterator[Order], params: Params) -> Iterator[Order]:
    states = ENDS[one_of(params, "status", tuple(ENDS))] if params.get("status") else tuple(State)
    of_type = one_of(params, "type", tuple(TYPES)) if params.get("type") else ""
    start_ms, end_ms = whole(params, "startTime") or 0, whole(params, "endTime")
    return (
        order
        for order in orders
        if order.state in states
        and of_type in ("", type_word(order))
        and order.created_us // 1000 >= start_ms
        and (end_ms is None or order.created_us // 1000 <= end_ms)
    )
