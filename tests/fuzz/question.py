"""What a call asked, as the wire shows it, and which orders its intents mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from cancelq_worker.venues.port import Request, Target


@dataclass(frozen=True, slots=True)
class Named:
    """An order as an intent names it. Its order id counts, where it is known. `refused`: the venue answered the last
    cancel with "no such order"."""

    scope: str
    symbol: str
    order_id: str
    client_id: str
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep means: orders of these kinds, of that pair ("" for all), older than `older_ms`; from `newer_ms` on
    an order is newer; client ids begin with `prefix`."""

    kinds: tuple[str, ...]
    symbol: str
    older_ms: int
    newer_ms: int
    prefix: str


@dataclass(frozen=True, slots=True)
class Question:
    """One call: `path` is its last segment, `params` its query; POST is a cancel, GET a look."""

    method: str
    path: str
    params: Mapping[str, str]
    named: tuple[Named, ...] = ()
    swept: Swept | None = None
    body: Mapping[str, Any] = field(default_factory=dict)


#: The band of doubt where the venue's time is not known: it holds every order.
NEVER_TOLD_MS = (0, 1 << 62)


def question_of(request: Request, targets: list[Target], refused_codes: frozenset[str]) -> Question:
    """The question of a call about these targets. `refused_codes`: by which the venue says that it knows no order."""
    path = request.path.rsplit("/", 1)[-1]
    params = dict(parse_qsl(request.query, keep_blank_values=True))
    if targets[0].scope in ("symbol", "account"):
        return Question(request.method, path, params, swept=_swept(targets[0]))
    return Question(request.method, path, params, tuple(_named(target, refused_codes) for target in targets))


def _named(target: Target, refused_codes: frozenset[str]) -> Named:
    refused = target.notes.get("call", {}).get("code") in refused_codes
    order_id = target.fields.get("order_id") or target.notes.get("oid") or ""
    client_id = target.fields.get("client_order_id") or target.notes.get("cid") or ""
    return Named(target.scope, target.fields.get("symbol", ""), order_id, "" if order_id else client_id, refused)


def _swept(target: Target) -> Swept:
    fields = target.fields
    older, newer = target.age_band_ms or NEVER_TOLD_MS
    if "older_than_ms" in fields:
        older, newer = min(older, int(fields["older_than_ms"])), min(newer, int(fields["older_than_ms"]))
    kinds = tuple(fields.get("kinds", "order").split(","))
    return Swept(kinds, fields.get("symbol", ""), older, newer, fields.get("client_prefix", ""))
