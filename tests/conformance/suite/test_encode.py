"""Encoding: a call names what it is about, exactly as it was given, and never more than the venue takes; whatever
cannot be said so is not sent."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import parse_qsl

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cancelq_worker.venues.port import Plan, Request, Route, Stage, Target
from tests.conformance.suite.dossier import Dossier, Names
from tests.conformance.suite.intents import loose_targets
from tests.conformance.suite.test_routes import serving

SWEEPS = ("symbol", "account")
NOTHING_FOUND: tuple[dict[str, Any], ...] = ({}, {"sweep": {}}, {"sweep": {"todo": []}})


@settings(max_examples=200)
@given(data=st.data())
def test_a_call_that_names_no_order_and_no_pair_is_never_made(dossier: Dossier, data: st.DataObject) -> None:
    """An empty list or a pair left out cancels everything, at every venue."""
    venue = dossier.venue
    route = data.draw(st.sampled_from(venue.routes))
    targets = data.draw(st.lists(loose_targets(dossier), max_size=min(route.most, 4) + 1))
    request = encoded(dossier, route, targets)
    if request is None:
        return
    assert 0 < len(targets) <= route.most
    ids, symbols = named(dossier.names, request)
    _check_pair(targets, ids, symbols)
    if route.stage is Stage.CANCEL:
        _check_cancel(dossier, route, targets, request.path, ids)


def _check_pair(targets: Sequence[Target], ids: Sequence[str], symbols: Sequence[str]) -> None:
    assert all(symbols), "a pair that is empty is every pair"
    if not ids and all(target.scope == "symbol" for target in targets):
        assert set(symbols) == {target.symbol for target in targets}, "a call for a pair names that pair"


def _check_cancel(dossier: Dossier, route: Route, targets: Sequence[Target], path: str, ids: Sequence[str]) -> None:
    if path in dossier.bulk:
        (target,) = targets
        assert target.scope in SWEEPS, "only a sweep may be sent as a bulk call"
        assert "client_prefix" not in target.fields, "a bulk call takes all there is"
        return
    assert ids, "a cancel that names no order"
    if targets[0].scope in SWEEPS:
        found = [row["id"] for row in targets[0].notes["sweep"]["todo"]]
        assert list(ids) == found[: len(ids)], "a sweep cancels what it found, from the first on"
        assert dossier.venue.sweep_named(route.name, targets[0]) == len(ids)
        return
    assert list(ids) == [target.order_id or target.client_order_id for target in targets], "the ids that were given"
    if route.most > 1:
        others = [dossier.venue.cancel_class(target) for target in targets if target.scope != "order"]
        kinds = {name.partition(":")[0] for name in others}
        assert kinds <= set(route.kinds), "a batch for normal orders names no others"


def test_a_batch_for_normal_orders_names_no_others(dossier: Dossier, trigger: str) -> None:
    """It would look for them in the wrong book."""
    venue = dossier.venue
    other = dossier.target(dossier.intent(trigger, order_id=dossier.other_id))
    for route in (route for route in venue.routes if route.stage is Stage.CANCEL and route.most > 1):
        if venue.cancel_class(other).partition(":")[0] not in route.kinds:
            for targets in ([dossier.target(dossier.intent()), other], [other, other], [other]):
                assert encoded(dossier, route, targets) is None


@pytest.mark.parametrize("scope", SWEEPS)
@pytest.mark.parametrize("narrow", [{"client_prefix": "mm_"}, {"older_than_ms": "1700000000000"}], ids=repr)
def test_a_narrowed_intent_is_never_a_bulk_call(dossier: Dossier, narrow: dict[str, str], scope: str) -> None:
    for route in dossier.venue.routes:
        if route.stage is Stage.CANCEL and dossier.venue.endpoint(route.name) in dossier.bulk:
            assert encoded(dossier, route, [dossier.target(dossier.intent(scope, **narrow))]) is None


def test_no_route_makes_a_call_for_nothing(dossier: Dossier) -> None:
    for route in dossier.venue.routes:
        with pytest.raises(ValueError, match=r"."):
            dossier.venue.encode(route, [])


def test_no_route_takes_more_than_it_says(dossier: Dossier) -> None:
    venue = dossier.venue
    for fields in dossier.intents():
        plan = venue.admit(fields)
        assert isinstance(plan, Plan)
        for stage, name in ((Stage.CANCEL, plan.cancel_class), (Stage.LOOK, plan.look_class)):
            for route in serving(venue, stage, name):
                many = [dossier.target(_renumbered(fields, n)) for n in range(route.most + 1)]
                with pytest.raises(ValueError, match=r"."):
                    venue.encode(route, many)


def test_a_full_call_names_each_order_once(dossier: Dossier) -> None:
    venue = dossier.venue
    for by in ("order_id", "client_order_id"):
        fields = dossier.intent(by=by)
        for route in serving(venue, Stage.CANCEL, venue.cancel_class(dossier.target(fields))):
            many = [dossier.target(_renumbered(fields, n)) for n in range(route.most)]
            ids, _ = named(dossier.names, venue.encode(route, many))
            assert list(ids) == [target.fields[by] for target in many]


def test_ids_are_text_exactly_as_given(dossier: Dossier) -> None:
    """Ids beyond 2^53 do not survive a double, and a number in JSON is one to many a reader."""
    venue = dossier.venue
    for order_id in (str(2**53 + 1), "1735964079647111281", str(2**63 - 1), "7"):
        target = dossier.target(dossier.intent(order_id=order_id))
        for route in venue.routes:
            request = encoded(dossier, route, [target])
            if request is None:
                continue
            for value in _values(dossier.names, request):
                assert isinstance(value, str), "an id in JSON is text"
            if route.stage is Stage.CANCEL:
                assert named(dossier.names, request)[0] == [order_id]


def test_of_two_ids_one_is_sent(dossier: Dossier) -> None:
    """Which of two a venue would prefer is documented nowhere for sure; the order id is the one that is."""
    venue = dossier.venue
    target = dossier.target(dossier.intent(by="both"))
    for route in serving(venue, Stage.CANCEL, venue.cancel_class(target)):
        if route.least == 1:
            assert named(dossier.names, venue.encode(route, [target]))[0] == [dossier.order_id]


def test_an_order_id_that_was_learnt_is_used(dossier: Dossier) -> None:
    venue = dossier.venue
    target = dossier.target(dossier.intent(by="client_order_id"), {"oid": dossier.other_id})
    for route in serving(venue, Stage.CANCEL, venue.cancel_class(target)):
        if route.least == 1:
            assert named(dossier.names, venue.encode(route, [target]))[0] == [dossier.other_id]
    by = [dossier.intent(order_id=dossier.other_id), dossier.intent(by="client_order_id")]
    assert set(venue.order_keys(target)) == {key for fields in by for key in venue.order_keys(dossier.target(fields))}


@pytest.mark.parametrize("scope", SWEEPS)
def test_a_sweep_that_found_nothing_cancels_nothing_by_id(dossier: Dossier, scope: str) -> None:
    venue = dossier.venue
    for fields in (dossier.intent(scope), dossier.intent(scope, client_prefix="mm-")):
        for route in venue.routes:
            if route.stage is Stage.CANCEL and venue.endpoint(route.name) not in dossier.bulk:
                for notes in NOTHING_FOUND:
                    assert encoded(dossier, route, [dossier.target(fields, notes)]) is None, route


@settings(max_examples=60)
@given(client_id=st.from_regex(r"[A-Za-z0-9._:#+/=-]{1,64}", fullmatch=True))
def test_an_odd_client_id_arrives_as_it_is_or_is_not_sent(dossier: Dossier, client_id: str) -> None:
    venue = dossier.venue
    target = dossier.target({**dossier.intent(by=""), "client_order_id": client_id})
    if not isinstance(venue.admit(target.fields), Plan):
        return
    for route in serving(venue, Stage.CANCEL, venue.cancel_class(target)):
        if route.least == 1:
            assert named(dossier.names, venue.encode(route, [target]))[0] == [client_id]


def encoded(dossier: Dossier, route: Route, targets: Sequence[Target]) -> Request | None:
    """The call, or None if the adapter will not make it."""
    try:
        return dossier.venue.encode(route, targets)
    except ValueError:
        return None


def named(names: Names, request: Request) -> tuple[list[str], list[str]]:
    """The ids and the pairs a call names, in its order."""
    ids: list[str] = []
    symbols: list[str] = []
    for name, value in _parameters(request):
        if name in names.id_lists:
            ids += str(value).split(",")
        elif name in names.ids:
            ids.append(str(value))
        elif name in names.symbols:
            symbols.append(str(value))
    return ids, symbols


def _values(names: Names, request: Request) -> Iterator[Any]:
    return (value for name, value in _parameters(request) if name in names.ids)


def _parameters(request: Request) -> Iterator[tuple[str, Any]]:
    """Every parameter of the query and every scalar of the body, by name."""
    yield from parse_qsl(request.query, keep_blank_values=True)
    if request.body:
        yield from _scalars(orjson.loads(request.body))


def _scalars(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list):
        for item in value:
            yield from _scalars(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if isinstance(item, dict | list):
                yield from _scalars(item)
            else:
                yield name, item


def _renumbered(fields: dict[str, str], n: int) -> dict[str, str]:
    """The same intent for another order."""
    made = dict(fields)
    if "order_id" in made:
        made["order_id"] = str(int(made["order_id"]) + n)
    if "client_order_id" in made:
        made["client_order_id"] = re.sub(r"[0-9]*$", "", made["client_order_id"]) + str(n)
    return made
