"""How Bybit writes orders and fills, and under which id a conditional order is known.

"After it is triggered, the order ID will not be changed" (unified account, page of /v5/order/create): a TP/SL or
conditional order that fired is from then on an active order under its own id. The book holds what it placed as
an order of its own, the child; here the child goes by the id, link id and trigger of its parent, and the parent
is not shown any more. With the setting `bybit_trigger_keeps_id` off, both are shown, as of a classic account.
"""

from decimal import Decimal

from cancelq_worker.simulator.bybit.ask import Params, symbols_of
from cancelq_worker.simulator.core import MARKET_PRICE, Core, Verdict
from cancelq_worker.simulator.orders import Book, Kind, Order, State, Trade

# Status words: "orderStatus" of Bybit's enums page.
ORDER_WORDS = {
    State.live: "New",
    State.partially_filled: "PartiallyFilled",
    State.filled: "Filled",
    State.cancelled: "Cancelled",
    State.failed: "Rejected",
}
CONDITIONAL_WORDS = {
    State.live: "Untriggered",
    State.triggered: "Triggered",
    State.cancelled: "Deactivated",
    State.failed: "Rejected",
}
# In rows the kind of a spot order is told by `stopOrderType`; `tpslOrder` is captured, `Stop` is the enum's word for
# a conditional order.
STOP_TYPES = {Kind.order: "", Kind.tpsl: "tpslOrder", Kind.plan: "Stop"}
FEE_RATE = Decimal("0.001")


class Rows:
    """Finds and writes the orders of one simulator."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def find(self, book: Book, order_id: str, link_id: str) -> Order | None:
        """The order that goes by that id; by link id if there is no order id."""
        if order_id:
            order = book.by_id.get(order_id)
        else:
            order = book.by_client.get(link_id) or book.plan_by_client.get(link_id)
        if order is None or not self._core.settings.bybit_trigger_keeps_id:
            return order
        if order.child_id:
            return book.by_id[order.child_id]
        # The id of a child is known to nobody.
        return None if order.parent_id else order

    def shown(self, order: Order) -> bool:
        """Whether lists show it; a parent that fired lives on as its child."""
        return not (order.child_id and self._core.settings.bybit_trigger_keeps_id)

    def known_as(self, order: Order, book: Book) -> Order:
        """The order whose id, link id and trigger it goes by: itself, or the parent it came from."""
        if order.parent_id and self._core.settings.bybit_trigger_keeps_id:
            return book.by_id[order.parent_id]
        return order

    def ids(self, order: Order, book: Book) -> Params:
        named = self.known_as(order, book)
        return {"orderId": named.order_id, "orderLinkId": named.client_id}

    def word(self, order: Order, state: State, filled: str) -> str:
        if order.kind is not Kind.order:
            return CONDITIONAL_WORDS[state]
        if state is State.cancelled and filled != "0":
            return "PartiallyFilledCanceled"
        return ORDER_WORDS[state]

    def order(self, order: Order, book: Book, lag_us: int = 0) -> Params:
        """The row of /v5/order/realtime and /v5/order/history, in the state of `lag_us` ago."""
        state, filled, updated_us = self._core.seen(order, lag_us)
        named = self.known_as(order, book)
        market = order.order_type == "market"
        price = MARKET_PRICE if market else order.price
        open_still = state in (State.live, State.partially_filled)
        leaves = Decimal(order.size) - Decimal(filled) if open_still else Decimal(0)
        cancel_type, reject_reason = self._reasons(order, state)
        return {
            "orderId": named.order_id,
            "orderLinkId": named.client_id,
            "blockTradeId": "",
            "symbol": order.symbol,
            "price": "0" if market else order.price,
            "qty": order.size,
            "side": order.side.capitalize(),
            "isLeverage": "0",
            "positionIdx": 0,
            "orderStatus": self.word(order, state, filled),
            "cancelType": cancel_type,
            "rejectReason": reject_reason,
            "avgPrice": price if filled != "0" else "",
            "leavesQty": _plain(leaves),
            "leavesValue": _plain(leaves * Decimal(price)),
            "cumExecQty": filled,
            "cumExecValue": _plain(Decimal(filled) * Decimal(price)),
            "cumExecFee": _plain(_fee(order, Decimal(filled), Decimal(price))),
            "timeInForce": "IOC" if market else "GTC",
            "orderType": order.order_type.capitalize(),
            "stopOrderType": STOP_TYPES[named.kind],
            "orderIv": "",
            "marketUnit": "baseCoin" if market else "",
            "triggerPrice": named.trigger_price or "0.00",
            "takeProfit": "0",
            "stopLoss": "0",
            "ocoTriggerBy": "OcoTriggerByUnknown",
            "tpLimitPrice": "",
            "slLimitPrice": "",
            "tpTriggerBy": "",
            "slTriggerBy": "",
            "triggerDirection": 0,
            "triggerBy": "",
            "lastPriceOnCreated": "",
            "reduceOnly": False,
            "closeOnTrigger": False,
            "placeType": "",
            "smpType": "None",
            "smpGroup": 0,
            "smpOrderId": "",
            "createdTime": str(named.created_us // 1000),
            "updatedTime": str(updated_us // 1000),
        }

    def _reasons(self, order: Order, state: State) -> tuple[str, str]:
        """`cancelType` and `rejectReason`. An order that filled after its cancel was acknowledged carries both of a
        cancel, as Bybit's order stream has it: only the status decides.
        """
        if state is State.cancelled:
            if order.cancel_reason == "normal_cancel":
                return "CancelByUser", "EC_PerCancelRequest"
            return "UNKNOWN", order.cancel_reason
        if state is State.failed:
            return "UNKNOWN", "EC_Others"
        late = any(naming.verdict == Verdict.accepted for naming in order.namings)
        if state is State.filled and late and self._core.settings.bybit_race_marks:
            return "CancelByUser", "EC_OrigClOrdIDDoesNotExist"
        return "UNKNOWN", "EC_NoError"

    def trade(self, trade: Trade, book: Book) -> Params:
        """The row of /v5/execution/list."""
        order = trade.order
        named = self.known_as(order, book)
        market = order.order_type == "market"
        price = MARKET_PRICE if market else order.price
        base, quote = symbols_of(self._core.settings.pairs).get(order.symbol, ("", ""))
        size = Decimal(trade.size)
        return {
            "symbol": order.symbol,
            "orderId": named.order_id,
            "orderLinkId": named.client_id,
            "side": order.side.capitalize(),
            "orderPrice": "0" if market else order.price,
            "orderQty": order.size,
            "leavesQty": _plain(Decimal(order.size) - Decimal(order.filled)),
            "orderType": order.order_type.capitalize(),
            "stopOrderType": STOP_TYPES[named.kind],
            "execFee": _plain(_fee(order, size, Decimal(price))),
            "execId": str(trade.number),
            "execPrice": price,
            "execQty": trade.size,
            "execType": "Trade",
            "execValue": _plain(size * Decimal(price)),
            "execTime": str(trade.at_us // 1000),
            "feeCurrency": base if order.side == "buy" else quote,
            "isMaker": not market,
            "feeRate": str(FEE_RATE),
            "tradeIv": "",
            "markIv": "",
            "markPrice": "",
            "indexPrice": "",
            "underlyingPrice": "",
            "blockTradeId": "",
            "closedSize": "",
            "extraFees": "",
            "seq": trade.number >> 22,
        }


def _fee(order: Order, size: Decimal, price: Decimal) -> Decimal:
    """A buyer pays in the base coin, a seller in the quote coin (Bybit's note on spot fee currencies)."""
    return size * FEE_RATE if order.side == "buy" else size * price * FEE_RATE


def _plain(value: Decimal) -> str:
    return format(value.normalize(), "f") if value else "0"
