"""The oracle for Bybit: its v5 spot documents."""

from __future__ import annotations

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
    told_id,
)
from tests.fuzz.question import Named, Question

#: Codes that refuse a request for what it is.
_FAIL = "10001 170121 170105 170130 170145 170201 110019 110032 10017 10404 10029 10032 170209"
FAIL = frozenset(_FAIL.split())
#: Codes by which it says that it knows no such order (any more).
UNKNOWN = frozenset({"170213", "110001", "170143"})
OPEN = frozenset({"New", "PartiallyFilled", "Untriggered", "Created", "Active", "PendingCancel"})
ENDS: dict[str, Stated] = {
    "Filled": frozenset({"filled"}),
    "Cancelled": frozenset({"cancelled"}),
    "PartiallyFilledCanceled": frozenset({"cancelled"}),
    "Deactivated": frozenset({"cancelled"}),
    "Triggered": frozenset({"triggered"}),
    "Rejected": frozenset({"closed"}),
}
#: `stopOrderType` → what an intent calls it.
KINDS = {"tpslOrder": "tpsl", "Stop": "stop"}
PLAIN = ("", "UNKNOWN")
FILTERS = {"Order": "order", "tpslOrder": "tpsl", "StopOrder": "stop"}


def stated(question: Question, answer: Answer) -> list[Stated]:
    """One set of words for each order of the call."""
    body = body_of(answer)
    if body is None or answer.status in (403, 429):
        return [NOTHING] * len(question.named)
    code = text(body.get("retCode"))
    good = answer.status == 200 and code == "0"
    if question.method == "POST":
        return _cancelled(question, body, code, good)
    return [_looked(question, named, body.get("result")) if good else NOTHING for named in question.named]


def _cancelled(question: Question, body: dict[str, Any], code: str, good: bool) -> list[Stated]:
    if not good:
        about_keys = "sign params error" in text(body.get("retMsg")).lower()
        refused = len(question.named) == 1 and code in FAIL and not about_keys
        return [frozenset({"failed"}) if refused else NOTHING] * len(question.named)
    rows, outcomes = _list(body.get("result")), _list(body.get("retExtInfo"))
    if question.path != "cancel-batch" or not len(rows) == len(outcomes) == len(question.named):
        return [NOTHING] * len(question.named)
    return [_item(*one) for one in zip(question.named, rows, outcomes, strict=True)]


def _item(named: Named, row: Any, outcome: Any) -> Stated:
    if not isinstance(row, dict) or not isinstance(outcome, dict):
        return NOTHING
    name, wanted = ("orderId", named.order_id) if named.order_id else ("orderLinkId", named.client_id)
    about_it = text(row.get(name)) in ("", wanted)
    return frozenset({"failed"}) if about_it and text(outcome.get("code")) in FAIL else NOTHING


def _looked(question: Question, named: Named, result: Any) -> Stated:
    rows = rows_of(result.get("list")) if isinstance(result, dict) else None
    if rows is None or text(result.get("category")) not in ("", "spot"):
        return NOTHING
    mine = [row for row in rows if _is(named, row)]
    if not mine:
        return NOTHING if rows or text(result.get("nextPageCursor")) else frozenset({"absent"})
    ends = agreed([_end(question, named, row) for row in mine if not _elsewhere(named, row)])
    if named.refused and all(_state(row) in OPEN for row in mine):
        ends |= agreed([_named_wrongly(named, row) for row in mine])
    return ends


def _is(named: Named, row: dict[str, Any]) -> bool:
    if named.order_id:
        return text(row.get("orderId")) == named.order_id
    return text(row.get("orderLinkId")) == named.client_id


def _state(row: dict[str, Any]) -> str:
    return text(row.get("orderStatus"))


def _elsewhere(named: Named, row: dict[str, Any]) -> bool:
    """Whether it is of another pair: the same client id is another order's there."""
    return not named.order_id and text(row.get("symbol")) not in ("", named.symbol)


def _end(question: Question, named: Named, row: dict[str, Any]) -> Stated:
    end = ENDS.get(_state(row), NOTHING)
    passing = "triggered" in end and named.scope == "order" and question.path == "realtime"
    return NOTHING if passing else end


def _named_wrongly(named: Named, row: dict[str, Any]) -> Stated:
    """An open order of which the venue said that it does not know it as the cancel named it."""
    state, stop_type = _state(row), text(row.get("stopOrderType"))
    if text(row.get("symbol")) not in ("", named.symbol):
        return frozenset({"failed"})
    if state == "Untriggered":
        kind = KINDS.get(stop_type, "other")
        return NOTHING if kind == named.scope or stop_type in PLAIN else frozenset({"failed"})
    if named.scope == "order":
        return NOTHING
    # It works in the book: it was never a trigger, or it was this one, which has fired.
    return frozenset({"triggered"}) if KINDS.get(stop_type) == named.scope else frozenset({"failed"})


def listed(question: Question, answer: Answer) -> Listed:
    """What a page of open orders says to a sweep."""
    body = body_of(answer)
    if body is None or answer.status != 200 or text(body.get("retCode")) != "0":
        return UNREADABLE
    result, swept = body.get("result"), question.swept
    rows = rows_of(result.get("list")) if isinstance(result, dict) else None
    if rows is None or not isinstance(result, dict) or text(result.get("category")) not in ("", "spot"):
        return UNREADABLE
    assert swept is not None
    whole = not (rows and text(result.get("nextPageCursor")))
    open_, possible, sure = set[str](), set[str](), set[str]()
    for row in rows:
        symbol, id_ = text(row.get("symbol")), text(row.get("orderId"))
        open_ |= {id_} if _state(row) in OPEN else set()
        if not symbol or not id_ or _state(row) not in OPEN | ENDS.keys():
            whole = False
        elif symbol == (swept.symbol or symbol) and _kind(question, row) in swept.kinds:
            may, is_ = judge_row(question, row.get("createdTime"), told_id(row.get("orderLinkId")))
            possible |= {id_} if may else set()
            sure |= {id_} if is_ else set()
    return Listed(whole, frozenset(open_), frozenset(possible), frozenset(sure))


def _kind(question: Question, row: dict[str, Any]) -> str:
    """An open order's kind, "" for one that has ended or that no intent means on this list."""
    state, stop_type = _state(row), text(row.get("stopOrderType"))
    asked = FILTERS[question.params["orderFilter"]]
    if state not in OPEN:
        return ""
    if state != "Untriggered":
        return "order" if asked == "order" or stop_type in (*KINDS, "OcoOrder", "BidirectionalTpslOrder") else ""
    kind = asked if stop_type in PLAIN else KINDS.get(stop_type, "")
    return kind if kind == asked != "order" else ""


def _list(value: Any) -> list[Any]:
    found = value.get("list") if isinstance(value, dict) else None
    return found if isinstance(found, list) else []


def pushed(frame: dict[str, Any]) -> dict[str, Stated]:
    """What a frame of the order stream states, by order id."""
    if frame.get("topic") not in ("order", "order.spot"):
        return {}
    said: dict[str, Stated] = {}
    for row in some_rows_of(frame.get("data")):
        if text(row.get("category")) in ("", "spot"):
            id_ = text(row.get("orderId"))
            said[id_] = said.get(id_, NOTHING) | ENDS.get(_state(row), NOTHING)
    return said
