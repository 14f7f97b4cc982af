"""One call at a BingX endpoint, admitted and read, and how its parameters are taken out of it."""

import re
from dataclasses import dataclass
from typing import Any

from cancelq_worker.simulator.bingx.codes import MISMATCH, NO_PAIR, PARAMETER, Refusal, invalid
from cancelq_worker.simulator.core import Call
from cancelq_worker.simulator.orders import Account, Book

LARGEST_LONG = 2**63 - 1
LONGEST_NUMBER = 40
PAIR = re.compile(r"[A-Z0-9]{1,20}-[A-Z0-9]{1,20}")
AMOUNT = re.compile(r"[0-9]{1,24}(\.[0-9]{1,18})?")
# "Only letters, numbers and _", "a limit of characters from 1 to 40" (Place order).
CLIENT_ID = re.compile(r"[0-9A-Za-z_]{1,40}")

Params = dict[str, Any]


@dataclass(slots=True)
class Ask:
    """`book` and `account` are the caller's; at a public endpoint empty ones."""

    book: Book
    account: Account
    params: Params
    call: Call


def text(params: Params, name: str) -> str:
    """The parameter as text, "" if absent. Numbers come as the text they were sent as; what is no single value is
    refused (100400).
    """
    value = params.get(name)
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    raise mismatched(name)


def mismatched(name: str) -> Refusal:
    return Refusal(PARAMETER, f"Invalid parameters, err:{name}: mismatch type with value")


def needed(params: Params, name: str) -> str:
    value = text(params, name)
    if not value:
        raise invalid(name, "required")
    return value


def number_id(value: str, name: str) -> str:
    """An order id in its shortest spelling. What is no positive 64-bit number is refused with 100400."""
    if not (_is_number(value) and 0 < int(value) <= LARGEST_LONG):
        raise mismatched(name)
    return str(int(value))


def order_id_of(params: Params, name: str = "orderId") -> str:
    """ "" if absent."""
    value = text(params, name)
    return number_id(value, name) if value else ""


def one_of(params: Params, name: str, values: tuple[str, ...], default: str = "") -> str:
    value = text(params, name) or default
    if not value:
        raise invalid(name, "required")
    if value not in values:
        raise invalid(name, "oneof")
    return value


def amount(params: Params, name: str) -> str:
    """A positive decimal number in plain digits, as it was written."""
    value = needed(params, name)
    if not AMOUNT.fullmatch(value) or not value.strip("0."):
        raise invalid(name, "gt")
    return value


def whole(params: Params, name: str) -> int | None:
    value = text(params, name)
    if not value:
        return None
    if not (_is_number(value) and int(value) <= LARGEST_LONG):
        raise mismatched(name)
    return int(value)


def _is_number(value: str) -> bool:
    return value.isascii() and value.isdecimal() and len(value) <= LONGEST_NUMBER


def known_pair(params: Params, pairs: tuple[str, ...]) -> str:
    """The pair a call is about. Refused: 100400 if it is absent or not written BASE-QUOTE, 100421 if the venue has
    none such.
    """
    symbol = needed(params, "symbol")
    if not PAIR.fullmatch(symbol):
        raise invalid("symbol", "contains")
    if symbol not in pairs:
        raise Refusal(MISMATCH, NO_PAIR)
    return symbol


def optional_pair(params: Params, pairs: tuple[str, ...]) -> str | None:
    return known_pair(params, pairs) if params.get("symbol") else None
