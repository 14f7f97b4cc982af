"""What BingX's answer to a cancel says, as a whole and about each order.

A cancel is normally done when it is answered: the answer holds the order, and its status is the venue's word on it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from cancelq_worker.venues.bingx.codes import (
    LIMIT_STATUSES,
    LIMIT_US,
    OK,
    REMEDIES,
    STATUSES,
    had_an_end,
    item_of,
    may_be_unmet,
    until_ms,
    word_of,
)
from cancelq_worker.venues.bingx.rows import client_id_of, is_about, order_id_of, said_of, state_of
from cancelq_worker.venues.port import ABOUT_THE_CALL, Answer, Reply, Target, Word
from cancelq_worker.venues.reading import NOT_ASKED, OTHERS, named_field, names_another, payload, rows_of, word

#: What a cancel's answer may call an order's end. Another end may be that of the request.
_ENDS: Final = (Word.CANCELLED, Word.FILLED, Word.TRIGGERED)

#: The venue's parameter names in the words of an intent, the longer ones first.
_FIELDS: Final = (
    ("cancelrestriction", "only_if"),
    ("clientorderid", "client_order_id"),
    ("orderid", "order_id"),
    ("symbol", "symbol"),
    ("contract", "symbol"),
)


def read_failure(answer: Answer) -> Reply | None:
    """What stands against the whole call, or None if the venue says `0` under HTTP 200."""
    return failure_of(answer, payload(answer))


def failure_of(answer: Answer, body: Mapping[str, Any] | None) -> Reply | None:
    """The same for a body that was read already."""
    status, code = answer.status, _code_of(body)
    text = word(body, "msg", 300) if body else ""
    if status >= 500:
        # It may come from a gateway in front of a venue that did execute, whatever it says.
        return Reply(Word.UNCLEAR, code, f"HTTP {status}: {text}", status, error=_error(code))
    meant = word_of(code, text)
    known = STATUSES.get(status)
    refused = known is not None and known.whole_address and meant is Word.REFUSED  # by more than the endpoint's limit
    if known and (status in LIMIT_STATUSES or meant is Word.UNCLEAR or refused):
        said = text or f"HTTP {status}: {known.source}"
        until = until_ms(text)
        retry_us = 0 if until else known.retry_us
        return Reply(
            known.word, code or str(status), said, status,
            retry_us=retry_us, retry_at_ms=until, whole_address=known.whole_address,
        )  # fmt: skip
    if code == OK and status == 200:
        return None
    if not code:
        return Reply(Word.UNCLEAR, "", f"HTTP {status} with an unreadable answer", status)
    if code == OK:  # success under another status: not believed
        return Reply(Word.UNCLEAR, code, f"HTTP {status}: {text}", status)
    return _by_code(meant, code, text, status)


def whole_call(failure: Reply, orders: int, *, conditional: bool = False) -> Reply:
    """A refusal of the whole call, for each order in it; noted as `unmet` where it may be for the call's condition."""
    said = failure.code not in ("", OK) and failure.http_status < 500
    if conditional and said and may_be_unmet(failure.code, failure.text):
        failure = replace(failure, notes={**failure.notes, "unmet": 1})
    if orders > 1 and failure.word in (Word.FAILED, Word.DOUBTED):
        return replace(failure, word=Word.SPLIT)  # one entry may have spoilt it
    if orders > 1 and failure.word is Word.GONE:
        return replace(failure, word=Word.UNCLEAR, notes={})  # says "no such order" without saying which
    if failure.word in (Word.FAILED, Word.SPLIT):
        return replace(failure, text=named_field(failure.text, _FIELDS))
    return replace(failure)


def read_single(target: Target, data: Any, status: int) -> Reply:
    """The order in the answer to its cancel."""
    if not isinstance(data, dict):
        return Reply(Word.UNCLEAR, OK, "an answer without an order", status)
    return _cancelled(target, data, status)


def read_batch(targets: Sequence[Target], data: Any, status: int) -> list[Reply]:
    """What a batch's two lists say about each order; nothing, where they hold one that was not in the call: whatever
    that answer is about, its rows may stand under ids that are not theirs."""
    if not isinstance(data, dict):
        return [Reply(Word.UNCLEAR, OK, "an answer without lists", status)] * len(targets)
    asked = [target.named_as for target in targets]
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in rows_of(data.get("orders")):
        for key in (f"i:{order_id_of(row)}", f"c:{client_id_of(row) or ''}"):
            rows.setdefault(key, []).append(row)
    fails: dict[str, list[dict[str, Any]]] = {}
    for fail in rows_of(data.get("fails")):
        for key in {f"i:{order_id_of(fail)}", f"c:{word(fail, 'orderId')}", f"c:{client_id_of(fail) or ''}"}:
            fails.setdefault(key, []).append(fail)
    # A failed item may have an order's own id where the call named its client id, so it counts by order ids only.
    if names_another(asked, (*rows, *(key for key in fails if key.startswith("i:")))):
        return [Reply(Word.UNCLEAR, OK, NOT_ASKED, status)] * len(targets)

    def one(target: Target, key: str) -> Reply:
        done, failed = rows.get(key, []), fails.get(key, [])
        if len(done) + len(failed) > 1:
            return Reply(Word.UNCLEAR, OK, "the answer says two things about this order", status)
        if done:
            return _cancelled(target, done[0], status)
        if failed:
            return _failed_item(failed[0], status)
        return Reply(Word.UNCLEAR, OK, "the answer does not mention this order", status)

    return [one(target, key) for target, key in zip(targets, asked, strict=True)]


def read_sweep(data: Any, status: int) -> Reply:
    """A bulk call's answer, or one to a sweep's cancel by id: the open lists decide what came of it."""
    if not isinstance(data, dict):
        return Reply(Word.UNCLEAR, OK, "an answer without orders", status)
    return Reply(Word.ACKNOWLEDGED, OK, http_status=status)


def _code_of(body: Mapping[str, Any] | None) -> str:
    """The code as text; "" if there is none that can be one."""
    value = body.get("code") if body else None
    if isinstance(value, bool) or not isinstance(value, int | str):
        return ""
    return re.sub(r"[^A-Za-z0-9._-]", "_", str(value)[:16])


def _error(code: str) -> str:
    """What counts towards the lock after equal errors."""
    return "" if code == OK else code


def _by_code(meant: Word, code: str, text: str, status: int) -> Reply:
    if meant is Word.REFUSED:
        until = until_ms(text)
        return Reply(meant, code, text, status, retry_us=0 if until else LIMIT_US, retry_at_ms=until)
    error = "" if meant in ABOUT_THE_CALL else _error(code)
    notes = {"known": 1} if meant is Word.GONE and had_an_end(code, text) else {}
    said, ours = REMEDIES.get(code, text), code in REMEDIES
    return Reply(meant, code, said, status, error=error, notes=notes, ours=ours)


def _cancelled(target: Target, row: dict[str, Any], status: int) -> Reply:
    if not is_about(target, row):
        return Reply(Word.UNCLEAR, OK, OTHERS, status)
    state = state_of(row)
    if state is Word.OPEN:
        said = said_of(row, Word.ACKNOWLEDGED, status=status)
    elif state in _ENDS:
        said = said_of(row, state, status=status)
    else:
        said = said_of(row, Word.UNCLEAR, text=f"the answer calls the order {word(row, 'status', 40)!r}", status=status)
    return replace(said, code=OK)


def _failed_item(fail: Mapping[str, Any], status: int) -> Reply:
    text = word(fail, "error", 300)
    meant, state = item_of(text)
    return Reply(meant, OK, text, status, venue_state=state, notes={"known": 1} if state else {})
