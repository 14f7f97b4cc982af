"""What `top` makes of the events it reads: rates, spans of time, samples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cancelq_worker.flow import RATE_MS, WINDOW_MS, Flow, percentiles, together
from tests.unit.outcomes import NOW_MS, event, newest_first, spans


def test_outcomes_are_counted_by_group_over_the_last_ten_seconds() -> None:
    flow = Flow.beginning(NOW_MS)
    told = [event(NOW_MS - RATE_MS - 1)]  # too long ago for the rate, not for the rest
    told += [event(NOW_MS - 5000 + n) for n in range(30)]
    told += [event(NOW_MS - 900, word) for word in ("filled", "triggered", "unresolved", "rejected", "accepted")]
    flow.add(newest_first(*told), NOW_MS, whole=True)
    numbers = flow.numbers()
    assert numbers.per_s == {"cancelled": 3.0, "too late": 0.2, "unresolved": 0.1, "other": 0.1}
    assert numbers.statuses == {"cancelled": 31, "filled": 1, "triggered": 1, "unresolved": 1, "rejected": 1}
    assert not numbers.sampled
    flow.add([], NOW_MS + WINDOW_MS + 1, whole=True)
    assert (flow.numbers().per_s["cancelled"], flow.numbers().statuses) == (0, {})


def test_times_are_since_the_intent_was_queued() -> None:
    flow = Flow.beginning(NOW_MS)
    flow.add(newest_first(*(spans(NOW_MS - 1000 + n, n, 2 * n) for n in range(1, 101))), NOW_MS, whole=True)
    flow.add([event(NOW_MS)], NOW_MS, whole=True)  # without times: counted, and no time of it
    numbers = flow.numbers()
    assert numbers.sent_ms == (50.0, 99.0)
    assert numbers.settled_ms == (100.0, 198.0)


def test_what_was_passed_over_does_not_thin_the_rate() -> None:
    flow = Flow.beginning(NOW_MS)
    flow.add([], NOW_MS, whole=True)
    # A second of a thousand a second, of which the last 200 ms were read.
    read = [event(NOW_MS + 800 + n) for n in range(200)]
    flow.add(newest_first(*read), NOW_MS + 1000, whole=False)
    numbers = flow.numbers()
    assert numbers.sampled
    assert numbers.per_s["cancelled"] == pytest.approx(200 / (RATE_MS / 1000 - 0.8))
    flow.add([], NOW_MS + 1000 + WINDOW_MS, whole=True)
    assert flow.numbers().sampled is False


def test_an_unresolved_one_is_told_until_it_is_resolved() -> None:
    flow = Flow.beginning(NOW_MS)
    flow.add(newest_first(event(NOW_MS, "unresolved", id="a"), event(NOW_MS, "unresolved", id="b")), NOW_MS, whole=True)
    flow.add([], NOW_MS + 10 * WINDOW_MS, whole=True)
    assert flow.numbers().unresolved == ("a", "b")
    flow.add([event(NOW_MS, "resolved", id="b")], NOW_MS + 10 * WINDOW_MS, whole=True)
    assert flow.numbers().unresolved == ("a",)


def test_an_unresolved_one_that_was_sent_again_is_told_no_more() -> None:
    flow = Flow.beginning(NOW_MS)
    flow.add(newest_first(event(NOW_MS, "unresolved", id="a"), event(NOW_MS, "unresolved", id="b")), NOW_MS, whole=True)
    flow.add([event(NOW_MS + 1, id="redrive-1", origin="a")], NOW_MS + 1, whole=True)
    assert flow.numbers().unresolved == ("b",)
    flow.add([event(NOW_MS + 2, "unresolved", id="redrive-2", origin="b")], NOW_MS + 2, whole=True)
    assert flow.numbers().unresolved == ("redrive-2",)


def test_nothing_in_an_entry_stops_the_view() -> None:
    flow = Flow.beginning(NOW_MS)
    odd = {b"status": b"\xff", b"final": b"1", b"queued_us": b"x", b"settled_us": b"9" * 40}
    flow.add([(f"{NOW_MS}-1".encode(), odd), (f"{NOW_MS}-0".encode(), {})], NOW_MS, whole=True)
    assert flow.numbers().per_s["other"] == 0.1


def test_lanes_together_add_up() -> None:
    flows = [Flow.beginning(NOW_MS) for _ in range(2)]
    flows[0].add([spans(NOW_MS - 1, 10, 20)], NOW_MS, whole=True)
    flows[1].add([spans(NOW_MS - 1, 30, 40), event(NOW_MS - 2, "unresolved", id="a")], NOW_MS, whole=False)
    numbers = [flow.numbers() for flow in flows]
    whole = together(flows, numbers)
    assert whole.per_s["cancelled"] == sum(lane.per_s["cancelled"] for lane in numbers)
    assert whole.per_s["cancelled"] > 0.2
    assert whole.settled_ms == (20.0, 40.0)
    assert whole.statuses == {"cancelled": 2, "unresolved": 1}
    assert (whole.sampled, whole.unresolved) == (True, ("a",))


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=300))
def test_percentiles_are_values_that_were_seen_and_bound_their_share(values: list[float]) -> None:
    found = percentiles(values)
    assert found is not None
    for value, share in zip(found, (0.5, 0.99), strict=True):
        assert value in values
        assert sum(v <= value for v in values) >= share * len(values)
        assert sum(v < value for v in values) < share * len(values)


def test_no_values_no_percentiles() -> None:
    assert percentiles([]) is None
