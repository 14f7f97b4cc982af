"""The figures of the benchmark beside other tools: counted right, kept right, shown right."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from peers import page, part, record
from peers.figures import Taken, curve, figures, percentile, times_sent, worst_second
from peers.loads import CEILING, LOADS, URGENT, Load, load, orders_needed
from peers.roster import ROWS

ORDERS = [str(number) for number in range(1_000)]
START_US = 1_700_000_000_000_000


def call(at_us: int, ids: Sequence[str], **fields: object) -> dict[str, Any]:
    """A cancel call that the venue let in, so long after the start."""
    return {
        "endpoint": "batch-cancel-order",
        "at_us": START_US + at_us,
        "steady_us": at_us,
        "ids": list(ids),
        "refused": False,
        "executed": True,
        "failed_items": 0,
        **fields,
    }


def taken(orders: Sequence[str], calls: Sequence[dict[str, Any]], **fields: Any) -> Taken:
    """A run of two seconds in which all orders were asked for at the start and those called were cancelled."""
    named = {order_id for one in calls if one["executed"] for order_id in one["ids"]}
    given: dict[str, Any] = {
        "start_us": START_US,
        "end_us": START_US + 2_000_000,
        "asked": dict.fromkeys(orders, START_US),
        "urgent": set(),
        "calls": calls,
        "answers": {},
        "codes": Counter(),
        "cancelled": named,
    }
    return Taken(**{**given, **fields})


# -- figures -------------------------------------------------------------------------------------------------------


def test_the_worst_second_leaves_its_end_out() -> None:
    assert worst_second([0, 999_999, 1_000_000]) == 2
    assert worst_second([5, 3, 4]) == 3
    assert worst_second([]) == 0


@given(st.lists(st.integers(0, 3_000_000), max_size=40))
def test_the_worst_second_is_the_most_behind_any_arrival(arrivals_us: list[int]) -> None:
    counted = [sum(first <= at_us < first + 1_000_000 for at_us in arrivals_us) for first in arrivals_us]
    assert worst_second(arrivals_us) == max(counted, default=0)


def test_a_percentile_counts_what_did_not_come_as_latest() -> None:
    assert percentile([3.0, 1.0, 2.0, None], 50) == 2.0
    assert percentile([3.0, 1.0, 2.0, None], 75) == 3.0
    assert percentile([3.0, 1.0, 2.0, None], 99) is None
    assert percentile([float(value) for value in range(1, 101)], 99) == 99.0
    assert percentile([], 50) is None


def test_a_curve_adds_up_to_all_that_happened() -> None:
    times_us = [START_US - 10, START_US, START_US + 250_000, START_US + 999_999, START_US + 5_000_000]
    assert curve(times_us, START_US, START_US + 1_000_000) == [2, 3, 3, 5]


def test_a_refused_call_brings_no_order_to_the_door_but_counts_over_the_limit() -> None:
    refused = [call(0, ["1", "2"], refused=True, executed=False) for _ in range(14)]
    found = figures(taken(["1", "2"], [*refused, call(1_100_000, ["1", "2"])]), Load("burst", [], ["1", "2"], 1.0))
    assert (found["refused"], found["calls"], found["over_limit"]) == (14, 15, 4)
    assert found["drained_s"] == pytest.approx(1.1)
    assert found["to_door_ms"]["p50"] == pytest.approx(1_100)
    assert found["calls_per_1000"] == pytest.approx(7_500)
    assert found["refusals"][-1] == 14


def test_what_the_venue_did_not_cancel_is_not_done() -> None:
    found = figures(taken(["1", "2"], [call(0, ["1", "2"])], cancelled={"1"}), Load("burst", [], ["1", "2"], 1.0))
    assert (found["done"], found["drained_s"], found["drain_over_best"]) == (1, None, None)


def test_an_order_named_by_two_calls_is_sent_twice_and_by_one_call_twice_is_not() -> None:
    assert times_sent([call(0, ["1", "2", "2"]), call(5, ["1"])]) == {"1": 2, "2": 1}
    assert times_sent([call(0, ["1"], refused=True), call(5, ["1"])]) == {"1": 1}


def test_recovery_counts_from_the_kill() -> None:
    calls = [call(0, ["1"]), call(900_000, ["2"])]
    told = {"1": START_US + 50_000, "2": START_US + 1_000_000}
    played = Load("recovery", [], ["1", "2"], 0.0)
    found = figures(taken(["1", "2"], calls, answers=told, killed_us=START_US + 400_000), played)["recovery"]
    assert (found["left"], found["not_done"], found["not_told"]) == (1, 0, 0)
    assert found["all_done_s"] == pytest.approx(0.5)
    assert found["all_told_s"] == pytest.approx(0.6)
    lost = figures(taken(["1", "2"], calls[:1], answers=told, killed_us=START_US + 400_000), played)["recovery"]
    assert (lost["all_done_s"], lost["not_done"]) == (None, 1)


def test_an_order_told_only_as_accepted_is_not_told_where_finals_are_given() -> None:
    played = Load("recovery", [], ["1"], 0.0)
    run = taken(["1"], [call(0, ["1"])], answers={"1": START_US}, finals={}, killed_us=START_US)
    assert figures(run, played)["recovery"]["not_told"] == 1


# -- loads ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOADS)
def test_every_load_asks_for_every_order_in_time_order(name: str) -> None:
    made = load(name, ORDERS, Random(1))
    assert {order_id for step in made.steps for order_id in step.order_ids} == set(ORDERS)
    assert all(one.at_us <= other.at_us for one, other in pairwise(made.steps))


def test_a_tenth_of_the_mixed_burst_is_repeats_and_each_stands_behind_its_first() -> None:
    bulk, urgent = load("mixed", ORDERS, Random(1)).steps
    repeats = len(bulk.order_ids) - len(set(bulk.order_ids))
    assert repeats == pytest.approx(0.1 * len(bulk.order_ids), rel=0.01)
    assert (bulk.urgent, urgent.urgent, len(urgent.order_ids)) == (False, True, URGENT)
    assert not set(urgent.order_ids) & set(bulk.order_ids)


def test_the_best_drain_of_a_burst_is_by_full_windows() -> None:
    assert load("burst", ORDERS[:CEILING], Random(1)).best_s == 0.0
    assert load("burst", ORDERS[: CEILING + 1], Random(1)).best_s == 1.0
    assert load("trickle", ORDERS[:50], Random(1)).best_s == pytest.approx(9.8)


def test_a_row_that_cancels_one_by_one_recovers_from_a_shorter_load() -> None:
    assert orders_needed("recovery", True, 1.0) < orders_needed("recovery", False, 1.0)
    assert orders_needed("burst", True, 1.0) == orders_needed("burst", False, 1.0)


# -- record and page -----------------------------------------------------------------------------------------------


def entry(peer: str, row: str, name: str, repeat: int, done: int = 1) -> record.Run:
    """A run as the record keeps it, of one order that was cancelled at once."""
    made = load(name, ["1"] if name != "mixed" else ORDERS[:40], Random(1))
    urgent = set(made.orders[-URGENT:]) if name == "mixed" else set()
    run = taken(made.orders, [call(100_000, made.orders)], urgent=urgent)
    if name == "recovery":
        run.killed_us = START_US + 50_000
    return {
        "peer": peer,
        "row": row,
        "load": name,
        "repeat": repeat,
        "seed": 1,
        "scale": 1.0,
        "at": "2026-01-01T00:00:00+00:00",
        "machine": {"processor": "one", "load before": "0.0"},
        "figures": {**figures(run, made), "done": done},
    }


def test_a_run_replaces_the_older_one_of_the_same_name_and_no_other() -> None:
    first = record.merged(
        {"versions": {}, "runs": []}, [entry("rq", "helped", "burst", 1), entry("rq", "helped", "burst", 2)], {}
    )
    both = record.merged(first, [entry("rq", "helped", "burst", 2, done=7)], {"rq": {"rq": "2"}})
    assert [run["figures"]["done"] for run in record.runs_of(both, "rq", "helped", "burst")] == [1, 7]
    assert both["versions"] == {"rq": {"rq": "2"}}


def test_the_record_outlives_its_file(tmp_path: Path) -> None:
    kept = record.merged(record.read(tmp_path / "none.json"), [entry("cancelq", "as shipped", "mixed", 1)], {})
    record.write(tmp_path / "peers.json", kept)
    assert record.read(tmp_path / "peers.json") == orjson.loads(orjson.dumps(kept))


def test_a_bench_that_was_broken_off_goes_on_with_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part, "RECORD", tmp_path / "peers.json")
    record.write(part.RECORD, record.merged(record.read(part.RECORD), [entry("rq", "helped", "burst", 2)], {}))
    wanted = part.Wanted(("rq",), ("burst", "recovery"), 2, 1.0, True)
    whole = [(row.row, name, repeat) for row, name, repeat in part.planned(wanted)]
    left = [(row.row, name, repeat) for row, name, repeat in part.planned(replace(wanted, missing=True))]
    assert len(whole) == 8
    assert left == [one for one in whole if one != ("helped", "burst", 2)]


def test_the_middle_of_times_that_did_not_come_did_not_come() -> None:
    assert record.middle([1.0, None, 3.0]) == 3.0
    assert record.middle([1.0, None, None]) is None
    assert record.middle([]) is None


def test_the_page_shows_every_row_in_every_load_it_played() -> None:
    runs = [entry(row.peer, row.row, name, 1) for row in ROWS for name in LOADS if row.mixed or name != "mixed"]
    text = page.page(record.merged({"versions": {}, "runs": []}, runs, {"rq": {"rq": "2.12.0"}}))
    for row in ROWS:
        # Each load, and the costs of three of them.
        assert text.count(f"| {row.peer} | {row.row} |") == len(LOADS) + 3 - (not row.mixed)
        assert f"**{row.peer}, {row.row}**: {row.note}" in text
    assert "rq 2.12.0" in text
    assert "not the whole loads" not in text


def test_the_page_says_when_loads_were_shrunk_and_shows_the_spread() -> None:
    runs = [entry("rq", "helped", "burst", repeat, done) for repeat, done in ((1, 3), (2, 9), (3, 5))]
    runs[0]["scale"] = 0.1
    text = page.page(record.merged({"versions": {}, "runs": []}, runs, {}))
    assert "not the whole loads" in text
    assert "5 (3…9) of 1" in text


def test_an_empty_record_makes_a_page() -> None:
    assert "nothing is measured yet" in page.page(record.read(Path("/nonexistent")))
