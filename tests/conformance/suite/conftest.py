"""Runs every rule for each venue: a test that takes a `dossier` is run for all of them, one that takes a case of the
table below as well for each of those the venue has."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import pytest

from tests.conformance.dossiers import DOSSIERS
from tests.conformance.suite.cases import fates, namings, triggers
from tests.conformance.suite.dossier import Dossier

#: A test's argument → what a venue has of it.
CASES: Final[dict[str, Callable[[Dossier], Iterable[Any]]]] = {
    "vector": lambda dossier: dossier.papers.keys.calls,
    "cancelled": lambda dossier: dossier.papers.cancels,
    "cancelled_order": lambda dossier: [c for c in dossier.papers.cancels if c.names_orders],
    "refusal": lambda dossier: dossier.papers.refusals,
    "look": lambda dossier: dossier.papers.looks,
    "look_in_list": lambda dossier: [look for look in dossier.papers.looks if look.empty],
    "look_in_pages": lambda dossier: [look for look in dossier.papers.looks if look.full],
    "look_by_client_id": lambda dossier: [k for k in dossier.papers.looks if "client_order_id" in k.intent],
    "look_of_many": lambda dossier: [look for look in dossier.papers.looks if dossier.route(look.route).most > 1],
    "listing": lambda dossier: dossier.papers.lists,
    "stream": lambda dossier: [dossier.venue.stream] if dossier.venue.stream else [],
    "pushed": lambda dossier: dossier.papers.pushes,
    "naming": namings,
    "fate": fates,
    "kinds": lambda dossier: dossier.sweep_kinds(),
    "trigger": triggers,
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "dossier" not in metafunc.fixturenames:
        return
    taken = [name for name in CASES if name in metafunc.fixturenames]
    if not taken:
        metafunc.parametrize("dossier", DOSSIERS, ids=repr)
        return
    (name,) = taken
    cases = [(dossier, case) for dossier in DOSSIERS for case in CASES[name](dossier)]
    metafunc.parametrize(("dossier", name), cases, ids=[f"{d}-{_id(case, n)}" for n, (d, case) in enumerate(cases)])


def _id(case: Any, n: int) -> str:
    if isinstance(case, tuple | str):
        return " ".join(case) if isinstance(case, tuple) else case
    text = repr(case)
    return text if len(text) < 60 else str(n)
