"""BingX's endpoints that place orders: enough of them to have something to cancel."""

from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

import orjson
from orjson import Fragment

from cancelq_worker.simulator.bingx import codes
from cancelq_worker.simulator.bingx.ask import (
    AMOUNT,
    CLIENT_ID,
    Ask,
    Params,
    amount,
    known_pair,
    mismatched,
    one_of,
    text,
)
from cancelq_worker.simulator.bingx.codes import Refusal, invalid
from cancelq_worker.simulator.bingx.rows import Rows, plain
from cancelq_worker.simulator.core import MARKET_PRICE, Core, Entry
from cancelq_worker.simulator.orders import Book, Kind, Order, State

BATCH_MOST = 5
TYPES = {
    "LIMIT": (Kind.order, "limit"),
    "MARKET": (Kind.order, "market"),
    "TAKE_STOP_LIMIT": (Kind.tpsl, "limit"),
    "TAKE_STOP_MARKET": (Kind.tpsl, "market"),
    "TRIGGER_LIMIT": (Kind.plan, "limit"),
    "TRIGGER_MARKET": (Kind.plan, "market"),
}


class _Wanted(NamedTuple):
    entry: Entry
    force: str


class Placing:
    """One method per endpoint; each returns the answer's `data` or raises `Refusal`."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._rows = Rows(core)

    def order(self, ask: Ask) -> Fragment:
        """A limit order rests for ever, a market order is filled at once, FOK and IOC find no other side."""
        return self._rows.placed(self._enter(ask, self._read(ask.book, ask.params)))

    def batch(self, ask: Ask) -> Params:
        """Nothing is placed unless every order can be read."""
        wanted = [self._read(ask.book, item) for item in _items(ask.params)]
        client_ids = [one.entry.client_id for one in wanted if one.entry.client_id]
        if len(set(client_ids)) < len(client_ids):
            raise _taken()
        return {"orders": [self._rows.placed(self._enter(ask, one)) for one in wanted]}

    def _read(self, book: Book, params: Params) -> _Wanted:
        pair = known_pair(params, self._core.settings.pairs)
        kind, order_type = TYPES[one_of(params, "type", tuple(TYPES))]
        price = amount(params, "price") if order_type == "limit" else "0"
        trigger_price = "" if kind is Kind.order else amount(params, "stopPrice")
        entry = Entry(
            symbol=pair,
            kind=kind,
            side=one_of(params, "side", ("BUY", "SELL")).lower(),
            order_type=order_type,
            price=price,
            size=_size(params, price if order_type == "limit" else trigger_price or MARKET_PRICE),
            trigger_price=trigger_price,
            client_id=_client_id(book, params),
        )
        return _Wanted(entry, one_of(params, "timeInForce", ("PostOnly", "GTC", "IOC", "FOK"), "GTC"))

    def _enter(self, ask: Ask, wanted: _Wanted) -> Order:
        entry, force = wanted
        entry.by = f"call:{ask.call.seq}"
        order = self._core.enter(ask.book, entry)
        if entry.kind is Kind.order:
            if entry.order_type == "market":
                self._core.fill(ask.book, order, order.size, self._core.now_us, "market")
            elif force in ("IOC", "FOK"):
                self._core.close(ask.book, order, State.cancelled, self._core.now_us, force)
        return order


def _items(params: Params) -> list[Params]:
    """The orders of a batch: a JSON text, as in the samples, or a list inside a JSON body."""
    held: Any = params.get("data")
    if isinstance(held, str):
        try:
            held = orjson.loads(held)
        except orjson.JSONDecodeError:
            raise mismatched("data") from None
    if not isinstance(held, list) or not held or not all(isinstance(item, dict) for item in held):
        raise invalid("data", "required")
    if len(held) > BATCH_MOST:
        raise invalid("data", "max")
    return [{name: _text_of(value) for name, value in item.items()} for item in held]


def _text_of(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return plain(Decimal(str(value)))
    return value


def _size(params: Params, price: str) -> str:
    """ "If quantity and quoteOrderQty are input at the same time, quantity will be used first"."""
    if text(params, "quantity"):
        return amount(params, "quantity")
    try:
        size = plain((Decimal(amount(params, "quoteOrderQty")) / Decimal(price)).quantize(Decimal("1e-18")))
    except InvalidOperation:
        # More digits than can be reckoned with.
        raise invalid("quoteOrderQty", "max") from None
    if not AMOUNT.fullmatch(size) or size == "0":
        raise invalid("quoteOrderQty", "gt")
    return size


def _client_id(book: Book, params: Params) -> str:
    client_id = text(params, "newClientOrderId")
    if client_id and not CLIENT_ID.fullmatch(client_id):
        raise invalid("newClientOrderId", "max")
    if client_id in book.by_client or client_id in book.plan_by_client:
        raise _taken()
    return client_id


def _taken() -> Refusal:
    return Refusal(codes.PARAMETER, "clientOrderID is duplicated")
