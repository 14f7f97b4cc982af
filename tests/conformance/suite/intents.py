"""Intents and targets as hypothesis draws them: whatever the contract lets through, whatever was noted on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from cancelq.contract import Accepted, read_entry
from cancelq_worker.venues.port import Target
from tests.conformance.suite.dossier import Dossier, Fields

_ID = st.from_regex(r"[A-Za-z0-9._:#+/=-]{1,64}", fullmatch=True)
_DIGITS = st.integers(1, 2**63 - 1).map(str)
_MS = st.integers(0, 9_999_999_999_999).map(str)
_SYMBOL = st.from_regex(r"[A-Za-z0-9_-]{1,32}", fullmatch=True)
_KINDS = st.sampled_from(["order", "tpsl", "stop", "order,tpsl", "tpsl,stop", "stop,order,tpsl"])

#: Fields in any combination; the contract decides which of them are an intent.
_ENTRY = st.fixed_dictionaries(
    {"scope": st.sampled_from(["order", "tpsl", "stop", "symbol", "account"])},
    optional={
        "symbol": _SYMBOL,
        "order_id": st.one_of(_DIGITS, _ID),
        "client_order_id": _ID,
        "kinds": _KINDS,
        "older_than_ms": _MS,
        "client_prefix": _ID,
        "only_if": st.sampled_from(["NEW", "PENDING", "PARTIALLY_FILLED"]),
        "not_before_ms": _MS,
        "strategy": st.text(max_size=8),
        "x_note": st.text(max_size=8),
    },
)


def accepted(entry: dict[str, str]) -> Fields | None:
    """The fields as admission passes them on, or None if the contract refuses the entry."""
    read = read_entry("1700000000000-0", {k.encode(): v.encode("utf-8", "ignore") for k, v in entry.items()})
    return dict(read.fields) if isinstance(read, Accepted) else None


@st.composite
def contract_fields(draw: st.DrawFn, dossier: Dossier) -> Fields:
    """An intent that passed the contract; half of them with a pair of this venue."""
    entry = draw(_ENTRY)
    scope = entry["scope"]
    if scope in ("symbol", "account"):
        for name in ("order_id", "client_order_id", "only_if"):
            entry.pop(name, None)
    else:
        for name in ("kinds", "older_than_ms", "client_prefix"):
            entry.pop(name, None)
        if not {"order_id", "client_order_id"} & entry.keys():
            entry["order_id"] = draw(_DIGITS)
        if scope != "order":
            entry.pop("only_if", None)
    if scope == "account":
        entry.pop("symbol", None)
    elif scope in ("order", "symbol") or "symbol" in entry:
        entry["symbol"] = draw(st.sampled_from([dossier.symbol, entry.get("symbol", dossier.other_symbol)]))
    fields = accepted(entry)
    return fields if fields is not None else dossier.intent()


@st.composite
def loose_targets(draw: st.DrawFn, dossier: Dossier) -> Target:
    """A target as no admission would let it through as well: without a pair, without an id, with odd notes."""
    scope = draw(st.sampled_from(["order", "tpsl", "stop", "symbol", "account"]))
    pair = draw(st.sampled_from([dossier.symbol, dossier.symbol, dossier.other_symbol, None, ""]))
    fields: dict[str, str | None] = {"scope": scope, "symbol": pair}
    if scope in ("symbol", "account"):
        fields["kinds"] = draw(st.sampled_from(dossier.sweep_kinds()))
        fields["client_prefix"] = draw(st.sampled_from([None, None, "mm-"]))
    else:
        fields["order_id"] = draw(st.one_of(st.none(), _DIGITS))
        fields["client_order_id"] = draw(st.one_of(st.none(), st.from_regex("[a-z][a-z0-9_]{0,20}", fullmatch=True)))
    given = {name: value for name, value in fields.items() if value is not None}
    return Target(given, draw(notes_of(dossier, scope)))


@st.composite
def notes_of(draw: st.DrawFn, dossier: Dossier, scope: str) -> dict[str, Any]:
    """What may have been noted of an intent: what every venue's looks leave, this venue's own, a sweep's progress."""
    notes: dict[str, Any] = {}
    if scope in ("symbol", "account"):
        todo = st.lists(st.sampled_from(_found(dossier)), max_size=4, unique_by=lambda row: row["id"])
        if draw(st.booleans()):
            notes["sweep"] = {"todo": draw(todo), "k": draw(st.integers(0, 2)), "at": draw(st.sampled_from(["", "77"]))}
        return notes
    if draw(st.booleans()):
        notes |= {"n": draw(st.integers(0, 9)), "f": draw(st.integers(0, 5))}
    if draw(st.booleans()):
        notes |= draw(st.sampled_from([{"ack": 1}, {"seen": 1}, {"known": 1}, {"oid": dossier.other_id}]))
    if draw(st.booleans()) and dossier.pads:
        pad: Mapping[str, Any] = draw(st.sampled_from(dossier.pads))
        notes |= pad
    return notes


def _found(dossier: Dossier) -> list[dict[str, str]]:
    """Rows a sweep may have found."""
    pairs = (dossier.symbol, dossier.other_symbol)
    rows = [{"id": i, "symbol": pair} for i in (dossier.order_id, dossier.other_id) for pair in pairs]
    return rows + [{**row, "kind": kind} for row in rows for kind in dossier.sweeps if kind != "order"]
