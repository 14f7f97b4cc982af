"""What an answer may be said to state, judged without the adapter: by the words of the venue's papers alone.

An end is stated only by an object that holds both the order's own id and the venue's word for that end; that an order
is absent only by an answer that does not mention it; that a request can never work only by a listed code, or by the
order's own row (an order of another kind or pair).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cancelq_worker.venues.port import ENDED, Reply, Target, Word
from tests.conformance.suite.dossier import Dossier

#: Words that settle an intent, or count towards settling it.
DEFINITE = ENDED | {Word.FAILED, Word.ABSENT}
#: Fields of the venues' answers that hold a text for people.
MESSAGES = frozenset({"msg", "retMsg", "errorMsg", "error", "message"})


def unfounded(dossier: Dossier, target: Target, reply: Reply, body: Any, status: int = 200) -> str:
    """Why the reply's word is not stated by the answer; "" if it is, or if the word is not definite."""
    if reply.word not in DEFINITE:
        return ""
    if not isinstance(body, dict):
        return f"{reply.word} from an answer that is no object"
    if status >= 500:
        return f"{reply.word} under HTTP {status}"
    rows = [row for row in objects(body) if names(dossier, row, target)]
    if reply.word is Word.ABSENT:
        return "absent, but the answer names the order" if rows else ""
    if reply.word is Word.FAILED:
        return "" if rows or _codes(dossier, body, Word.FAILED, Word.SPLIT) else "failed without a code that says so"
    if status != 200:
        return f"{reply.word} under HTTP {status}"
    return "" if any(_says(dossier, row, target, reply.word) for row in rows) else f"{reply.word} that no row states"


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in an answer, however deep."""
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from objects(item)
    elif isinstance(value, list):
        for item in value:
            yield from objects(item)


def names(dossier: Dossier, row: dict[str, Any], target: Target) -> bool:
    """Whether an object holds the id by which the intent names its order: as text, or as a whole number. What the venue
    says to people is no id."""
    wanted = target.order_id or target.client_order_id
    return any(
        str(value) == wanted for key, value in row.items() if isinstance(value, str | int) and key not in MESSAGES
    )


def _says(dossier: Dossier, row: dict[str, Any], target: Target, word: Word) -> bool:
    texts = {str(value).casefold() for value in row.values() if isinstance(value, str)}
    means = {
        meaning
        for states in dossier.papers.states.values()
        for state, meaning in states.items()
        if state.casefold() in texts
    }
    if word is Word.TRIGGERED and target.scope in ("tpsl", "stop"):
        # A trigger that fired has no word of its own at every venue: it may read filled, or live on.
        return bool(means)
    return word in means


def _codes(dossier: Dossier, body: dict[str, Any], *words: Word) -> bool:
    listed = {code.code for code in (*dossier.papers.codes, *dossier.papers.items) if code.word in words}
    found = {str(value) for row in objects(body) for value in row.values() if isinstance(value, str | int)}
    return bool(listed & found)
