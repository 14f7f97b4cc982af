"""The papers of a venue: signatures, codes, words and answer shapes, as its documents have them.

They are JSON files under `tests/conformance/answers/<venue>/`:
  keys.json     the test key, and signatures that other clients computed with it
  codes.json    the table of codes: rows of {"codes", "text", "word", "source"}; "whole": of refusals of a call,
                "items": what a batch says of one order, if that differs; "pair": 1 for what is about the pair alone,
                so that it means the same in answer to a look
  states.json   the venue's words for an order's state, by the sort of list they stand in
  cancels.json  answers to cancels, each with the words it means for its intents
  refusals.json the shapes of a refusal, of a whole call or of one order in a batch
  looks.json    the shapes of lists and look-ups in which an order is looked for
  lists.json    the shapes of the open lists that sweeps read
  stream.json   frames of the order stream, if the venue has one
A text that begins with `$` is a place to be filled: `$code`, `$code_number`, `$text`, `$order_id`, `$order_number`,
`$client_id`, the same of the other order (`$other_id` and so on), `$symbol`, `$state`, `$row`, `$rows`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cancelq_worker.venues.port import Answer, Word

ANSWERS = Path(__file__).parent.parent / "answers"

#: How an intent of a recorded answer names its order.
Named = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Keys:
    """The key all signatures were made with, and the signatures. `login`: the stream's first frame at `login_ms`."""

    key: str
    secret: str
    passphrase: str
    at_ms: int
    calls: Sequence[Mapping[str, Any]]
    login_ms: int
    login: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Code:
    """A row of the code table: what the code means for a cancel of one order. `pair`: it is about the pair alone."""

    code: str
    text: str
    word: Word
    pair: bool = False

    def __str__(self) -> str:
        return f"{self.code} {self.text[:24]}".strip()


@dataclass(frozen=True, slots=True, repr=False)
class Cancelled:
    """An answer to a cancel, and what it means for each of its intents."""

    name: str
    route: str
    intents: Sequence[Named]
    notes: Mapping[str, Any]
    status: int
    body: Any
    words: Sequence[Word]

    @property
    def names_orders(self) -> bool:
        """Whether its intents are for single orders; after a bulk call the open lists decide, whatever it answered."""
        return all(named.get("scope") not in ("symbol", "account") for named in self.intents)

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, repr=False)
class Refusal:
    """The shape of a refusal. `item`: of the first order in a batch that was carried out otherwise."""

    name: str
    item: bool
    route: str
    intents: Sequence[Named]
    status: int
    body: Any

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, repr=False)
class Look:
    """The shape of a list or a look-up. `row`: of one order; `full`: rows of a full page, 0 where only one order is
    asked for, and `full_body` the shape of one that is not the last, where that differs; `states`: which words stand in
    it; `empty`: what an empty list means, None where there is no list, and `null` what it means where the list is left
    out; `made`: the row's field that tells when the order
    was created."""

    name: str
    route: str
    intent: Named
    notes: Mapping[str, Any]
    body: Any
    full_body: Any
    row: Mapping[str, Any]
    full: int
    states: str
    empty: Word | None
    null: Word | None
    made: str

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, repr=False)
class Pushed:
    """The shape of a push. `intent`: one that names its order; `zipped`: it travels compressed."""

    name: str
    frame: Any
    row: Mapping[str, Any]
    states: str
    intents: Sequence[Named]
    zipped: bool

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Papers:
    """Everything of one venue."""

    keys: Keys
    codes: Sequence[Code]
    items: Sequence[Code]
    states: Mapping[str, Mapping[str, Word]]
    cancels: Sequence[Cancelled]
    refusals: Sequence[Refusal]
    looks: Sequence[Look]
    lists: Sequence[Look]
    pushes: Sequence[Pushed]


def fill(template: Any, **values: Any) -> Any:
    """The template with its places filled; a place that is given no value stays."""
    if isinstance(template, str) and template.startswith("$"):
        return values.get(template[1:], template)
    if isinstance(template, list):
        return [fill(item, **values) for item in template]
    if isinstance(template, dict):
        return {name: fill(item, **values) for name, item in template.items()}
    return template


def answer(body: Any, status: int = 200) -> Answer:
    """An answer with that JSON body, or with these bytes."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(status, {"content-type": "application/json"}, text)


@cache
def papers_of(venue: str) -> Papers:
    """Reads the folder of a venue. Raises for a file that is missing or cannot be understood."""
    keys, codes, states = _read(venue, "keys"), _read(venue, "codes"), _read(venue, "states")
    whole = _codes(codes["whole"])
    stream = _read(venue, "stream") if (ANSWERS / venue / "stream.json").exists() else []
    return Papers(
        keys=_keys(keys),
        codes=whole,
        items=_codes(codes["items"]) if "items" in codes else whole,
        states={sort: {state: Word(word) for state, word in words.items()} for sort, words in states.items()},
        cancels=[_cancelled(row) for row in _read(venue, "cancels")],
        refusals=[_refusal(row) for row in _read(venue, "refusals")],
        looks=[_look(row) for row in _read(venue, "looks")],
        lists=[_look(row) for row in _read(venue, "lists")],
        pushes=[_pushed(row) for row in stream],
    )


def _read(venue: str, name: str) -> Any:
    return json.loads((ANSWERS / venue / f"{name}.json").read_text())


def _keys(row: Mapping[str, Any]) -> Keys:
    return Keys(
        row["key"], row["secret"], row.get("passphrase", ""), row["at_ms"], row["calls"],
        row.get("login_ms", row["at_ms"]), row.get("login"),
    )  # fmt: skip


def _codes(rows: Sequence[Mapping[str, Any]]) -> list[Code]:
    return [
        Code(code, row.get("text", ""), Word(row["word"]), bool(row.get("pair")))
        for row in rows
        for code in row["codes"].split()
    ]


def _cancelled(row: Mapping[str, Any]) -> Cancelled:
    words = [Word(word) for word in row["words"]]
    return Cancelled(
        row["name"], row["route"], row["intents"], row.get("notes", {}), row.get("status", 200), row["body"], words
    )


def _refusal(row: Mapping[str, Any]) -> Refusal:
    return Refusal(
        row["name"], row.get("item", False), row["route"], row["intents"], row.get("status", 200), row["body"]
    )


def _look(row: Mapping[str, Any]) -> Look:
    empty = Word(row["empty"]) if "empty" in row else None
    null = Word(row["null"]) if "null" in row else None
    return Look(
        row["name"], row["route"], row["intent"], row.get("notes", {}), row["body"], row.get("full_body", row["body"]),
        row["row"], row.get("full", 0), row.get("states", ""), empty, null, row.get("made", ""),
    )  # fmt: skip


def _pushed(row: Mapping[str, Any]) -> Pushed:
    return Pushed(row["name"], row["frame"], row["row"], row["states"], row["intents"], row.get("zipped", False))
