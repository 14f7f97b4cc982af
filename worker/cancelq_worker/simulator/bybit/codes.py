"""Bybit's return codes as far as the simulator gives them, with their texts.

Codes and meanings: the error page of Bybit's v5 documents. The texts of 10001, 10002 and 10004 follow what
clients captured; nobody may match on them, except that 10001 stands for several things.
"""

from typing import Any

OK = "0"
# Not of the order tables: the platform's own protection, as HTTP status and as code.
PLATFORM = "429"
# No code but a page of text, with HTTP 403: the address is over its limit.
IP_BANNED = "403"

PARAMETER = "10001"
TIME_WINDOW = "10002"
KEY_INVALID = "10003"
SIGN_WRONG = "10004"
PERMISSION = "10005"
TOO_MANY = "10006"
NO_ROUTE = "10017"
# What a demo account is told at an endpoint it does not have; in no table, but known to users of demo trading.
NOT_ON_DEMO = "10032"
NO_ORDER_LINEAR = "110001"
EMPTY = "170105"
SIDE_INVALID = "170117"
TYPE_INVALID = "170116"
FORCE_INVALID = "170115"
SYMBOL_INVALID = "170121"
DATA_INVALID = "170130"
FILLED = "170139"
LINK_ID_TAKEN = "170141"
CANCELLED = "170142"
NOT_ON_BOOK = "170143"
TRY_LATER = "170191"
CANCEL_FINISHED = "170190"
CANCEL_SUBMITTED = "170035"
FILTER_INVALID = "170201"
CANCEL_PROCESSING = "170212"
NO_ORDER = "170213"

# Of no table; a client must not take it for anything.
INVENTED = "199987"

TEXTS = {
    OK: "OK",
    PLATFORM: "System level frequency protection.",
    PARAMETER: "Request parameter error{0}",
    TIME_WINDOW: "invalid request, please check your server timestamp or recv_window param. {0}",
    KEY_INVALID: "API key is invalid.",
    SIGN_WRONG: "error sign! origin_string[{0}]",
    PERMISSION: "Permission denied, please check your API key permissions.",
    TOO_MANY: "Too many visits!",
    NO_ROUTE: "Route not found.",
    NOT_ON_DEMO: "Demo trading are not supported.",
    NO_ORDER_LINEAR: "order not exists or too late to cancel",
    EMPTY: "Parameter '{0}' was empty.",
    SIDE_INVALID: "Invalid side.",
    TYPE_INVALID: "Invalid orderType.",
    FORCE_INVALID: "Invalid timeInForce.",
    SYMBOL_INVALID: "Invalid symbol.",
    DATA_INVALID: "Data sent for parameter '{0}' is not valid.",
    FILLED: "Order has been filled.",
    LINK_ID_TAKEN: "Duplicate clientOrderId.",
    CANCELLED: "Order has been canceled.",
    NOT_ON_BOOK: "Cannot be found on order book.",
    TRY_LATER: "Can not cancel order, please try again later.",
    CANCEL_FINISHED: "Cancel order has been finished.",
    CANCEL_SUBMITTED: "Submitted to the system for processing!",
    FILTER_INVALID: "Invalid orderFilter parameter.",
    CANCEL_PROCESSING: "Cancel order request is processing.",
    NO_ORDER: "Order does not exist.",
}


class Refusal(Exception):
    """The whole call, or one item of a batch, is refused with this code; `about` completes its text."""

    def __init__(self, code: str, about: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.about = about

    @property
    def text(self) -> str:
        return TEXTS.get(self.code, "Unknown error.").replace("{0}", self.about)


def written(code: str) -> Any:
    """The code as answers carry it: a number."""
    return int(code) if code.lstrip("-").isdecimal() and code.isascii() else code
