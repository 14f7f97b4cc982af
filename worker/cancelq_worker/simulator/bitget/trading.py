"""Bitget's endpoints that change orders: the cancels, and enough placing to have something to cancel."""

from typing import NamedTuple

from cancelq_worker.simulator.bitget import codes
from cancelq_worker.simulator.bitget.ask import (
    CLIENT_ID,
    Ask,
    Params,
    amount,
    known_symbol,
    needed,
    one_of,
    order_id_of,
    symbols_of,
    text,
)
from cancelq_worker.simulator.bitget.codes import Refusal, text_of
from cancelq_worker.simulator.core import Core, Entry, Verdict
from cancelq_worker.simulator.orders import Book, Kind, Order, State

BATCH_MOST = 50

# What an order's end looks like to a later cancel, per kind of order.
CODES = {
    Kind.order: {
        Verdict.closed: codes.NO_ORDER,
        Verdict.too_soon: codes.TOO_SOON,
        Verdict.stuck: codes.CANCEL_FAILED,
    },
    Kind.tpsl: {
        Verdict.closed: codes.TPSL_CLOSED,
        Verdict.too_soon: codes.TOO_SOON,
        Verdict.stuck: codes.CANCEL_FAILED,
    },
    Kind.plan: {Verdict.closed: codes.PLAN_CLOSED, Verdict.too_soon: codes.TOO_SOON},
}


class _Item(NamedTuple):
    symbol: str
    order_id: str
    client_id: str
    order: Order | None
    code: str


class Trading:
    """One method per endpoint; each returns the answer's `data` or raises `Refusal`."""

    def __init__(self, core: Core) -> None:
        self._core = core

    # ---- normal orders and TP/SL orders

    def cancel_order(self, ask: Ask) -> Params:
        params = ask.params
        if one_of(params, "tpslType", ("normal", "tpsl"), "normal") == "tpsl":
            return self._cancel_tpsl(ask)
        symbol = known_symbol(params, self._core.settings.pairs)
        item = _found(ask.book, params, symbol)
        code = item.code or self._cancel(ask, item.order)
        if code:
            self._note_missed(ask, item)
            raise Refusal(code)
        return _ids(item)

    def _cancel_tpsl(self, ask: Ask) -> Params:
        order_id = order_id_of(ask.params)
        if not order_id:
            raise Refusal(codes.PARAMETER_EMPTY, "orderId")
        order = ask.book.by_id.get(order_id)
        if order is None or order.kind is not Kind.tpsl:
            raise Refusal(codes.NO_TPSL)
        code = self._cancel(ask, order)
        if code:
            raise Refusal(code)
        return {"orderId": order_id, "clientOid": order.client_id}

    def batch_cancel(self, ask: Ask) -> Params:
        """Nothing is cancelled unless every item can be read; then each item stands for itself."""
        done: list[Params] = []
        failed: list[Params] = []
        first_code = ""
        for item in self._batch_items(ask):
            code = item.code or self._cancel(ask, item.order)
            if code:
                self._note_missed(ask, item)
                first_code = first_code or code
                failed.append(self._failure(item, code, ask.english))
            else:
                done.append(_ids(item))
        if first_code and not done and self._core.settings.bitget_all_failed == "top":
            raise Refusal(first_code)
        return {"successList": done, "failureList": failed}

    def _batch_items(self, ask: Ask) -> list[_Item]:
        params = ask.params
        pairs = self._core.settings.pairs
        rows = params.get("orderList")
        if not isinstance(rows, list) or not rows:
            raise Refusal(codes.PARAMETER_EMPTY, "orderList")
        if len(rows) > BATCH_MOST:
            raise Refusal(codes.BATCH_TOO_LARGE)
        mode = one_of(params, "batchMode", ("single", "multiple"), "single")
        outer = known_symbol(params, pairs) if mode == "single" else ""
        symbols = symbols_of(pairs)
        items = []
        for row in rows:
            if not isinstance(row, dict):
                raise Refusal(codes.PARAMETER_WRONG, "orderList")
            symbol = outer or needed(row, "symbol")
            item = _found(ask.book, row, symbol)
            items.append(item if symbol in symbols else item._replace(code=codes.NO_SYMBOL))
        # "It is not permitted to mix the use of orderId and clientOid. Otherwise, orders that only submit a
        # clientOid will fail to be cancelled."
        if any(item.order_id for item in items):
            return [item if item.order_id else item._replace(code=codes.NO_ORDER) for item in items]
        return items

    def _failure(self, item: _Item, code: str, english: bool) -> Params:
        failure = {
            "orderId": item.order_id or (item.order.order_id if item.order else ""),
            "clientOid": item.client_id or (item.order.client_id if item.order else ""),
            "errorMsg": text_of(code, item.symbol, english),
        }
        if self._core.settings.bitget_error_codes:
            failure["errorCode"] = code
        return failure

    def _cancel(self, ask: Ask, order: Order | None) -> str:
        """ "" if the cancel was taken, else the code of the refusal."""
        if order is None:
            return codes.NO_ORDER
        verdict = self._core.cancel(ask.book, order, ask.call)
        if verdict is Verdict.accepted:
            return ""
        return CODES[order.kind][verdict]

    def _note_missed(self, ask: Ask, item: _Item) -> None:
        """A call that named an order of another kind or pair is told in the truth as well."""
        if item.order is None:
            ask.call.failed_items += 1
        elif item.code:
            self._core.note(item.order, ask.call, Verdict.not_here)

    def cancel_symbol(self, ask: Ask) -> Params:
        """Acknowledged at once, executed later; normal orders only."""
        symbol = known_symbol(ask.params, self._core.settings.pairs)
        self._core.cancel_symbol(ask.book, Kind.order, symbol, ask.call)
        return {"symbol": symbol}

    # ---- plan (trigger) orders

    def cancel_plan(self, ask: Ask) -> Params:
        order_id, client_id = order_id_of(ask.params), text(ask.params, "clientOid")
        if not order_id and not client_id:
            raise Refusal(codes.ID_MISSING)
        order = ask.book.by_id.get(order_id) if order_id else ask.book.plan_by_client.get(client_id)
        if order is None or order.kind is not Kind.plan:
            raise Refusal(codes.NO_PLAN)
        verdict = self._core.cancel(ask.book, order, ask.call)
        if verdict is Verdict.stuck:
            return {"result": "failure"}
        if verdict is not Verdict.accepted:
            raise Refusal(CODES[Kind.plan][verdict])
        return {"result": "success"}

    def batch_cancel_plan(self, ask: Ask) -> Params:
        """All open plan orders of the pairs listed; without a list, of the account."""
        symbols = ask.params.get("symbolList") or []
        if not isinstance(symbols, list) or not all(isinstance(symbol, str) for symbol in symbols):
            raise Refusal(codes.PARAMETER_WRONG, "symbolList")
        for symbol in symbols:
            if symbol not in symbols_of(self._core.settings.pairs):
                raise Refusal(codes.NO_SYMBOL, symbol)
        done: list[Params] = []
        failed: list[Params] = []
        for order in list(ask.book.open_orders(Kind.plan)):
            if symbols and order.symbol not in symbols:
                continue
            row = {"orderId": order.order_id, "clientOid": order.client_id}
            if self._core.cancel(ask.book, order, ask.call) is Verdict.accepted:
                done.append(row)
            else:
                failed.append({**row, "errorMsg": "failure"})
        return {"successList": done, "failureList": failed}

    # ---- placing

    def place_order(self, ask: Ask) -> Params:
        """A limit order rests for ever, a market order is filled at once, fok and ioc find no other side."""
        return self._placed(ask, ask.params, known_symbol(ask.params, self._core.settings.pairs))

    def batch_place(self, ask: Ask) -> Params:
        params = ask.params
        pairs = self._core.settings.pairs
        rows = params.get("orderList")
        if not isinstance(rows, list) or not rows:
            raise Refusal(codes.PARAMETER_EMPTY, "orderList")
        if len(rows) > BATCH_MOST:
            raise Refusal(codes.BATCH_TOO_LARGE)
        single = one_of(params, "batchMode", ("single", "multiple"), "single") == "single"
        outer = known_symbol(params, pairs) if single else ""
        done: list[Params] = []
        failed: list[Params] = []
        for row in rows:
            if not isinstance(row, dict):
                raise Refusal(codes.PARAMETER_WRONG, "orderList")
            try:
                done.append(self._placed(ask, row, outer or known_symbol(row, pairs)))
            except Refusal as refusal:
                failed.append(
                    {
                        "orderId": "",
                        "clientOid": row.get("clientOid") or "",
                        "errorMsg": text_of(refusal.code, refusal.about, ask.english),
                        "errorCode": refusal.code,
                    }
                )
        return {"successList": done, "failureList": failed}

    def _placed(self, ask: Ask, params: Params, symbol: str) -> Params:
        kind = Kind(one_of(params, "tpslType", ("normal", "tpsl"), "normal").replace("normal", "order"))
        order_type = one_of(params, "orderType", ("limit", "market"))
        force = one_of(params, "force", ("gtc", "post_only", "fok", "ioc"), "gtc")
        entry = Entry(
            symbol=symbol,
            kind=kind,
            side=one_of(params, "side", ("buy", "sell")),
            order_type=order_type,
            price=amount(params, "price") if order_type == "limit" else "0",
            size=amount(params, "size"),
            trigger_price=amount(params, "triggerPrice") if kind is Kind.tpsl else "",
            client_id="" if kind is Kind.tpsl else self._new_client_id(ask.book, kind, params),
            by=f"call:{ask.call.seq}",
        )
        order = self._core.enter(ask.book, entry)
        at_us = ask.call.steady_us
        if kind is Kind.order and order_type == "market":
            self._core.fill(ask.book, order, order.size, at_us, "market")
        elif kind is Kind.order and force in ("fok", "ioc"):
            self._core.close(ask.book, order, State.cancelled, at_us, force)
        return {"orderId": order.order_id, "clientOid": order.client_id}

    def place_plan(self, ask: Ask) -> Params:
        params = ask.params
        order_type = one_of(params, "orderType", ("limit", "market"))
        one_of(params, "triggerType", ("fill_price", "mark_price", "market_price"))
        one_of(params, "planType", ("amount", "total"), "amount")
        entry = Entry(
            symbol=known_symbol(params, self._core.settings.pairs),
            kind=Kind.plan,
            side=one_of(params, "side", ("buy", "sell")),
            order_type=order_type,
            price=amount(params, "executePrice") if order_type == "limit" else "0",
            size=amount(params, "size"),
            trigger_price=amount(params, "triggerPrice"),
            client_id=self._new_client_id(ask.book, Kind.plan, params),
            by=f"call:{ask.call.seq}",
        )
        order = self._core.enter(ask.book, entry)
        return {"orderId": order.order_id, "clientOid": order.client_id}

    def _new_client_id(self, book: Book, kind: Kind, params: Params) -> str:
        client_id = text(params, "clientOid")
        if not client_id:
            # The venue gives an order one of its own.
            return f"s{self._core.calls_seen}-{len(book.orders)}"
        if not CLIENT_ID.fullmatch(client_id):
            raise Refusal(codes.CLIENT_ID_FORM)
        if client_id in (book.plan_by_client if kind is Kind.plan else book.by_client):
            raise Refusal(codes.CLIENT_ID_TAKEN)
        return client_id


def _found(book: Book, params: Params, symbol: str) -> _Item:
    """The normal order that is named, or the code why there is none. Of two ids the order id counts."""
    order_id = params.get("orderId") or ""
    order = book.by_id.get(order_id) if isinstance(order_id, str) else None
    client_id = ""
    if order is None:
        order_id, client_id = order_id_of(params), text(params, "clientOid")
        if not order_id and not client_id:
            raise Refusal(codes.ID_MISSING)
        order = book.by_id.get(order_id) if order_id else book.by_client.get(client_id)
    if order is None:
        code = codes.NO_ORDER
    elif order.kind is Kind.order and order.symbol == symbol:
        code = ""
    else:
        code = codes.NO_DATA if order.kind is Kind.plan else codes.NO_ORDER
    return _Item(symbol, order_id, client_id, order, code)


def _ids(item: _Item) -> Params:
    assert item.order is not None
    return {"orderId": item.order.order_id, "clientOid": item.order.client_id}
