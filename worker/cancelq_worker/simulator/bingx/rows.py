"""How BingX writes orders: in the answer to a cancel, to a placement, to a look-up, and in lists.

Field names and quirks follow the samples on the pages of those endpoints and in ccxt. An order id is a JSON number
of 19 digits, more than a double holds. Rows are put together as text, so every text in them has to be plain: no
quotes, no backslashes, nothing that JSON would escape (`PLAIN`).
"""

from collections.abc import Iterable
from decimal import Decimal
from functools import lru_cache

from orjson import Fragment

from cancelq_worker.simulator.core import MARKET_PRICE, Core
from cancelq_worker.simulator.orders import Kind, Order, State

KIND_WORDS = {Kind.order: "", Kind.tpsl: "TAKE_STOP_", Kind.plan: "TRIGGER_"}


class Rows:
    """Writes orders, each in the state it had `lag_us` ago."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def cancelled(self, order: Order) -> Fragment:
        """The answer to a cancel. The `stopPrice` of an order without a trigger is its price, as in every sample of
        such an answer.
        """
        return Fragment(
            f'{{"symbol":"{order.symbol}","orderId":{self.id_of(order)},"price":"{order.price}",'
            f'"stopPrice":"{order.trigger_price or order.price}",{self._progress(order, order.state, order.filled)},'
            f'"transactTime":{order.created_us // 1000},"clientOrderID":"{order.client_id}"}}'
        )

    def placed(self, order: Order) -> Fragment:
        return Fragment(
            f'{{"symbol":"{order.symbol}","orderId":{self.id_of(order)},'
            f'"transactTime":{order.created_us // 1000},"price":"{order.price}",'
            f'"stopPrice":"{order.trigger_price or "0"}",{self._progress(order, order.state, order.filled)},'
            f'"clientOrderID":"{order.client_id}"}}'
        )

    def queried(self, order: Order, lag_us: int) -> Fragment:
        base, _, quote = order.symbol.partition("-")
        return Fragment(
            f"{{{self._listed(order, lag_us)},"
            f'"fee":"0","feeAsset":"{base if order.side == "buy" else quote}","clientOrderID":"{order.client_id}"}}'
        )

    def listed(self, orders: Iterable[Order], lag_us: int = 0) -> Fragment:
        """The rows of openOrders and historyOrders; the tables of their fields lack the client id."""
        named = self._core.settings.bingx_list_client_ids
        rows = (
            f'{{{self._listed(order, lag_us)},"fee":0' + (f',"clientOrderID":"{order.client_id}"}}' if named else "}")
            for order in orders
        )
        return Fragment(f"[{','.join(rows)}]")

    def id_of(self, order: Order) -> str:
        """The order's id as JSON."""
        return order.order_id if self._core.settings.bingx_order_ids == "number" else f'"{order.order_id}"'

    def word(self, order: Order, state: State) -> str:
        """The order's status in BingX's words."""
        settings = self._core.settings
        match state:
            case State.live:
                # "NEW" for a trigger order that waits as in ccxt's sample of one (of a swap); all samples of resting
                # spot orders say "PENDING".
                return "PENDING" if order.kind is Kind.order else "NEW"
            case State.partially_filled:
                return settings.bingx_partial
            case State.filled:
                return "FILLED"
            case State.cancelled:
                return settings.bingx_cancelled
            case State.triggered:
                return settings.bingx_triggered
            case State.failed:
                return "FAILED"

    def _listed(self, order: Order, lag_us: int) -> str:
        state, filled, updated_us = self._core.seen(order, lag_us)
        return (
            f'"symbol":"{order.symbol}","orderId":{self.id_of(order)},"price":"{order.price}",'
            f'"StopPrice":"{order.trigger_price or "0"}",{self._progress(order, state, filled)},'
            f'"time":{order.created_us // 1000},"updateTime":{updated_us // 1000},"origQuoteOrderQty":"0",'
            f'"avgPrice":"{"0" if filled == "0" else traded_at(order)}"'
        )

    def _progress(self, order: Order, state: State, filled: str) -> str:
        return (
            f'"origQty":"{order.size}","executedQty":"{filled}",'
            f'"cummulativeQuoteQty":"{worth(filled, traded_at(order))}","status":"{self.word(order, state)}",'
            f'"type":"{type_word(order)}","side":"{order.side.upper()}"'
        )


def type_word(order: Order) -> str:
    return KIND_WORDS[order.kind] + order.order_type.upper()


def traded_at(order: Order) -> str:
    return MARKET_PRICE if order.order_type == "market" else order.price


@lru_cache(maxsize=65_536)
def worth(size: str, price: str) -> str:
    return "0" if size == "0" else plain(Decimal(size) * Decimal(price))


def plain(value: Decimal) -> str:
    return format(value.normalize(), "f")
