"""Bitget's endpoints that only look: single orders, lists, fills, and what clients read before they start."""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from orjson import Fragment

from cancelq_worker.simulator.bitget import codes
from cancelq_worker.simulator.bitget.ask import (
    Ask,
    Params,
    needed,
    one_of,
    optional_symbol,
    order_id_of,
    symbols_of,
    text,
    whole,
)
from cancelq_worker.simulator.bitget.codes import Refusal
from cancelq_worker.simulator.bitget.rows import Rows, traded_at, worth
from cancelq_worker.simulator.core import Core
from cancelq_worker.simulator.orders import Kind, Order, Right

PAGE_MOST = 100
PLAN_PAGE = 20
# "Get Account Information": spot trade, wallet transfer and wallet withdrawal, to read and to write.
WRITES = {Right.trade: "stow", Right.transfer: "wtow", Right.withdraw: "wwow"}


class _Wanted(NamedTuple):
    kind: Kind
    symbol: str | None
    order_id: str
    below: int | None


class Queries:
    """One method per endpoint; each returns the answer's `data` or raises `Refusal`."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._rows = Rows(core)

    # ---- normal orders and TP/SL orders

    def order_info(self, ask: Ask) -> Fragment | list[Params]:
        """A list of one normal order, or an empty one: an unknown order is no error."""
        order_id, client_id = order_id_of(ask.params), text(ask.params, "clientOid")
        if order_id:
            order = ask.book.by_id.get(order_id)
        elif client_id:
            order = ask.book.by_client.get(client_id)
        else:
            raise Refusal(codes.ID_MISSING)
        if order is None or order.kind is not Kind.order:
            return []
        settings = self._core.settings
        lag_us = settings.info_lag_ms * 1000
        if lag_us and order.entered_us > self._core.now_us - lag_us:
            return []
        age_us = self._core.venue_us() - order.created_us
        if not order_id and age_us > settings.client_id_horizon_ms * 1000:
            return []
        return self._rows.infos([order], ask.book, lag_us)

    def unfilled(self, ask: Ask) -> Fragment:
        wanted = self._wanted(ask)
        shown = self._core.shown_open(ask.book, wanted.kind, wanted.symbol, wanted.below)
        lag_us = self._core.settings.open_lag_ms * 1000
        return self._rows.opens(_page_of(shown, ask, wanted.order_id), ask.book, lag_us)

    def history(self, ask: Ask) -> Fragment:
        wanted = self._wanted(ask)
        shown = self._core.shown_closed(ask.book, wanted.kind, wanted.symbol, wanted.below)
        return self._rows.infos(_page_of(shown, ask, wanted.order_id), ask.book)

    def _wanted(self, ask: Ask) -> _Wanted:
        params = ask.params
        tpsl = one_of(params, "tpslType", ("normal", "tpsl"), "normal") == "tpsl"
        symbol = optional_symbol(params, self._core.settings.pairs)
        below = whole(params, "idLessThan")
        order_id = order_id_of(params)
        if order_id:
            # The list is walked downwards, so it is entered just above the one order.
            above = int(order_id) + 1
            below = above if below is None else min(below, above)
        return _Wanted(Kind.tpsl if tpsl else Kind.order, symbol, order_id, below)

    # ---- plan (trigger) orders

    def current_plans(self, ask: Ask) -> Params:
        symbol = optional_symbol(ask.params, self._core.settings.pairs)
        shown = self._core.shown_open(ask.book, Kind.plan, symbol, whole(ask.params, "idLessThan"))
        return self._plan_page(shown, ask, PLAN_PAGE, self._core.settings.open_lag_ms * 1000)

    def history_plans(self, ask: Ask) -> Params:
        symbol = optional_symbol(ask.params, self._core.settings.pairs)
        shown = self._core.shown_closed(ask.book, Kind.plan, symbol, whole(ask.params, "idLessThan"))
        return self._plan_page(shown, ask, PAGE_MOST, 0)

    def _plan_page(self, shown: Iterator[Order], ask: Ask, default: int, lag_us: int) -> Params:
        """`nextFlag` tells of more rows behind the last one, whose id is `idLessThan`."""
        limit = _limit(ask.params, default)
        page = list(islice(_in_time(shown, ask.params), limit + 1))
        return {
            "nextFlag": len(page) > limit,
            "idLessThan": page[:limit][-1].order_id if page else "",
            "orderList": self._rows.plans(page[:limit], lag_us),
        }

    def plan_children(self, ask: Ask) -> list[Params]:
        """The orders a plan order placed; none for one that has not fired."""
        needed(ask.params, "planOrderId")
        order = ask.book.by_id.get(order_id_of(ask.params, "planOrderId"))
        if order is None or order.kind is not Kind.plan or not order.child_id:
            return []
        child = ask.book.by_id[order.child_id]
        return [{"orderId": child.order_id, "price": child.price, "type": child.order_type, "status": "success"}]

    # ---- the rest

    def fills(self, ask: Ask) -> list[Params]:
        params = ask.params
        symbol = optional_symbol(params, self._core.settings.pairs)
        wanted, below = order_id_of(params), whole(params, "idLessThan")
        matching = (
            trade
            for trade in reversed(ask.book.trades)
            if (not wanted or trade.order.order_id == wanted)
            and (symbol is None or trade.order.symbol == symbol)
            and (below is None or trade.number < below)
        )
        return [
            {
                "userId": ask.book.uid,
                "symbol": trade.order.symbol,
                "orderId": trade.order.order_id,
                "tradeId": str(trade.number),
                "orderType": trade.order.order_type,
                "side": trade.order.side,
                "priceAvg": traded_at(trade.order),
                "size": trade.size,
                "amount": worth(trade.size, traded_at(trade.order)),
                "feeDetail": {
                    "deduction": "no",
                    "feeCoin": symbols_of(self._core.settings.pairs).get(trade.order.symbol, ("", ""))[0],
                    "totalDeductionFee": "",
                    "totalFee": "-0.001",
                },
                "tradeScope": "maker" if trade.order.order_type == "limit" else "taker",
                "cTime": str(trade.at_us // 1000),
                "uTime": str(trade.at_us // 1000),
            }
            for trade in islice(matching, _limit(params, PAGE_MOST))
        ]

    def account_info(self, ask: Ask) -> Params:
        return {
            "userId": ask.book.uid,
            "inviterId": "",
            "ips": ",".join(ask.account.addresses),
            "authorities": ["stor", *(word for right, word in WRITES.items() if right in ask.account.rights)],
            "parentId": int(ask.book.uid) if ask.book.uid.isdecimal() else 0,
            "traderType": "not_trader",
            "channelCode": "",
            "channel": "",
            "regisTime": "1600000000000",
        }

    def time(self, ask: Ask) -> Params:
        return {"serverTime": str(self._core.venue_us() // 1000)}

    def symbols(self, ask: Ask) -> list[Params]:
        wanted = optional_symbol(ask.params, self._core.settings.pairs)
        return [
            {
                "symbol": symbol,
                "baseCoin": base,
                "quoteCoin": quote,
                "minTradeAmount": "0",
                "maxTradeAmount": "900000000000000000000",
                "takerFeeRate": "0.002",
                "makerFeeRate": "0.002",
                "pricePrecision": "2",
                "quantityPrecision": "6",
                "quotePrecision": "8",
                "status": "online",
                "minTradeUSDT": "1",
                "buyLimitPriceRatio": "0.05",
                "sellLimitPriceRatio": "0.05",
                "areaSymbol": "no",
                "orderQuantity": "200",
                "openTime": "1532454360000",
                "offTime": "",
            }
            for symbol, (base, quote) in symbols_of(self._core.settings.pairs).items()
            if wanted in (None, symbol)
        ]

    def coins(self, ask: Ask) -> list[Params]:
        pairs = symbols_of(self._core.settings.pairs).values()
        wanted = text(ask.params, "coin")
        names = [name for name in dict.fromkeys(coin for pair in pairs for coin in pair) if wanted in ("", name)]
        return [
            {"coinId": str(number), "coin": name, "transfer": "true", "chains": [], "areaCoin": "no"}
            for number, name in enumerate(names, start=1)
        ]

    def margin_currencies(self, ask: Ask) -> list[Params]:
        """No pair can be margined; clients that load markets ask nevertheless."""
        return []


def _page_of(shown: Iterator[Order], ask: Ask, order_id: str) -> Iterator[Order]:
    """What of a list goes into one answer."""
    if order_id:
        shown = (order for order in islice(shown, 1) if order.order_id == order_id)
    return islice(_in_time(shown, ask.params), _limit(ask.params, PAGE_MOST))


def _limit(params: Params, default: int) -> int:
    limit = whole(params, "limit")
    if limit is None:
        return default
    if limit == 0:
        raise Refusal(codes.PARAMETER_WRONG, "limit")
    return min(limit, PAGE_MOST)


def _in_time(shown: Iterator[Order], params: Params) -> Iterator[Order]:
    if "startTime" not in params and "endTime" not in params:
        return shown
    start_ms, end_ms = whole(params, "startTime"), whole(params, "endTime")
    return (
        order
        for order in shown
        if (start_ms is None or order.created_us >= start_ms * 1000)
        and (end_ms is None or order.created_us // 1000 <= end_ms)
    )
