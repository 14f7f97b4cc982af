"""Admission: what cannot work is refused at the door, with the field and the remedy; nothing an entry holds raises."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cancelq_worker.venues.port import Plan, Stage, Unfit
from tests.conformance.suite.cases import TRIGGERS
from tests.conformance.suite.dossier import Dossier
from tests.conformance.suite.intents import contract_fields
from tests.conformance.suite.test_routes import check_served


def test_every_sort_of_intent_is_admitted(dossier: Dossier) -> None:
    for fields in dossier.intents():
        assert isinstance(dossier.venue.admit(fields), Plan), fields


def test_a_pair_spelled_for_another_venue_is_refused_with_the_right_spelling(dossier: Dossier) -> None:
    for foreign in dossier.foreign_symbols:
        for fields in (dossier.intent(symbol=foreign), dossier.intent("symbol", symbol=foreign)):
            unfit = dossier.venue.admit(fields)
            assert isinstance(unfit, Unfit), foreign
            assert unfit.field == "symbol"
            assert unfit.detail.startswith("symbol: ")
            assert repr(foreign) in unfit.detail
            assert repr(dossier.symbol) in unfit.detail


def test_a_missing_pair_is_refused_where_the_venue_needs_one(dossier: Dossier, trigger: str) -> None:
    fields = dossier.intent(trigger)
    del fields["symbol"]
    made = dossier.venue.admit(fields)
    if trigger in dossier.needs_symbol:
        assert isinstance(made, Unfit)
        assert made.field == "symbol"
        assert dossier.symbol in made.detail, "the remedy shows how a pair is spelled"
    else:
        assert isinstance(made, Plan)


@pytest.mark.parametrize("by", ["order_id", "client_order_id"])
@pytest.mark.parametrize("scope", ["order", *TRIGGERS])
def test_an_id_the_venue_cannot_cancel_by_is_refused(dossier: Dossier, scope: str, by: str) -> None:
    made = dossier.venue.admit(dossier.intent(scope, by))
    if by in dossier.names_by.get(scope, ()):
        assert isinstance(made, Plan)
    else:
        assert isinstance(made, Unfit)
        assert made.field in ("order_id", "scope")


def test_only_if_is_refused_where_it_is_not_offered(dossier: Dossier) -> None:
    made = dossier.venue.admit(dossier.intent(only_if="NEW"))
    if dossier.only_if:
        assert isinstance(made, Plan)
    else:
        assert isinstance(made, Unfit)
        assert made.field == "only_if"


def test_kinds_the_venue_does_not_have_are_refused(dossier: Dossier) -> None:
    for kind in ("order", "tpsl", "stop"):
        made = dossier.venue.admit(dossier.intent("account", kinds=kind))
        if kind in dossier.sweeps:
            assert isinstance(made, Plan)
        else:
            assert isinstance(made, Unfit)
            assert made.field == "kinds"


def test_a_narrowed_sweep_begins_with_a_list(dossier: Dossier) -> None:
    for scope in ("symbol", "account"):
        for narrow in ({"client_prefix": "mm-"}, {"older_than_ms": "1700000000000"}):
            plan = dossier.venue.admit(dossier.intent(scope, **narrow))
            assert isinstance(plan, Plan)
            assert plan.start is Stage.LOOK, "a bulk call would take more than what is meant"


def test_a_client_id_beside_an_order_id_is_no_key(dossier: Dossier) -> None:
    """The order id is used; the client id may be a label that a thousand orders bear, or a wrong one. Nor is one that
    was learnt a key: the next order may bear it."""
    for scope, names in dossier.names_by.items():
        by_order_id = dossier.venue.admit(dossier.intent(scope, "order_id"))
        assert isinstance(by_order_id, Plan)
        assert len(by_order_id.orders) == 1
        learnt = dossier.target(dossier.intent(scope, "order_id"), {"cid": dossier.client_id})
        assert dossier.venue.order_keys(learnt) == by_order_id.orders
        if "both" not in names:
            continue
        both, by_client_id = (dossier.venue.admit(dossier.intent(scope, by)) for by in ("both", "client_order_id"))
        assert isinstance(both, Plan)
        assert isinstance(by_client_id, Plan)
        assert both.orders == by_order_id.orders
        assert not set(both.orders) & set(by_client_id.orders)


def test_a_client_id_of_another_pair_is_another_order(dossier: Dossier) -> None:
    first = dossier.venue.admit(dossier.intent(by="client_order_id"))
    second = dossier.venue.admit(dossier.intent(by="client_order_id", symbol=dossier.other_symbol))
    assert isinstance(first, Plan)
    assert isinstance(second, Plan)
    assert not set(first.orders) & set(second.orders)


@settings(max_examples=200)
@given(data=st.data())
def test_whatever_the_contract_lets_through_is_planned_or_refused_with_its_field(
    dossier: Dossier, data: st.DataObject
) -> None:
    fields = data.draw(contract_fields(dossier))
    made = dossier.venue.admit(fields)
    if isinstance(made, Unfit):
        assert made.field in ("scope", "symbol", "order_id", "client_order_id", "only_if", "kinds", "client_prefix")
        assert made.detail.startswith(f"{made.field}: ")
        assert len(made.detail) < 400
        return
    check_served(dossier.venue, Stage.CANCEL, made.cancel_class)
    check_served(dossier.venue, Stage.LOOK, made.look_class)
    for name in (made.cancel_class, made.look_class, *made.orders):
        assert not set(name) & set(" ,"), f"{name!r} would not survive a state line"
