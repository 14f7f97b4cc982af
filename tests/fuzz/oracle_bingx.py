"""The oracle for BingX: its v1 spot documents."""

from __future__ import annotations

import re
from typing import Any

from cancelq_worker.venues.port import Answer
from tests.fuzz.oracle import (
    NOTHING,
    UNREADABLE,
    Listed,
    Stated,
    agreed,
    body_of,
    judge_row,
    rows_of,
    some_rows_of,
    text,
)
from tests.fuzz.question import Named, Question

OPEN_MOST, PAGE = 2_000, 100
OPEN = frozenset({"NEW", "PENDING", "PARTIALLY_FILLED", "WORKING", "RUNNING"})
ENDS: dict[str, Stated] = {
    "FILLED": frozenset({"filled"}),
    "CANCELED": frozenset({"cancelled"}),
    "CANCELLED": frozenset({"cancelled"}),
    "FAILED": frozenset({"closed"}),
    "EXPIRED": frozenset({"closed"}),
}
CLIENT_NAMES = ("clientOrderID", "clientOrderId", "origClientOrderId")
TRIGGERS = {"TAKE_STOP_": "tpsl", "TRIGGER_": "stop"}

_FAIL_TEXTS = {
    "100404": r"api (path )?(is |does )?not exist",
    "100400": r"invalid param|field validation|mismatch type|missing",
    "100421": r"contract not exist|symbol.* not (available|exist)|restricted",
    "80014": r"",
    "109400": r"",
}
_NOT_FAIL = (
    r"filled or cancell?ed already|cancell?ed or filled already|not a valid order id"
    r"|system is busy|once per second|timestamp"
)
_UNKNOWN_TEXTS = {"100404": r"order (does )?not exist", "100421": r"order (does )?not exist", "100204": r""}
_UNKNOWN = frozenset({"80016", "109421", "100204"})


def stated(question: Question, answer: Answer) -> list[Stated]:
    """One set of words for each order of the call."""
    body = body_of(answer)
    if body is None or answer.status in (418, 429):
        return [NOTHING] * len(question.named)
    code, said = text(body.get("code")), " ".join(text(body.get("msg")).split()).casefold()
    good = answer.status == 200 and code == "0"
    data = body.get("data")
    if question.method == "POST":
        if not good:
            refused = len(question.named) == 1 and _fails(code, said)
            return [frozenset({"failed"}) if refused else NOTHING] * len(question.named)
        return [_cancelled(question, named, data) for named in question.named]
    if not good:
        return [_not_looked(question, code, said)] * len(question.named)
    return [_looked(question, named, data) for named in question.named]


def _fails(code: str, said: str) -> bool:
    pattern = _FAIL_TEXTS.get(code)
    other = r"timestamp" if pattern == "" else _NOT_FAIL
    return pattern is not None and re.search(pattern, said) is not None and not re.search(other, said)


def _cancelled(question: Question, named: Named, data: Any) -> Stated:
    """Its answer holds the order, and its status is the venue's word on it; only an end of the order counts."""
    if not isinstance(data, dict):
        return NOTHING
    if question.path == "cancel":
        return _end(named, data) - {"closed"} if _is(named, data) else NOTHING
    rows = [row for row in some_rows_of(data.get("orders")) if _is(named, row)]
    fails = [row for row in some_rows_of(data.get("fails")) if _is(named, row)]
    return _end(named, rows[0]) - {"closed"} if len(rows) == 1 and not fails else NOTHING


def _not_looked(question: Question, code: str, said: str) -> Stated:
    if code == "100421" and re.search(_FAIL_TEXTS[code], said) and not re.search(_NOT_FAIL, said):
        return frozenset({"failed"})  # the pair is not traded: no order of it can be there
    pattern = _UNKNOWN_TEXTS.get(code)
    unknown = code in _UNKNOWN or (pattern is not None and re.search(pattern, said) is not None)
    return frozenset({"absent"}) if question.path == "query" and unknown else NOTHING


def _looked(question: Question, named: Named, data: Any) -> Stated:
    if question.path == "query":
        return _end(named, data) if isinstance(data, dict) and _is(named, data) else NOTHING
    value = data.get("orders") if isinstance(data, dict) else None
    rows, abroad = rows_of(value), question.path == "openOrders" and "symbol" not in question.params
    mine = [row for row in some_rows_of(value) if _is(named, row)]
    if mine:
        return agreed([_end(named, row) for row in mine])
    same_id = [row for row in some_rows_of(value) if named.order_id and _id(row) == named.order_id]
    if same_id:
        open_ = all(text(row.get("status")).upper() in OPEN for row in same_id)
        return frozenset({"failed"}) if abroad and open_ else NOTHING
    if rows is None or not all(_readable(question, named, row) for row in rows):
        return NOTHING
    return frozenset({"absent"}) if _reached(question, named, rows) else NOTHING


def _reached(question: Question, named: Named, rows: list[dict[str, Any]]) -> bool:
    """Whether the page was read as far as the order would stand."""
    if question.path == "openOrders":
        return len(rows) < OPEN_MOST
    ids = [int(_id(row)) for row in rows]
    if len(rows) < PAGE:
        return True
    up, down = ids == sorted(ids), ids == sorted(ids, reverse=True)
    return bool(named.order_id) and (up or down) and min(ids) < int(named.order_id) < max(ids)


def _id(row: dict[str, Any]) -> str:
    value = row.get("orderId")
    told = "" if isinstance(value, float) else text(value)
    return told if told.isascii() and told.isdigit() and not told.startswith("0") and len(told) <= 32 else ""


def _client_ids(row: dict[str, Any]) -> list[str]:
    return [row[name] for name in CLIENT_NAMES if isinstance(row.get(name), str)]


def _client_id(row: dict[str, Any]) -> str | None:
    """Its client id, "" for none, None where the row does not tell."""
    told = _client_ids(row)
    return next((name for name in told if name), "") if told else None


def _is(named: Named, row: dict[str, Any]) -> bool:
    if text(row.get("symbol")) not in ("", named.symbol):
        return False
    if named.order_id:
        return _id(row) == named.order_id
    return named.client_id in _client_ids(row)


def _readable(question: Question, named: Named, row: dict[str, Any]) -> bool:
    pair = text(row.get("symbol"))
    right_pair = pair == question.params["symbol"] if "symbol" in question.params else "-" in pair
    return bool(_id(row)) and right_pair and (bool(named.order_id) or bool(_client_ids(row)))


def _kind(row: dict[str, Any]) -> str:
    type_ = text(row.get("type")).upper()
    return next((kind for begin, kind in TRIGGERS.items() if type_.startswith(begin)), "order" if type_ else "")


def _end(named: Named, row: dict[str, Any]) -> Stated:
    """A trigger that fired may read FILLED: no source tells which word it has. It counts as filled only if something
    of it was."""
    end = ENDS.get(text(row.get("status")).upper(), NOTHING)
    if "filled" not in end or _kind(row) not in ("tpsl", "stop"):
        return end
    return end | {"triggered"}


def listed(question: Question, answer: Answer) -> Listed:
    """What the open list says to a sweep."""
    body = body_of(answer)
    if body is None or answer.status != 200 or text(body.get("code")) != "0":
        return UNREADABLE
    data, swept = body.get("data"), question.swept
    rows = rows_of(data.get("orders")) if isinstance(data, dict) else None
    if rows is None:
        return UNREADABLE
    assert swept is not None
    whole, open_, possible, sure = len(rows) < OPEN_MOST, set[str](), set[str](), set[str]()
    over = {_id(row) for row in rows if text(row.get("status")).upper() in ENDS}
    for row in rows:
        symbol, id_, kind = text(row.get("symbol")), _id(row), _kind(row)
        open_ |= {id_} - over
        if not symbol or not id_ or not kind:
            whole = False
        elif id_ not in over and symbol == (swept.symbol or symbol) and kind in swept.kinds:
            may, is_ = judge_row(question, row.get("time"), _client_id(row))
            possible |= {id_} if may else set()
            sure |= {id_} if is_ else set()
    return Listed(whole, frozenset(open_), frozenset(possible), frozenset(sure))


def pushed(frame: dict[str, Any]) -> dict[str, Stated]:
    """What a frame of the order stream states, by order id. How a trigger that fired shows there is not documented."""
    data = frame.get("data")
    if frame.get("dataType") != "spot.executionReport" or not isinstance(data, dict):
        return {}
    row = {"orderId": data.get("i"), "status": data.get("X"), "type": data.get("o")}
    end = ENDS.get(text(row["status"]).upper(), NOTHING)
    return {_id(row): NOTHING if "filled" in end and _kind(row) != "order" else end}
