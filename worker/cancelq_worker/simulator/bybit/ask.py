"""One call at a Bybit endpoint, admitted and read, and how its parameters are taken out of it."""

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from cancelq_worker.simulator.bybit import codes
from cancelq_worker.simulator.bybit.codes import Refusal
from cancelq_worker.simulator.core import Call
from cancelq_worker.simulator.orders import Account, Book, Kind

LARGEST_LONG = 2**63 - 1
AMOUNT = re.compile(r"[0-9]{1,24}(\.[0-9]{1,18})?")
# "No longer than 36 characters", numbers, letters, dashes and underscores (page of /v5/order/create).
LINK_ID = re.compile(r"[0-9A-Za-z_-]{1,36}")

# `orderFilter` to the orders it means. Nothing of the last two kinds can be placed here.
FILTERS = {
    "Order": Kind.order,
    "tpslOrder": Kind.tpsl,
    "StopOrder": Kind.plan,
    "OcoOrder": None,
    "BidirectionalTpslOrder": None,
}

Params = dict[str, Any]


class Answer(NamedTuple):
    """`result` and `retExtInfo` of an answer."""

    result: Params
    ext: Params | None = None


@dataclass(slots=True)
class Ask:
    """`book` and `account` are the caller's; at a public endpoint they are empty. `room` tells, at the endpoints that
    count orders, for each item of the batch whether there was room for it.
    """

    book: Book
    account: Account
    params: Params
    call: Call
    room: list[bool] = field(default_factory=list)


def text(params: Params, name: str) -> str:
    """The parameter, "" if absent. What is no text in a body is refused (10001): a number is none, however often it
    is sent as an id or a quantity.
    """
    value = params.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Refusal(codes.PARAMETER, f": {name}")
    return value


def check_category(params: Params) -> None:
    """Spot is all there is here (10001 for anything else)."""
    if text(params, "category") != "spot":
        raise Refusal(codes.PARAMETER, ": Illegal category")


def ids_of(params: Params) -> tuple[str, str]:
    """`orderId` and `orderLinkId`; where both are given the second one is "", since "the system will process orderId
    first". Both may be absent. An order id that is no 64-bit number is refused with 170130.
    """
    order_id = text(params, "orderId")
    if not order_id:
        return "", text(params, "orderLinkId")
    if not (order_id.isascii() and order_id.isdecimal() and int(order_id) <= LARGEST_LONG):
        raise Refusal(codes.DATA_INVALID, "orderId")
    return order_id, ""


def needed_ids(params: Params) -> tuple[str, str]:
    order_id, link_id = ids_of(params)
    if not order_id and not link_id:
        raise Refusal(codes.PARAMETER, ": orderId or orderLinkId is required")
    return order_id, link_id


def needed_symbol(params: Params, pairs: tuple[str, ...]) -> str:
    """The pair a call is about. Upper case only; 170121 if there is none such."""
    symbol = text(params, "symbol")
    if not symbol:
        raise Refusal(codes.PARAMETER, ": symbol")
    if symbol not in symbols_of(pairs):
        raise Refusal(codes.SYMBOL_INVALID)
    return symbol


def optional_symbol(params: Params, pairs: tuple[str, ...]) -> str | None:
    return needed_symbol(params, pairs) if text(params, "symbol") else None


def kinds_of(params: Params, default: tuple[Kind, ...]) -> tuple[Kind, ...]:
    """The kinds of order that `orderFilter` names; 170201 for a word that is none."""
    word = text(params, "orderFilter")
    if not word:
        return default
    if word not in FILTERS:
        raise Refusal(codes.FILTER_INVALID)
    kind = FILTERS[word]
    return () if kind is None else (kind,)


def amount(params: Params, name: str) -> str:
    """A positive decimal number in plain digits, as it was written."""
    value = text(params, name)
    if not value:
        raise Refusal(codes.EMPTY, name)
    if not AMOUNT.fullmatch(value) or not value.strip("0."):
        raise Refusal(codes.DATA_INVALID, name)
    return value


def whole(params: Params, name: str) -> int | None:
    value = text(params, name)
    if not value:
        return None
    if not (value.isascii() and value.isdecimal() and len(value) <= 19):
        raise Refusal(codes.PARAMETER, f": {name}")
    return int(value)


def limit_of(params: Params, default: int, most: int) -> int:
    limit = whole(params, "limit")
    if limit is None:
        return default
    if not 1 <= limit <= most:
        raise Refusal(codes.PARAMETER, ": limit")
    return limit


def batch_of(params: Params, most: int) -> list[Any]:
    """The items of a batch, 1 to `most`; 10001 otherwise."""
    items = params.get("request")
    if not isinstance(items, list) or not items:
        raise Refusal(codes.PARAMETER, ": request")
    if len(items) > most:
        raise Refusal(codes.PARAMETER, f": The number of orders in one request cannot exceed {most}")
    return items


@lru_cache(maxsize=8)
def symbols_of(pairs: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """Bybit's spelling of each pair, with its base and its quote."""
    split = (pair.split("-") for pair in pairs)
    return {base + quote: (base, quote) for base, quote in split}
