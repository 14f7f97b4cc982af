"""One call at a Bitget endpoint, admitted and read, and how its parameters are taken out of it."""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cancelq_worker.simulator.bitget import codes
from cancelq_worker.simulator.bitget.codes import Refusal
from cancelq_worker.simulator.core import Call
from cancelq_worker.simulator.orders import Account, Book

LARGEST_LONG = 2**63 - 1
AMOUNT = re.compile(r"[0-9]{1,24}(\.[0-9]{1,18})?")
# "length less than 50" in Bitget's FAQ (Q13), 64 in the error text; the longer one is let through.
CLIENT_ID = re.compile(r"[0-9A-Za-z+_#-]{1,64}")

Params = dict[str, Any]


@dataclass(slots=True)
class Ask:
    """`book` and `account` are the caller's; at a public endpoint empty ones."""

    book: Book
    account: Account
    params: Params
    call: Call
    english: bool


def text(params: Params, name: str) -> str:
    """The parameter as text, "" if absent. Numbers are taken as text; anything else is refused (40020)."""
    value = params.get(name)
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise Refusal(codes.PARAMETER_WRONG, name)


def needed(params: Params, name: str) -> str:
    value = text(params, name)
    if not value:
        raise Refusal(codes.PARAMETER_EMPTY, name)
    return value


def order_id_of(params: Params, name: str = "orderId") -> str:
    """ "" if absent. What is no 64-bit number is refused with 40020, as captured for orderId."""
    value = text(params, name)
    if value and not (value.isascii() and value.isdecimal() and int(value) <= LARGEST_LONG):
        raise Refusal(codes.PARAMETER_WRONG, name)
    return value


def one_of(params: Params, name: str, values: tuple[str, ...], default: str = "") -> str:
    value = text(params, name).lower() or default
    if not value:
        raise Refusal(codes.PARAMETER_EMPTY, name)
    if value not in values:
        raise Refusal(codes.PARAMETER_WRONG, name)
    return value


def amount(params: Params, name: str) -> str:
    """A positive decimal number in plain digits, as it was written."""
    value = needed(params, name)
    if not AMOUNT.fullmatch(value) or not value.strip("0."):
        raise Refusal(codes.PARAMETER_WRONG, name)
    return value


def whole(params: Params, name: str) -> int | None:
    value = text(params, name)
    if not value:
        return None
    if not (value.isascii() and value.isdecimal() and len(value) <= 19):
        raise Refusal(codes.PARAMETER_WRONG, name)
    return int(value)


@lru_cache(maxsize=8)
def symbols_of(pairs: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """Bitget's spelling of each pair, with its base and its quote."""
    split = (pair.split("-") for pair in pairs)
    return {base + quote: (base, quote) for base, quote in split}


def known_symbol(params: Params, pairs: tuple[str, ...], name: str = "symbol") -> str:
    """The pair a call is about. Refused: 40019 if absent, 40034 naming the pair if there is none such."""
    symbol = needed(params, name)
    if symbol not in symbols_of(pairs):
        raise Refusal(codes.NO_SYMBOL, symbol)
    return symbol


def optional_symbol(params: Params, pairs: tuple[str, ...]) -> str | None:
    return known_symbol(params, pairs) if params.get("symbol") else None
