"""Routes and buckets: whatever class an intent waits in, some call serves it, and every call is counted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cancelq_worker.venues.port import Plan, Route, Stage, Target, Venue
from tests.conformance.suite.dossier import Dossier
from tests.conformance.suite.intents import notes_of


def test_every_route_is_counted_in_buckets_that_exist(dossier: Dossier) -> None:
    venue = dossier.venue
    buckets = {bucket.name for bucket in venue.buckets}
    addresses = {bucket.name for bucket in venue.address_buckets}
    for route in venue.routes:
        assert route.bucket in buckets, route
        assert route.address, f"{route.name} is counted per address, too"
        assert set(route.address) <= addresses, route
    assert venue.other_address
    assert set(venue.other_address) <= addresses
    assert venue.probe_route in {route.name for route in venue.routes if route.stage is Stage.LOOK}


def test_every_bucket_is_a_limit_and_some_route_uses_it(dossier: Dossier) -> None:
    venue = dossier.venue
    for bucket in (*venue.buckets, *venue.address_buckets):
        assert bucket.units > 0, bucket
        assert bucket.window_us > 0 or (venue.stream and bucket.name == venue.stream.sockets), bucket
    names = [bucket.name for bucket in (*venue.buckets, *venue.address_buckets)]
    assert len(names) == len(set(names)), "a name stands for one limit"
    assert {bucket.name for bucket in venue.buckets} == {route.bucket for route in venue.routes}
    used = {name for route in venue.routes for name in route.address} | set(venue.other_address)
    assert {bucket.name for bucket in venue.address_buckets if not bucket.rare} == used
    streams = {venue.stream.connects, venue.stream.sockets} - {""} if venue.stream else set()
    assert {bucket.name for bucket in venue.address_buckets if bucket.rare} == {*venue.time_address, *streams}
    assert {bucket.name for bucket in venue.address_buckets if bucket.shared} == streams


def test_route_names_are_unique(dossier: Dossier) -> None:
    names = [route.name for route in dossier.venue.routes]
    assert len(names) == len(set(names))


def test_every_call_costs_something_and_fits_into_its_bucket(dossier: Dossier) -> None:
    venue = dossier.venue
    units = {bucket.name: bucket.units for bucket in venue.buckets}
    for route in venue.routes:
        assert 1 <= route.least <= route.most, route
        if route.by_class:
            continue
        assert route.per_call >= 0, route
        assert route.per_order >= 0, route
        assert route.per_call + route.per_order > 0, f"{route.name} would be free"
        assert route.per_call + route.per_order * route.most <= units[route.bucket], f"{route.name} could never be paid"


def test_every_route_calls_a_path(dossier: Dossier) -> None:
    venue = dossier.venue
    for route in venue.routes:
        if route.stage is Stage.CANCEL:
            assert venue.endpoint(route.name).startswith("/"), route
            assert "?" not in venue.endpoint(route.name), route


def test_the_path_that_events_name_is_the_one_that_is_called(dossier: Dossier) -> None:
    venue = dossier.venue
    for fields in dossier.intents():
        plan = venue.admit(fields)
        assert isinstance(plan, Plan), f"{fields}: {plan}"
        if plan.start is Stage.CANCEL:
            for route in serving(venue, Stage.CANCEL, plan.cancel_class):
                if route.least == 1:
                    request = venue.encode(route, [dossier.target(fields)])
                    assert request.path == venue.endpoint(route.name), route


def test_locks_are_remembered_where_routes_close_by_errors(dossier: Dossier) -> None:
    venue = dossier.venue
    assert (venue.errors_us > 0) == any(route.errors for route in venue.routes)


def test_the_class_of_every_fresh_intent_is_served(dossier: Dossier) -> None:
    venue = dossier.venue
    for fields in dossier.intents():
        plan = venue.admit(fields)
        assert isinstance(plan, Plan), f"{fields}: {plan}"
        check_served(venue, Stage.CANCEL, plan.cancel_class)
        check_served(venue, Stage.LOOK, plan.look_class)


@settings(max_examples=150)
@given(data=st.data())
def test_the_class_is_served_whatever_was_noted(dossier: Dossier, data: st.DataObject) -> None:
    venue = dossier.venue
    fields = data.draw(st.sampled_from(dossier.intents()))
    notes: dict[str, Any] = data.draw(notes_of(dossier, fields["scope"]))
    places = {route.name for route in venue.routes if route.stage is Stage.LOOK} | set(_places(venue, fields))
    notes["abs"] = data.draw(st.dictionaries(st.sampled_from(sorted(places)), st.integers(1, 3), max_size=4))
    target = Target(fields, notes)
    check_served(venue, Stage.CANCEL, venue.cancel_class(target))
    check_served(venue, Stage.LOOK, venue.next_look(target).look_class)


def check_served(venue: Venue, stage: Stage, name: str) -> None:
    """A lone intent of this class can travel, and a look of it even while all routes that errors close are closed."""
    routes = list(serving(venue, stage, name))
    assert any(route.least == 1 for route in routes), f"no {stage.name} route is for a lone intent of class {name!r}"
    if stage is Stage.LOOK:
        assert any(not route.errors for route in routes), f"looks of class {name!r} would stop at a lock"


def serving(venue: Venue, stage: Stage, name: str) -> Iterator[Route]:
    """The routes of a class. What stands behind the colon only keeps apart what one call may not mix."""
    kind = name.partition(":")[0]
    return (route for route in venue.routes if route.stage is stage and kind in route.kinds)


def _places(venue: Venue, fields: dict[str, str]) -> Iterator[str]:
    """The places of looks, as the classes name them."""
    for n in range(6):
        yield venue.next_look(Target(fields, {"n": n})).look_class.partition(":")[0]
