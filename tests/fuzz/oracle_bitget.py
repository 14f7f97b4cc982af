"""The oracle for Bitget: its classic v2 spot documents."""

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

PAGE = 100
#: Codes that refuse a request for what it is (parameters, pair, kind of order, size of the batch, demo).
_FAIL = (
    "45056 40017 40019 40020 40034 40064 40402 40305 40913 40924 43011 48001 48002 00171 00172 40102 42016 "
    "40912 40306 40007 40404 40808 40081 40105 40110 22030"
)
FAIL = frozenset(_FAIL.split())
#: Codes that say: no such order, without saying that there ever was one.
_UNKNOWN = "43001 22001 43004 40109 40768 40819 45057 31007 80011 43025 43020"
UNKNOWN = frozenset(_UNKNOWN.split())
OPEN = frozenset({"live", "new", "init", "partially_filled", "not_trigger", "executing"})
CLOSED = ("reject", "rejected", "expired", "failed", "fail_execute", "fail_trigger")
ENDS: dict[str, Stated] = {
    "filled": frozenset({"filled"}),
    "cancelled": frozenset({"cancelled"}),
    "canceled": frozenset({"cancelled"}),
    "executed": frozenset({"triggered"}),
    "triggered": frozenset({"triggered"}),
    **dict.fromkeys(CLOSED, frozenset({"closed"})),
}


def stated(question: Question, answer: Answer) -> list[Stated]:
    """One set of words for each order of the call."""
    body = body_of(answer)
    if body is None:
        return [NOTHING] * len(question.named)
    code = text(body.get("code"))
    good = answer.status == 200 and code == "00000"
    if question.method == "POST":
        return _cancelled(question, body, code, good)
    if not good:
        unknown = question.path == "orderInfo" and code in UNKNOWN and answer.status != 429
        return [frozenset({"absent"}) if unknown else NOTHING] * len(question.named)
    return [_looked(question, named, body.get("data")) for named in question.named]


def _cancelled(question: Question, body: dict[str, Any], code: str, good: bool) -> list[Stated]:
    alone = len(question.named) == 1
    if not good:
        return [frozenset({"failed"}) if alone and code in FAIL else NOTHING] * len(question.named)
    data = body.get("data")
    if question.path != "batch-cancel-order" or not isinstance(data, dict):
        return [NOTHING] * len(question.named)
    taken, refused = some_rows_of(data.get("successList")), some_rows_of(data.get("failureList"))
    return [_refused(named, taken, refused) for named in question.named]


def _refused(named: Named, taken: list[dict[str, Any]], refused: list[dict[str, Any]]) -> Stated:
    mine = [row for row in refused if _is(named, row)]
    sure = mine and not any(_is(named, row) for row in taken) and all(text(r.get("errorCode")) in FAIL for r in mine)
    return frozenset({"failed"}) if sure else NOTHING


def _looked(question: Question, named: Named, data: Any) -> Stated:
    ended, listed = _list(question, data)
    rows = rows_of(listed)
    mine = [row for row in some_rows_of(listed) if _is(named, row)]
    kind = _kind(question)
    if mine:
        if kind != named.scope:
            # Another sort of list than the order would stand in: it tells of a wrong scope, or of nothing.
            open_ = all(_state(row) in OPEN for row in mine)
            over = all(_state(row) in ENDS for row in mine)
            return frozenset({"failed"}) if open_ else frozenset({"absent"}) if over else NOTHING
        return agreed([_end(named, row) for row in mine if not _elsewhere(named, row)])
    if rows is None or not all(_readable(named, row) for row in rows):
        return NOTHING
    if not rows and ended:
        return frozenset({"absent"})
    if "orderId" in question.params or "clientOid" in question.params or question.path == "orderInfo":
        return NOTHING  # it was asked for exactly this order, and speaks of others
    past = bool(named.order_id) and any(int(row["orderId"]) < int(named.order_id) for row in rows)
    return frozenset({"absent"}) if ended or past else NOTHING


def _list(question: Question, data: Any) -> tuple[bool, Any]:
    """Whether it is the last page, and its list."""
    if not question.path.endswith("plan-order"):
        return isinstance(data, list) and len(data) < PAGE, data
    if not isinstance(data, dict):
        return isinstance(data, list) and len(data) < PAGE, data
    more, listed = data.get("nextFlag"), data.get("orderList")
    if listed is None and more is False:
        return True, []
    return more is False or (more is not True and isinstance(listed, list) and len(listed) < PAGE), listed


def _kind(question: Question) -> str:
    if question.path.endswith("plan-order"):
        return "stop"
    return "tpsl" if question.params.get("tpslType") == "tpsl" else "order"


def _is(named: Named, row: dict[str, Any]) -> bool:
    if named.order_id:
        return text(row.get("orderId")) == named.order_id
    return text(row.get("clientOid")) == named.client_id


def _elsewhere(named: Named, row: dict[str, Any]) -> bool:
    """Whether it is of another pair: the same client id is another order's there."""
    symbol = row.get("symbol")
    return not named.order_id and bool(named.symbol) and symbol is not None and text(symbol).upper() != named.symbol


def _readable(named: Named, row: dict[str, Any]) -> bool:
    id_, client_id = row.get("orderId"), row.get("clientOid")
    if not (isinstance(id_, str) and id_.isascii() and id_.isdigit() and len(id_) <= 32):
        return False
    return bool(named.order_id) or client_id is None or bool(text(client_id)) or client_id == ""


def _state(row: dict[str, Any]) -> str:
    return text(row.get("status")).lower()


def _end(named: Named, row: dict[str, Any]) -> Stated:
    """A TP/SL order that fired may read `filled`: no source tells which word it has."""
    end = ENDS.get(_state(row), NOTHING)
    return end | {"triggered"} if named.scope == "tpsl" and "filled" in end else end


def listed(question: Question, answer: Answer) -> Listed:
    """What a page of open orders says to a sweep."""
    body = body_of(answer)
    if body is None or answer.status != 200 or text(body.get("code")) != "00000":
        return UNREADABLE
    last, value = _list(question, body.get("data"))
    rows, swept = rows_of(value), question.swept
    assert swept is not None
    if rows is None:
        return UNREADABLE
    whole, open_, possible, sure = last, set[str](), set[str](), set[str]()
    for row in rows:
        symbol, id_ = text(row.get("symbol")).upper(), text(row.get("orderId"))
        open_.add(id_)
        if not symbol or not id_:
            whole = False
        elif symbol == (swept.symbol or symbol) and _kind(question) in swept.kinds:
            may, is_ = judge_row(question, row.get("cTime"), told_id(row.get("clientOid")))
            possible |= {id_} if may else set()
            sure |= {id_} if is_ else set()
    return Listed(whole, frozenset(open_), frozenset(possible), frozenset(sure))


def pushed(frame: dict[str, Any]) -> dict[str, Stated]:
    """What a frame of the order stream states, by order id."""
    arg = frame.get("arg")
    channel = text(arg.get("channel")) if isinstance(arg, dict) else ""
    if channel not in ("orders", "orders-algo"):
        return {}
    said: dict[str, Stated] = {}
    for row in some_rows_of(frame.get("data")):
        said[text(row.get("orderId"))] = said.get(text(row.get("orderId")), NOTHING) | ENDS.get(_state(row), NOTHING)
    return said
