"""What Bybit's answers to cancels say, about the whole call and about each order in it.

Source: Bybit API documentation v5: every business error comes under HTTP 200 with its `retCode`; a batch answers with
two lists in the order of its items, where a failed item may hold no id at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from cancelq_worker.venues.bybit.codes import CODES, HAD_AN_END, OK, REMEDIES, word_of
from cancelq_worker.venues.port import Answer, Reply, Word
from cancelq_worker.venues.reading import OTHERS, named_field, row_id, word

BAN_US: Final = 600_000_000  # rate limit page: an address that went over its limit stays quiet for ten minutes
RESET_MOST_MS: Final = BAN_US // 1000  # nothing at Bybit is closed for longer; a reset further away is none
LIMIT_MOST: Final = 1_200  # rate limit page: the largest that is granted to anybody

#: The venue's parameter names in the words of an intent.
_FIELDS: Final = (("orderlinkid", "client_order_id"), ("orderid", "order_id"), ("symbol", "symbol"))

#: Which order an item named: by its order id, or without one by its client id. With both, the client id is the one
#: that its order is known to bear.
Named = tuple[str, str]


def failure_of(answer: Answer, body: Mapping[str, Any] | None) -> Reply | None:
    """What stands against the whole call, or None if the venue says retCode 0 under HTTP 200."""
    code, status = word(body or {}, "retCode", 16), answer.status
    text = word(body or {}, "retMsg")
    if status >= 500:
        # It may come from a gateway in front of a venue that did execute, whatever it says.
        return Reply(Word.UNCLEAR, code, f"HTTP {status}: {text}", status)
    if status == 403:
        return Reply(
            Word.REFUSED, code, "HTTP 403: this address is over its limit or blocked", status,
            retry_us=BAN_US, whole_address=True,
        )  # fmt: skip
    if status == 429:
        return Reply(Word.REFUSED, code or "429", text or "too many requests", status)
    if code == OK and status == 200:
        return None
    if status == 401 and code not in CODES:
        return Reply(Word.ACCOUNT, code, "HTTP 401: the key was refused: check API_KEY and API_SECRET", status)
    if code in ("", OK):
        why = text if code else "with an unreadable answer"
        return Reply(Word.UNCLEAR, code, f"HTTP {status}: {why}", status)
    return _refused(code, text, status, reset_us(answer, body))


def whole_call(failure: Reply, orders: int) -> Reply:
    """A refusal of the whole call, for each order in it."""
    if orders > 1 and failure.word is Word.FAILED:
        failure.word = Word.SPLIT  # one entry may have spoilt it
    elif orders > 1 and failure.word in (Word.GONE, Word.ACKNOWLEDGED):
        failure.word, failure.notes = Word.UNCLEAR, {}  # does not say about which order
    elif failure.word is Word.FAILED:
        failure.text = named_field(failure.text, _FIELDS)
    return failure


def read_single(named: Named, result: Any) -> Reply:
    """The answer to a cancel of one order."""
    if not isinstance(result, dict):
        return Reply(Word.UNCLEAR, OK, "an answer without a result", 200)
    return _acknowledged(named, result)


def read_bulk(result: Any) -> Reply:
    """The answer to cancel-all. Older ones hold no list, and which orders are on it proves nothing."""
    if isinstance(result, dict) and word(result, "success") == "1":
        return Reply(Word.ACKNOWLEDGED, OK, http_status=200)
    return Reply(Word.UNCLEAR, OK, "an answer that does not say success", 200)


def read_batch(items: Sequence[Named], body: Mapping[str, Any], answer: Answer) -> list[Reply]:
    """The answer to a batch, by index. Lists that do not fit its items say nothing about any of them; so does one row
    with ids that are not its item's: the others may stand out of place as well."""
    rows, outcomes = _list_of(body.get("result")), _list_of(body.get("retExtInfo"))
    fit = len(rows) == len(outcomes) == len(items)
    if not fit or _stray(items, rows):
        return [Reply(Word.UNCLEAR, OK, "an answer that does not fit the batch", 200) for _ in items]
    reset = reset_us(answer, body)
    return [_item(*one, reset) for one in zip(items, rows, outcomes, strict=True)]


def together(replies: Sequence[Reply]) -> Reply:
    """What a sweep's batch comes to. Refused only if it was for every order; the lists tell of the rest. That some went
    over the limit closes it all the same."""
    first = replies[0]
    if all(reply.word is first.word for reply in replies):
        return first
    taken = next((r for r in replies if r.word is Word.ACKNOWLEDGED), None)
    unclear = Reply(Word.UNCLEAR, first.code, first.text, first.http_status)
    return replace(taken or unclear, over_limit=next((r for r in replies if r.word is Word.REFUSED), None))


def reset_us(answer: Answer, body: Mapping[str, Any] | None) -> int:
    """How long from now until the venue counts anew, by its own clock; 0 if it does not tell."""
    reset, now = str(answer.headers.get("x-bapi-limit-reset-timestamp") or ""), word(body or {}, "time")
    if not re.fullmatch(r"[0-9]{13}", reset, re.ASCII) or not re.fullmatch(r"[0-9]{13}", now, re.ASCII):
        return 0
    ahead_ms = int(reset) - int(now)
    return ahead_ms * 1000 if 0 < ahead_ms <= RESET_MOST_MS else 0


def told_limit(answer: Answer) -> int | None:
    """The limit of the called endpoint for this account. Source: rate limit page, `X-Bapi-Limit`."""
    told = str(answer.headers.get("x-bapi-limit") or "")
    size = int(told) if re.fullmatch(r"[0-9]{1,6}", told, re.ASCII) else 0
    return size if 1 <= size <= LIMIT_MOST else None


def _item(named: Named, row: Any, outcome: Any, reset: int) -> Reply:
    if not isinstance(row, dict) or not isinstance(outcome, dict):
        return Reply(Word.UNCLEAR, OK, "an item that cannot be read", 200)
    code, text = word(outcome, "code", 16), word(outcome, "msg")
    if not _may_be(named, row):
        return Reply(Word.UNCLEAR, code, OTHERS, 200)
    if code == OK:
        return _acknowledged(named, row)
    reply = _refused(code, text, 200, reset)
    if reply.word in (Word.ACCOUNT, Word.CLOCK):
        reply.word = Word.UNCLEAR  # these make no sense for one item: look
    if reply.word is Word.FAILED:
        reply.text = named_field(text, _FIELDS)
    return reply


def _acknowledged(named: Named, row: Mapping[str, Any]) -> Reply:
    if not _may_be(named, row):
        return Reply(Word.UNCLEAR, OK, OTHERS, 200)
    order_id, client_id = row_id(row, "orderId"), row_id(row, "orderLinkId")
    if named[1] and client_id != named[1]:
        order_id = ""  # whether it is that of the order with this client id the row does not tell
    return Reply(Word.ACKNOWLEDGED, OK, http_status=200, order_id=order_id, client_order_id=client_id)


def _stray(items: Sequence[Named], rows: Sequence[Any]) -> bool:
    """Whether one of the rows has ids that are not its item's."""
    return not all(_may_be(named, row) for named, row in zip(items, rows, strict=True) if isinstance(row, dict))


def _may_be(named: Named, row: Mapping[str, Any]) -> bool:
    """Whether a row can be about the order that was named: what is known of its ids is repeated, or left empty."""
    order_id, client_id = named
    if order_id and word(row, "orderId") not in ("", order_id):
        return False
    return not client_id or word(row, "orderLinkId") in ("", client_id)


def _refused(code: str, text: str, status: int, reset: int) -> Reply:
    meaning = word_of(code, text)
    if meaning is Word.ACKNOWLEDGED and status != 200:  # success under another status: not believed
        meaning = Word.UNCLEAR
    notes = {"known": 1} if code in HAD_AN_END else {}
    wait_us = reset if meaning is Word.REFUSED else 0
    said, ours = REMEDIES.get(code, text), code in REMEDIES
    return Reply(meaning, code, said, status, retry_us=wait_us, notes=notes, ours=ours)


def _list_of(value: Any) -> list[Any]:
    found = value.get("list") if isinstance(value, dict) else None
    return found if isinstance(found, list) else []
