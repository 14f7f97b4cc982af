"""What can be the matter with an order, and how an intent can name it."""

from __future__ import annotations

from typing import Final, NamedTuple

from tests.conformance.suite.dossier import Dossier

TRIGGERS: Final = ("tpsl", "stop")

#: What there is before the intent: a state an order can be in, or what will happen to a live one.
NORMAL_LIVES: Final = ("live", "partially_filled", "cancelled", "filled", "fills first")
TRIGGER_LIVES: Final = ("live", "cancelled", "triggered", "fills first")
#: The same where no cancel is ever carried out, and the venue says so, or does not.
NEVER_CANCELLED: Final = ("cancels refused", "cancels ignored")


class Naming(NamedTuple):
    """An intent for one order. `by`: order_id, client_order_id or both."""

    scope: str
    by: str


class Fate(NamedTuple):
    """The same, and what becomes of the order."""

    scope: str
    by: str
    life: str


def namings(dossier: Dossier) -> list[Naming]:
    """Every way to name one order at this venue."""
    return [Naming(scope, by) for scope, names in dossier.names_by.items() for by in names]


def fates(dossier: Dossier) -> list[Fate]:
    """Normal orders fill and do not fire, the others fire and do not fill."""
    return [
        Fate(scope, by, life)
        for scope, by in namings(dossier)
        for life in (*(NORMAL_LIVES if scope == "order" else TRIGGER_LIVES), *NEVER_CANCELLED)
    ]


def triggers(dossier: Dossier) -> list[str]:
    """The scopes of orders with a trigger that this venue has."""
    return [scope for scope in TRIGGERS if scope in dossier.names_by]
