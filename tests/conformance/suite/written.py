"""A venue's papers with a dossier's ids and pairs written into them: calls, and answers to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cancelq_worker.venues.port import Reply, Route, Target
from tests.conformance.suite.dossier import Dossier
from tests.conformance.suite.papers import Cancelled, Code, Look, Named, Refusal, answer, fill


def places(dossier: Dossier, *, number: int | None = None) -> dict[str, Any]:
    """What is written into the places of a template. `number`: another order's id than the dossier's first."""
    order_id = dossier.order_id if number is None else str(number)
    names = {dossier.order_id: dossier.client_id, dossier.other_id: dossier.other_client_id}
    client_id = names.get(order_id, f"c_{order_id}")
    return {
        "order_id": order_id,
        "order_number": int(order_id),
        "client_id": client_id,
        "other_id": dossier.other_id,
        "other_number": int(dossier.other_id),
        "other_client_id": dossier.other_client_id,
        "symbol": dossier.symbol,
    }


def target(dossier: Dossier, named: Named, notes: Mapping[str, Any] | None = None) -> Target:
    """The intent of a recorded answer, with the dossier's pair unless it names its own."""
    fields = {"scope": "order", "priority": "normal", **fill(dict(named), **places(dossier))}
    if fields["scope"] in ("symbol", "account"):
        fields.setdefault("kinds", "order")
    if fields["scope"] != "account":
        fields.setdefault("symbol", dossier.symbol)
    return Target(fields, fill(dict(notes or {}), **places(dossier)))


def targets(dossier: Dossier, of: Cancelled | Refusal) -> list[Target]:
    notes = of.notes if isinstance(of, Cancelled) else {}
    return [target(dossier, named, notes) for named in of.intents]


def decode(dossier: Dossier, route: str | Route, named: Sequence[Target], body: Any, status: int = 200) -> list[Reply]:
    """What the adapter makes of an answer; one reply for each intent, or it fails here."""
    by = dossier.route(route) if isinstance(route, str) else route
    replies = dossier.venue.decode(by, named, answer(body, status))
    assert len(replies) == len(named), "one reply per target"
    return replies


def refusal_body(dossier: Dossier, shape: Refusal, code: Code) -> Any:
    number = int(code.code) if code.code.lstrip("-").isdecimal() else None
    return fill(shape.body, code=code.code, code_number=number, text=code.text, **places(dossier))


def row(dossier: Dossier, look: Look, state: str, *, number: int | None = None, **other: str) -> dict[str, Any]:
    """A row of a list, of the dossier's first order or of another one; `other`: what it holds instead (`symbol`,
    `client_id`)."""
    values = places(dossier, number=number) | other
    made: dict[str, Any] = fill(dict(look.row), state=state, **values)
    return made


def body(dossier: Dossier, look: Look, rows: Sequence[Any], *, more: bool = False) -> Any:
    """The answer that holds these rows. `more`: the page is not the last."""
    first = rows[0] if rows else None
    return fill(look.full_body if more else look.body, rows=list(rows), row=first, **places(dossier))


def look_target(dossier: Dossier, look: Look) -> Target:
    return target(dossier, look.intent, look.notes)


def other_look_target(dossier: Dossier, look: Look) -> Target:
    """An intent for the other order, to be looked for by the same call."""
    others = {"order_id": "$other_id", "client_order_id": "$other_client_id"}
    return target(dossier, {name: others.get(name, value) for name, value in look.intent.items()}, look.notes)
