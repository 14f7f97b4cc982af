"""Bitget's endpoints that only look: single orders, lists, fills, and what clients read before they start."""

from collections.abc import Iterator
from decimal import Decimal
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from cancelq_worker.simulator import bitget_codes as codes
from cancelq_worker.simulator.bitget_ask import (
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
from cancelq_worker.simulator.bitget_codes import Refusal
from cancelq_worker.simulator.core import MARKET_PRICE, Core
from cancelq_worker.simulator.orders import Kind, Order, State

PAGE_MOST = 100
PLAN_PAGE = 20

# The classic pages list live, partially_filled, filled, cancelled; clients also know reject.
ORDER_WORDS = {
    State.live: "live",
    State.partially_filled: "partially_filled",
    State.filled: "filled",
    State.cancelled: "cancelled",
    State.failed: "reject",
}
PLAN_WORDS = {
    State.live: "live",
    State.triggered: "executed",
    State.cancelled: "cancelled",
    State.failed: "fail_execute",
}
FEE_DETAIL = '{"newFees":{"c":0,"d":0,"deduction":false,"r":-0.001,"t":-0.001,"totalDeductionFee":0}}'


class _Wanted(NamedTuple):
    kind: Kind
    symbol: str | None
    order_id: str
    below: int | None


class Queries:
    """One method per endpoint; each returns the answer's `data` or raises `Refusal`."""

    def __init__(self, core: Core) -> None:
        self._core = core

    # ---- normal orders and TP/SL orders

    def order_info(self, ask: Ask) -> list[Params]:
        """A list of one normal order, or an empty one: an unknown order is no error."""
        order_id, client_id = order_id_of(ask.params), text(ask.params, "clientOid")
        if order_id:
            order = ask.book.by_id.get(order_id)
        elif client_id:
            order = ask.book.by_client.get((Kind.order, client_id))
        else:
            raise Refusal(codes.ID_MISSING)
        if order is None or order.kind is not Kind.order:
            return []
        settings = self._core.settings
        lag_us = settings.info_lag_ms * 1000
        if lag_us and order.entered_us > self._core.clock.steady_us() - lag_us:
            return []
        age_us = self._core.venue_us() - order.created_us
        if not order_id and age_us > settings.client_id_horizon_ms * 1000:
            return []
        row = self._row(order, *self._core.seen(order, lag_us), ask.book.uid)
        row["cancelReason"] = order.cancel_reason if row["status"] == "cancelled" else ""
        return [row]

    def unfilled(self, ask: Ask) -> list[Params]:
        wanted = self._wanted(ask)
        shown = self._core.shown_open(ask.book, wanted.kind, wanted.symbol, wanted.below)
        if wanted.order_id:
            shown = (row for row in islice(shown, 1) if row[0].order_id == wanted.order_id)
        rows = (row for row in shown if _in_time(row[0], ask.params))
        return [self._open_row(*row, ask.book.uid) for row in islice(rows, _limit(ask.params, PAGE_MOST))]

    def history(self, ask: Ask) -> list[Params]:
        wanted = self._wanted(ask)
        shown = self._core.shown_closed(ask.book, wanted.kind, wanted.symbol, wanted.below)
        if wanted.order_id:
            shown = (order for order in islice(shown, 1) if order.order_id == wanted.order_id)
        rows = []
        in_time = (order for order in shown if _in_time(order, ask.params))
        for order in islice(in_time, _limit(ask.params, PAGE_MOST)):
            row = self._row(order, order.state, order.filled, order.updated_us, ask.book.uid)
            row["cancelReason"] = order.cancel_reason
            rows.append(row)
        return rows

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

    def _row(self, order: Order, state: State, filled: str, updated_us: int, uid: str) -> Params:
        untouched = filled == "0"
        tpsl = order.kind is Kind.tpsl
        base, quote = symbols_of(self._core.settings.pairs).get(order.symbol, ("", ""))
        return {
            "userId": uid,
            "symbol": order.symbol,
            "orderId": order.order_id,
            "clientOid": order.client_id,
            "price": _padded(order.price),
            "size": _padded(order.size),
            "orderType": order.order_type,
            "side": order.side,
            "status": self._word(order, state),
            "priceAvg": "0" if untouched else _padded(_traded_at(order)),
            "baseVolume": _padded(filled),
            "quoteVolume": _padded("0") if untouched else _worth(filled, _traded_at(order)),
            "enterPointSource": "API",
            "feeDetail": "" if untouched else FEE_DETAIL,
            "orderSource": "market" if order.order_type == "market" else "normal",
            "tpslType": "tpsl" if tpsl else "normal",
            "triggerPrice": order.trigger_price if tpsl else None,
            "quoteCoin": quote,
            "baseCoin": base,
            "cTime": str(order.created_us // 1000),
            "uTime": str(updated_us // 1000),
        }

    def _open_row(self, order: Order, state: State, filled: str, updated_us: int, uid: str) -> Params:
        """The open list has no `price`: its `priceAvg` is the order's price, `basePrice` what it filled
        at.
        """
        untouched = filled == "0"
        tpsl = order.kind is Kind.tpsl
        return {
            "userId": uid,
            "symbol": order.symbol,
            "orderId": order.order_id,
            "clientOid": order.client_id,
            "priceAvg": _padded(order.price),
            "size": _padded(order.size),
            "orderType": order.order_type,
            "side": order.side,
            "status": self._word(order, state),
            "basePrice": "0" if untouched else _padded(_traded_at(order)),
            "baseVolume": _padded(filled),
            "quoteVolume": _padded("0") if untouched else _worth(filled, _traded_at(order)),
            "enterPointSource": "API",
            "orderSource": "normal",
            "presetTakeProfitPrice": "",
            "executeTakeProfitPrice": "",
            "presetStopLossPrice": "",
            "executeStopLossPrice": "",
            "cTime": str(order.created_us // 1000),
            "uTime": str(updated_us // 1000),
            "tpslType": "tpsl" if tpsl else "normal",
            "triggerPrice": order.trigger_price if tpsl else None,
        }

    def _word(self, order: Order, state: State) -> str:
        if state is State.triggered:
            return self._core.settings.bitget_tpsl_triggered
        return ORDER_WORDS[state]

    # ---- plan (trigger) orders

    def current_plans(self, ask: Ask) -> Params:
        symbol = optional_symbol(ask.params, self._core.settings.pairs)
        shown = self._core.shown_open(ask.book, Kind.plan, symbol, whole(ask.params, "idLessThan"))
        rows = (
            _plan_row(order, state, updated_us)
            for order, state, _, updated_us in shown
            if _in_time(order, ask.params)
        )
        return _page(rows, _limit(ask.params, PLAN_PAGE))

    def history_plans(self, ask: Ask) -> Params:
        symbol = optional_symbol(ask.params, self._core.settings.pairs)
        shown = self._core.shown_closed(ask.book, Kind.plan, symbol, whole(ask.params, "idLessThan"))
        rows = (
            _plan_row(order, order.state, order.updated_us) for order in shown if _in_time(order, ask.params)
        )
        return _page(rows, _limit(ask.params, PAGE_MOST))

    def plan_children(self, ask: Ask) -> list[Params]:
        """The orders a plan order placed; none for one that has not fired."""
        needed(ask.params, "planOrderId")
        order = ask.book.by_id.get(order_id_of(ask.params, "planOrderId"))
        if order is None or order.kind is not Kind.plan or not order.child_id:
            return []
        child = ask.book.by_id[order.child_id]
        return [
            {"orderId": child.order_id, "price": child.price, "type": child.order_type, "status": "success"}
        ]

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
                "priceAvg": _traded_at(trade.order),
                "size": trade.size,
                "amount": _worth(trade.size, _traded_at(trade.order)),
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
            "ips": "",
            # Spot trade, to read and to write.
            "authorities": ["stor", "stow"],
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
        names = [
            name for name in dict.fromkeys(coin for pair in pairs for coin in pair) if wanted in ("", name)
        ]
        return [
            {"coinId": str(number), "coin": name, "transfer": "true", "chains": [], "areaCoin": "no"}
            for number, name in enumerate(names, start=1)
        ]

    def margin_currencies(self, ask: Ask) -> list[Params]:
        """No pair can be margined; clients that load markets ask nevertheless."""
        return []


def _plan_row(order: Order, state: State, updated_us: int) -> Params:
    return {
        "orderId": order.order_id,
        "clientOid": order.client_id,
        "symbol": order.symbol,
        "size": order.size,
        "planType": "amount",
        "executePrice": order.price,
        "triggerPrice": order.trigger_price,
        "status": PLAN_WORDS.get(state, str(state)),
        "orderType": order.order_type,
        "side": order.side,
        "triggerType": "fill_price",
        "enterPointSource": "API",
        "cTime": str(order.created_us // 1000),
        "uTime": str(updated_us // 1000),
    }


def _page(rows: Iterator[Params], limit: int) -> Params:
    """`nextFlag` tells of more rows behind the last one, whose id is `idLessThan`."""
    page = list(islice(rows, limit))
    more = next(rows, None) is not None
    return {"nextFlag": more, "idLessThan": page[-1]["orderId"] if page else "", "orderList": page}


def _limit(params: Params, default: int) -> int:
    limit = whole(params, "limit")
    if limit is None:
        return default
    if limit == 0:
        raise Refusal(codes.PARAMETER_WRONG, "limit")
    return min(limit, PAGE_MOST)


def _in_time(order: Order, params: Params) -> bool:
    if "startTime" not in params and "endTime" not in params:
        return True
    start_ms, end_ms = whole(params, "startTime"), whole(params, "endTime")
    created_ms = order.created_us // 1000
    return (start_ms is None or created_ms >= start_ms) and (end_ms is None or created_ms <= end_ms)


def _traded_at(order: Order) -> str:
    return MARKET_PRICE if order.order_type == "market" else order.price


@lru_cache(maxsize=65_536)
def _padded(number: str) -> str:
    """As the venue writes quantities: sixteen decimals."""
    whole_part, point, decimals = number.partition(".")
    return f"{whole_part}.{decimals[:16]:0<16}" if point else f"{whole_part}.{'0' * 16}"


@lru_cache(maxsize=65_536)
def _worth(size: str, price: str) -> str:
    return _padded(format(Decimal(size) * Decimal(price), "f"))
