"""How Bitget writes orders: in look-up and history, in the open list, in the lists of plan orders.

Field names and quirks follow the pages of those endpoints and what clients captured from them. Rows are put
together as text, which takes half the time of anything else and is most of what a list costs; so every text
in them has to be plain: no quotes, no backslashes, nothing that JSON would escape (`PLAIN`).
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import lru_cache

from orjson import Fragment

from cancelq_worker.simulator.bitget.ask import symbols_of
from cancelq_worker.simulator.core import MARKET_PRICE, Core
from cancelq_worker.simulator.orders import Book, Kind, Order, State

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
FEE_DETAIL = r"{\"newFees\":{\"c\":0,\"d\":0,\"deduction\":false,\"r\":-0.001,\"t\":-0.001,\"totalDeductionFee\":0}}"


class Rows:
    """Writes the orders of one list, each in the state it had `lag_us` ago."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def infos(self, orders: Iterable[Order], book: Book, lag_us: int = 0) -> Fragment:
        """The rows of orderInfo and of history-orders."""
        symbols = symbols_of(self._core.settings.pairs)
        return _listed(self._info(order, book.uid, lag_us, symbols) for order in orders)

    def opens(self, orders: Iterable[Order], book: Book, lag_us: int) -> Fragment:
        """The rows of unfilled-orders. They have no `price`: their `priceAvg` is the order's price, and their
        `basePrice` what it filled at.
        """
        return _listed(self._open(order, book.uid, lag_us) for order in orders)

    def plans(self, orders: Iterable[Order], lag_us: int) -> Fragment:
        """The rows of current-plan-order and history-plan-order."""
        return _listed(self._plan(order, lag_us) for order in orders)

    def _info(self, order: Order, uid: str, lag_us: int, symbols: Mapping[str, tuple[str, str]]) -> str:
        state, filled, updated_us = self._core.seen(order, lag_us)
        average, volume, quote_volume, fee = _traded(order, filled)
        base, quote = symbols.get(order.symbol, ("", ""))
        return (
            f'{{"userId":"{uid}","symbol":"{order.symbol}","orderId":"{order.order_id}",'
            f'"clientOid":"{order.client_id}","price":"{padded(order.price)}","size":"{padded(order.size)}",'
            f'"orderType":"{order.order_type}","side":"{order.side}","status":"{self._word(state)}",'
            f'"priceAvg":"{average}","baseVolume":"{volume}","quoteVolume":"{quote_volume}",'
            f'"enterPointSource":"API","feeDetail":"{fee}","orderSource":"{_source(order)}",'
            f'"cancelReason":"{order.cancel_reason if state is State.cancelled else ""}",{_kind(order)},'
            f'"quoteCoin":"{quote}","baseCoin":"{base}",'
            f'"cTime":"{order.created_us // 1000}","uTime":"{updated_us // 1000}"}}'
        )

    def _open(self, order: Order, uid: str, lag_us: int) -> str:
        state, filled, updated_us = self._core.seen(order, lag_us)
        average, volume, quote_volume, _ = _traded(order, filled)
        return (
            f'{{"userId":"{uid}","symbol":"{order.symbol}","orderId":"{order.order_id}",'
            f'"clientOid":"{order.client_id}","priceAvg":"{padded(order.price)}",'
            f'"size":"{padded(order.size)}","orderType":"{order.order_type}","side":"{order.side}",'
            f'"status":"{self._word(state)}","basePrice":"{average}","baseVolume":"{volume}",'
            f'"quoteVolume":"{quote_volume}","enterPointSource":"API","orderSource":"{_source(order)}",'
            '"presetTakeProfitPrice":"","executeTakeProfitPrice":"","presetStopLossPrice":"",'
            f'"executeStopLossPrice":"","cTime":"{order.created_us // 1000}",'
            f'"uTime":"{updated_us // 1000}",{_kind(order)}}}'
        )

    def _plan(self, order: Order, lag_us: int) -> str:
        state, _, updated_us = self._core.seen(order, lag_us)
        return (
            f'{{"orderId":"{order.order_id}","clientOid":"{order.client_id}","symbol":"{order.symbol}",'
            f'"size":"{order.size}","planType":"amount","executePrice":"{order.price}",'
            f'"triggerPrice":"{order.trigger_price}","status":"{PLAN_WORDS[state]}",'
            f'"orderType":"{order.order_type}","side":"{order.side}","triggerType":"fill_price",'
            f'"enterPointSource":"API","cTime":"{order.created_us // 1000}","uTime":"{updated_us // 1000}"}}'
        )

    def _word(self, state: State) -> str:
        if state is State.triggered:
            return self._core.settings.bitget_tpsl_triggered
        return ORDER_WORDS[state]


def _listed(rows: Iterable[str]) -> Fragment:
    return Fragment(f"[{','.join(rows)}]")


def _traded(order: Order, filled: str) -> tuple[str, str, str, str]:
    """Average price, base volume, quote volume and fee, as the venue writes them before and after a fill."""
    if filled == "0":
        return "0", NOTHING, NOTHING, ""
    price = traded_at(order)
    return padded(price), padded(filled), worth(filled, price), FEE_DETAIL


def _source(order: Order) -> str:
    return "market" if order.order_type == "market" else "normal"


def _kind(order: Order) -> str:
    if order.kind is Kind.tpsl:
        return f'"tpslType":"tpsl","triggerPrice":"{order.trigger_price}"'
    return '"tpslType":"normal","triggerPrice":null'


def traded_at(order: Order) -> str:
    return MARKET_PRICE if order.order_type == "market" else order.price


@lru_cache(maxsize=65_536)
def padded(number: str) -> str:
    """As the venue writes quantities: sixteen decimals."""
    whole_part, point, decimals = number.partition(".")
    return f"{whole_part}.{decimals[:16]:0<16}" if point else f"{whole_part}.{'0' * 16}"


@lru_cache(maxsize=65_536)
def worth(size: str, price: str) -> str:
    return padded(format(Decimal(size) * Decimal(price), "f"))


NOTHING = padded("0")
