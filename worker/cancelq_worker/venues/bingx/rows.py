"""What a row says about an order, in whatever list or answer it stands.

Facts (BingX API documentation): order ids are JSON numbers of 19 digits, text in some places; `PENDING` is an order
that rests; a cancelled order may have filled in part; the client id's name is spelt in several ways. What a trigger
order that fired shows is documented nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from cancelq_worker.venues.bingx.signing import is_safe
from cancelq_worker.venues.port import Reply, Target, Word
from cancelq_worker.venues.reading import filled, safe_id, word

Row = Mapping[str, Any]

#: The venue's words for an order's state. `WORKING`, `RUNNING`, `EXPIRED`: seen by ccxt and JKorf/BingX.Net.
STATES: Final = {
    "NEW": Word.OPEN,
    "PENDING": Word.OPEN,
    "PARTIALLY_FILLED": Word.OPEN,
    "WORKING": Word.OPEN,
    "RUNNING": Word.OPEN,
    "FILLED": Word.FILLED,
    "CANCELED": Word.CANCELLED,
    "CANCELLED": Word.CANCELLED,
    "FAILED": Word.CLOSED,
    "EXPIRED": Word.CLOSED,
}

_CLIENT_NAMES: Final = ("clientOrderID", "clientOrderId", "origClientOrderId")
_ORDER_ID = re.compile(r"[1-9][0-9]{0,31}", re.ASCII)
_AMOUNT = re.compile(r"[0-9]{1,30}(\.[0-9]{1,30})?", re.ASCII)
_PAIR = re.compile(r"[^-]{1,32}-[^-]{1,32}")


def is_order_id(text: str) -> bool:
    """Whether this can be an order's id: the venue's are positive 64-bit numbers."""
    return _ORDER_ID.fullmatch(text) is not None


def is_pair(text: str) -> bool:
    """Whether this can be a pair of BingX spot: two names with a hyphen between, safe to be signed. A name of other
    letters than A to Z is the venue's to judge: in a list, it must not hide the other rows."""
    return _PAIR.fullmatch(text) is not None and is_safe(text)


def order_id_of(row: Row) -> str:
    """The order's id as exact text; "" where there is none, or one that went through a float."""
    value = row.get("orderId")
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return value if isinstance(value, str) and is_order_id(value) else ""


def client_id_of(row: Row) -> str | None:
    """The order's client id, "" for an order without one, None if the row does not tell."""
    told = [row[name] for name in _CLIENT_NAMES if isinstance(row.get(name), str)]
    return next((name for name in told if name), "") if told else None


def kind_of(row: Row) -> str:
    """The scope this order belongs to, by its type; "" if the row does not tell."""
    told = row.get("type")
    kind = told.upper() if isinstance(told, str) else ""
    if kind.startswith("TAKE_STOP_"):
        return "tpsl"
    if kind.startswith("TRIGGER_"):
        return "stop"
    return "order" if kind else ""


def order_keys(symbol: str, order_id: str, client_order_id: str) -> tuple[str, ...]:
    """The keys of an order in a lane's index, by each id that is known."""
    keys = []
    if order_id:
        keys.append(f"i:{order_id}")
    if client_order_id:
        keys.append(f"c:{symbol}:{client_order_id}")
    return tuple(keys)


def is_about(target: Target, row: Row) -> bool:
    """Whether a row speaks of this very order."""
    if word(row, "symbol") not in ("", target.symbol):
        return False
    if target.order_id:
        return order_id_of(row) == target.order_id and target.may_bear(client_id_of(row) or "")
    return bool(target.client_order_id) and target.client_order_id in [row.get(name) for name in _CLIENT_NAMES]


def state_of(row: Row) -> Word:
    """What the row says has become of the order; `UNCLEAR` for a word that is not known."""
    state = STATES.get(word(row, "status").upper(), Word.UNCLEAR)
    if state is Word.FILLED and kind_of(row) in ("tpsl", "stop"):
        # One that fired into another order is not filled itself.
        executed = _executed(row)
        if executed is None:
            return Word.UNCLEAR
        return Word.FILLED if filled(executed) else Word.TRIGGERED
    return state


def said_of(row: Row, meant: Word, *, text: str = "", place: str = "", status: int = 0) -> Reply:
    """A reply with all the row tells of its order."""
    return Reply(
        meant,
        text=text,
        http_status=status,
        order_id=order_id_of(row),
        client_order_id=safe_id(client_id_of(row) or ""),
        venue_state=re.sub(r"[^A-Za-z0-9_-]", "_", word(row, "status", 40)),
        filled=filled(_executed(row) or ""),
        place=place,
    )


def _executed(row: Row) -> str | None:
    """The executed quantity as decimal text, None if there is none that can be read."""
    value = row.get("executedQty")
    if isinstance(value, float):
        value = format(Decimal(repr(value)), "f")
    elif isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return value if isinstance(value, str) and _AMOUNT.fullmatch(value) else None
