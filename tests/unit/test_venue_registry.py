"""Every venue whose name the public contract lets through is served."""

from cancelq import VENUES
from cancelq_worker.venues.registry import KINDS


def test_the_registry_serves_exactly_the_venues_of_the_contract() -> None:
    assert tuple(KINDS) == VENUES
