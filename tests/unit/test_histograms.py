"""Histograms count as prometheus_client's own do, one by one and many at once."""

from __future__ import annotations

import prometheus_client
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from cancelq_worker.histograms import Histogram
from cancelq_worker.metrics import BOUNDS_S

VALUES = st.lists(
    st.one_of(st.sampled_from([0.0, *BOUNDS_S, 61.0]), st.integers(0, 100_000_000).map(lambda us: us / 1e6))
)


def lines(registry: CollectorRegistry) -> dict[str, float]:
    text = generate_latest(registry).decode()
    pairs = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: round(float(value), 6) for name, value in pairs if "_created" not in name}


@given(VALUES)
def test_it_counts_as_the_library_s_own(values: list[float]) -> None:
    theirs, one_by_one, at_once = CollectorRegistry(), CollectorRegistry(), CollectorRegistry()
    library = prometheus_client.Histogram("t_seconds", "T.", ["of"], registry=theirs, buckets=BOUNDS_S).labels("a")
    single = Histogram("t_seconds", "T.", ["of"], BOUNDS_S, one_by_one).labels("a")
    for value in values:
        library.observe(value)
        single.add(value)
    Histogram("t_seconds", "T.", ["of"], BOUNDS_S, at_once).labels("a").add_all(list(values))
    assert lines(one_by_one) == lines(theirs)
    assert lines(at_once) == lines(theirs)


def test_values_below_zero_count_as_zero() -> None:
    registry = CollectorRegistry()
    cells = Histogram("t_seconds", "T.", [], (0.5, 1.0), registry).labels()
    cells.add(-3.0)
    cells.add_all([0.75, -1.0, -2.0])
    assert lines(registry) == {
        't_seconds_bucket{le="0.5"}': 3,
        't_seconds_bucket{le="1.0"}': 4,
        't_seconds_bucket{le="+Inf"}': 4,
        "t_seconds_count": 4,
        "t_seconds_sum": 0.75,
    }


def test_one_set_of_labels_is_one_histogram() -> None:
    family = Histogram("t_seconds", "T.", ["of"], (1.0,), CollectorRegistry())
    assert family.labels("a") is family.labels("a")
    assert family.labels("a") is not family.labels("b")
