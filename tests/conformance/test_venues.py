"""Every venue that is served is held to the rules of `suite`, and its papers hold what those rules need."""

from __future__ import annotations

import pytest

from cancelq_worker.venues.port import ENDED, Stage, Word
from cancelq_worker.venues.registry import KINDS
from tests.conformance.dossiers import DOSSIERS
from tests.conformance.suite.dossier import Dossier

each_venue = pytest.mark.parametrize("dossier", DOSSIERS, ids=str)


def test_every_venue_of_the_registry_has_a_dossier() -> None:
    assert [dossier.name for dossier in DOSSIERS if dossier.name != "example"] == list(KINDS)
    assert all(dossier.kind is KINDS.get(dossier.name, dossier.kind) for dossier in DOSSIERS)


@each_venue
def test_every_cancel_of_orders_has_a_recorded_answer(dossier: Dossier) -> None:
    recorded = {cancelled.route for cancelled in dossier.papers.cancels}
    # Sweeps go on to the open lists whatever was answered, and two routes of one endpoint have one shape.
    endpoints = {dossier.venue.endpoint(name) for name in recorded}
    cancels = [route for route in dossier.venue.routes if route.stage is Stage.CANCEL]
    assert {dossier.venue.endpoint(route.name) for route in cancels} == endpoints


@each_venue
def test_signatures_are_recorded(dossier: Dossier) -> None:
    """The example's exchange is nobody's, so no other client signs for it."""
    assert bool(dossier.papers.keys.calls) == (dossier.name != "example")


@each_venue
def test_every_scope_has_a_recorded_look(dossier: Dossier) -> None:
    looked = {look.intent.get("scope", "order") for look in dossier.papers.looks}
    assert looked >= set(dossier.names_by)


@each_venue
def test_the_papers_know_the_words_that_matter(dossier: Dossier) -> None:
    words = {code.word for code in dossier.papers.codes}
    assert words >= {Word.GONE, Word.FAILED, Word.REFUSED, Word.ACCOUNT, Word.CLOCK}
    states = {word for states in dossier.papers.states.values() for word in states.values()}
    assert states >= {Word.OPEN, Word.FILLED, Word.CANCELLED}
    assert states <= {Word.OPEN, *ENDED}
