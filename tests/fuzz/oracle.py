"""What an answer states about an order, judged a second time: from the venues' documents alone, without the adapters.

`stated` tells, for each order that a call was about, the definite things its answer says; nothing else may ever be
concluded from it. `listed` tells what a page of open orders says to a sweep. Words:

  cancelled filled triggered closed   the venue states this end of this very order
  absent                              this place was read as far as the order would stand, and it is not there
  failed                              the venue refuses this request for what it is

Where the documents leave room, every reading they allow is let through; what they do not allow is not.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from cancelq_worker.venues.port import Answer
from tests.fuzz.question import Question

Stated = frozenset[str]
NOTHING: Stated = frozenset()


@dataclass(frozen=True, slots=True)
class Listed:
    """A page of open orders. `whole`: every order on it can be read, and it is the list's last; `open_`: ids of all
    open orders; `possible`: of those that may be meant; `sure`: of those that are, so that they may be cancelled."""

    whole: bool
    open_: frozenset[str]
    possible: frozenset[str]
    sure: frozenset[str]


UNREADABLE = Listed(False, frozenset(), frozenset(), frozenset())


def body_of(answer: Answer) -> dict[str, Any] | None:
    """The answer's object. None under HTTP 5xx, whatever it says: a gateway may stand in front of the venue."""
    if answer.status >= 500:
        return None
    try:
        body = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def text(value: Any) -> str:
    """A scalar as text; "" for what is none. A number that is not whole stands for no id and no code."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    if isinstance(value, float):
        return str(int(value)) if math.isfinite(value) and value.is_integer() and abs(value) < 2**53 else ""
    return str(value)


def rows_of(value: Any) -> list[dict[str, Any]] | None:
    """The rows of a list that holds nothing else; None if there is none, or something else on it."""
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        return None
    return value


def some_rows_of(value: Any) -> list[dict[str, Any]]:
    """Whatever on it is a row."""
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def agreed(ends: list[Stated]) -> Stated:
    """What all rows about one order say together; nothing if they differ."""
    return frozenset.intersection(*ends) if ends else NOTHING


def epoch_ms(value: Any) -> int | None:
    """A time of creation, None if the row does not tell one of our days."""
    told = text(value)
    if not (told.isascii() and told.isdigit() and len(told) <= 16):
        return None
    ms = int(told) * (1000 if len(told) <= 10 else 1)
    return ms if ms > 946_684_800_000 else None


def told_id(value: Any) -> str | None:
    """A client id, "" for none; None where the row does not tell."""
    return "" if value is None or value == "" else text(value) or None


def judge_row(question: Question, created: Any, client_id: str | None) -> tuple[bool, bool]:
    """Of an open order of the right pair and kind: whether it may be meant, and whether it surely is."""
    swept = question.swept
    assert swept is not None
    if client_id is not None and not client_id.startswith(swept.prefix):
        return False, False
    made = epoch_ms(created)
    if made is None:
        return True, False
    return made < swept.newer_ms, made < swept.older_ms and (client_id is not None or not swept.prefix)
