"""Bybit's endpoints that change orders: the cancels, and enough placing to have something to cancel.

Every answer here is an acknowledgement: "this request is asynchronous" (pages of all three cancels).
"""

from decimal import Decimal

from cancelq_worker.simulator.bybit import codes
from cancelq_worker.simulator.bybit.ask import (
    LINK_ID,
    Answer,
    Ask,
    Params,
    amount,
    batch_of,
    check_category,
    kinds_of,
    needed_ids,
    needed_symbol,
    optional_symbol,
    symbols_of,
    text,
)
from cancelq_worker.simulator.bybit.codes import Refusal, written
from cancelq_worker.simulator.bybit.rows import Rows
from cancelq_worker.simulator.core import MARKET_PRICE, Core, Entry, Verdict
from cancelq_worker.simulator.orders import Book, Kind, Order, State

# "10 orders (spot) can be cancelled per request" (page of /v5/order/cancel-batch; the same for create-batch).
BATCH_MOST = 10
FORCES = ("GTC", "IOC", "FOK", "PostOnly")
BY_STATE = {State.filled: codes.FILLED, State.cancelled: codes.CANCELLED}


class Trading:
    """One method per endpoint; each returns an `Answer` or raises `Refusal`."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._rows = Rows(core)

    # ---- cancelling

    def cancel(self, ask: Ask) -> Answer:
        check_category(ask.params)
        kinds = kinds_of(ask.params, (Kind.order,))
        order = self._cancelled(ask, ask.params, kinds[0] if kinds else None)
        return Answer(self._rows.ids(order, ask.book))

    def cancel_batch(self, ask: Ask) -> Answer:
        """Each item stands for itself, in the order they came. Only normal orders: it has no `orderFilter`."""
        if ask.account.demo:
            raise Refusal(codes.NOT_ON_DEMO)
        check_category(ask.params)
        items = batch_of(ask.params, BATCH_MOST)
        if not any(ask.room) and self._core.settings.bybit_batch_spent == "whole":
            raise Refusal(codes.TOO_MANY)
        rows: list[Params] = []
        outcomes: list[Params] = []
        for item, room in zip(items, ask.room, strict=True):
            params = item if isinstance(item, dict) else {}
            try:
                if not room:
                    raise Refusal(codes.TOO_MANY)
                ids = self._rows.ids(self._cancelled(ask, params, Kind.order), ask.book)
                outcomes.append(_outcome(codes.OK))
            except Refusal as refusal:
                ids = self._failed_ids(params)
                outcomes.append(_outcome(refusal.code, refusal.text))
            rows.append({"category": "spot", "symbol": params.get("symbol", ""), **ids})
        return Answer({"list": rows}, {"list": outcomes})

    def _failed_ids(self, params: Params) -> Params:
        echoed = params.get("orderId", "") if self._core.settings.bybit_failed_ids == "echo" else ""
        return {"orderId": echoed, "orderLinkId": params.get("orderLinkId", "")}

    def cancel_all(self, ask: Ask) -> Answer:
        """All open orders of one kind: of a pair, or of the whole account. Executed later, on what is open then."""
        core, params = self._core, ask.params
        check_category(params)
        symbol = optional_symbol(params, core.settings.pairs)
        listed: list[Params] = []
        for kind in kinds_of(params, (Kind.order,)):
            listed += [self._rows.ids(order, ask.book) for order in ask.book.open_orders(kind, symbol)]
            for pair in [symbol] if symbol else symbols_of(core.settings.pairs):
                core.cancel_symbol(ask.book, kind, pair, ask.call)
        return Answer({"list": listed, "success": "1"} if core.settings.bybit_cancel_all_list else {"success": "1"})

    def _cancelled(self, ask: Ask, params: Params, kind: Kind | None) -> Order:
        """The order whose cancel was acknowledged. Raises `Refusal`, always if there is nothing of that kind."""
        core, call = self._core, ask.call
        try:
            symbol = needed_symbol(params, core.settings.pairs)
            order = self._rows.find(ask.book, *needed_ids(params))
        except Refusal:
            call.failed_items += 1
            raise
        if order is None:
            call.failed_items += 1
            raise Refusal(codes.NO_ORDER)
        if order.symbol != symbol or order.kind is not kind:
            core.note(order, call, Verdict.not_here)
            raise Refusal(codes.NO_ORDER)
        verdict = core.cancel(ask.book, order, call, paced=False)
        code = self._code_of(verdict, order)
        if code != codes.OK:
            raise Refusal(code)
        return order

    def _code_of(self, verdict: Verdict, order: Order) -> str:
        settings = self._core.settings
        match verdict:
            case Verdict.accepted:
                return codes.OK
            case Verdict.pending:
                return settings.bybit_pending_code
            case Verdict.stuck:
                return codes.TRY_LATER
            case _ if settings.bybit_closed_code == "by_state":
                return BY_STATE.get(order.state, codes.NO_ORDER)
            case _:
                return settings.bybit_closed_code

    # ---- placing

    def create(self, ask: Ask) -> Answer:
        """A limit order rests for ever, a market order is filled at once, IOC and FOK find no other side."""
        check_category(ask.params)
        return Answer(self._placed(ask, ask.params))

    def create_batch(self, ask: Ask) -> Answer:
        if ask.account.demo:
            raise Refusal(codes.NOT_ON_DEMO)
        check_category(ask.params)
        items = batch_of(ask.params, BATCH_MOST)
        rows: list[Params] = []
        outcomes: list[Params] = []
        for item, room in zip(items, ask.room, strict=True):
            params = item if isinstance(item, dict) else {}
            placed: Params = {"orderId": "", "orderLinkId": params.get("orderLinkId", "")}
            created_at = ""
            try:
                if not room:
                    raise Refusal(codes.TOO_MANY)
                placed = self._placed(ask, params)
                created_at = str(self._core.venue_us() // 1000)
                outcomes.append(_outcome(codes.OK))
            except Refusal as refusal:
                outcomes.append(_outcome(refusal.code, refusal.text))
            rows.append({"category": "spot", "symbol": params.get("symbol", ""), **placed, "createAt": created_at})
        return Answer({"list": rows}, {"list": outcomes})

    def _placed(self, ask: Ask, params: Params) -> Params:
        core, book = self._core, ask.book
        entry = self._entry(book, params, f"call:{ask.call.seq}")
        force = text(params, "timeInForce") or "GTC"
        # Bybit's own example of a spot TP/SL order has "timeInForce":"Limit"; it is taken there.
        if force not in FORCES and entry.kind is Kind.order:
            raise Refusal(codes.FORCE_INVALID)
        order = core.enter(book, entry)
        at_us = ask.call.steady_us
        if order.kind is Kind.order and order.order_type == "market":
            core.fill(book, order, order.size, at_us, "market")
        elif order.kind is Kind.order and force in ("IOC", "FOK"):
            core.close(book, order, State.cancelled, at_us, force)
            order.cancel_reason = "EC_NoImmediateQtyToFill"
        return self._rows.ids(order, book)

    def _entry(self, book: Book, params: Params, by: str) -> Entry:
        symbol = needed_symbol(params, self._core.settings.pairs)
        side, order_type = text(params, "side"), text(params, "orderType")
        if side not in ("Buy", "Sell"):
            raise Refusal(codes.SIDE_INVALID)
        if order_type not in ("Limit", "Market"):
            raise Refusal(codes.TYPE_INVALID)
        # "If triggerPrice is set, the order will be automatically converted into a conditional order."
        default = Kind.plan if text(params, "triggerPrice") else Kind.order
        kinds = kinds_of(params, (default,))
        if not kinds:
            raise Refusal(codes.FILTER_INVALID)
        return Entry(
            symbol=symbol,
            kind=kinds[0],
            side=side.lower(),
            order_type=order_type.lower(),
            price=amount(params, "price") if order_type == "Limit" else "0",
            size=_size(params, side, order_type),
            trigger_price="" if kinds[0] is Kind.order else amount(params, "triggerPrice"),
            client_id=_new_link_id(book, params),
            by=by,
        )


def _outcome(code: str, told: str = "OK") -> Params:
    return {"code": written(code), "msg": told}


def _size(params: Params, side: str, order_type: str) -> str:
    """In the base coin. "Market Buy order by value by default"."""
    size = amount(params, "qty")
    unit = text(params, "marketUnit") or ("quoteCoin" if side == "Buy" else "baseCoin")
    if order_type == "Limit" or unit == "baseCoin":
        return size
    return format((Decimal(size) / Decimal(MARKET_PRICE)).normalize(), "f")


def _new_link_id(book: Book, params: Params) -> str:
    link_id = text(params, "orderLinkId")
    if not link_id:
        return ""
    if not LINK_ID.fullmatch(link_id):
        raise Refusal(codes.DATA_INVALID, "orderLinkId")
    if link_id in book.by_client or link_id in book.plan_by_client:
        raise Refusal(codes.LINK_ID_TAKEN)
    return link_id
