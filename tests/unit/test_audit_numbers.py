"""What an audit counts, and how it tells times."""

from __future__ import annotations

import pytest

from cancelq.contract import Status
from cancelq_worker.audit.numbers import Histogram, Numbers, merge_latency
from cancelq_worker.audit.rules import Told

MINUTE_US = 60_000_000


def told(status: Status, **fields: str) -> Told:
    return Told("1-0", "i", status, True, fields, {"settled_us": 5 * MINUTE_US})


@pytest.mark.parametrize(("percent", "us"), [(50, 10), (51, 20), (100, 20)])
def test_a_percentile_is_the_smallest_time_that_so_many_do_not_exceed(percent: float, us: int) -> None:
    times = Histogram()
    for one in (20, 10):
        times.add(one)
    assert times.percentile(percent) == us


def test_an_intent_that_was_to_wait_counts_from_its_time_on() -> None:
    numbers = Numbers()
    numbers.took({"queued": 0, "taken": 1_100, "settled": 1_200}, 1_000, "order", "normal")
    assert numbers.latency["queued", "taken", "order", "normal"].most == 100
    assert numbers.latency["queued", "settled", "order", "normal"].most == 200


def test_the_longest_time_of_all_lanes_is_the_longest() -> None:
    lanes = [Numbers(), Numbers()]
    for lane, settled_us in zip(lanes, (100, 900), strict=True):
        lane.took({"queued": 0, "settled": settled_us}, 0, "order", "normal")
    assert merge_latency(lanes)["queued", "settled"].most == 900


def test_an_event_on_the_way_that_was_refused_is_a_refusal() -> None:
    numbers = Numbers()
    numbers.event(told(Status.retrying, refused="1", code="429"))
    numbers.event(told(Status.rejected, code="25200"))
    numbers.event(told(Status.cancelled))
    assert numbers.refusals == {("429", ""): 1, ("25200", ""): 1}
    assert numbers.refused_by_minute == {5: 2}
