"""Whatever stands in an inbox: no exception, one outcome that names the field, and nothing else harmed."""

from __future__ import annotations

import json
from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cancelq.contract import Event
from cancelq_worker.cli import showing
from cancelq_worker.trips import connect
from tests.fuzz import entries
from tests.fuzz.admission import Admission
from tests.fuzz.answers import VENUES

SAMPLE = 2_500


@pytest.mark.parametrize("venue", sorted(VENUES))
def test_a_sample_of_entries_ends_each_in_one_way(venue: str) -> None:
    rng, seen = Random(f"entries of {venue}"), Counter[str]()
    for _ in range(SAMPLE):
        seen[entries.check(venue, entries.entry(rng))] += 1
    assert min(seen["admitted"], seen["rejected"]) > SAMPLE // 20, seen


@pytest.mark.parametrize("venue", sorted(VENUES))
@settings(max_examples=60)
@given(rng=st.randoms(use_true_random=False))
def test_an_entry_that_hypothesis_finds_ends_in_one_way(venue: str, rng: Random) -> None:
    entries.check(venue, entries.entry(rng))


@settings(max_examples=60)
@given(flat=st.lists(st.binary(max_size=12), min_size=1, max_size=9))
def test_bytes_of_any_kind_end_in_one_way(flat: list[bytes]) -> None:
    entries.check("bitget", flat)


@pytest.mark.parametrize("venue", sorted(VENUES))
async def test_a_hostile_batch_harms_nothing_else_on_a_real_server(venue: str, redis_url: str) -> None:
    client = connect(redis_url)
    client.response_callbacks.pop("XRANGE", None)
    try:
        admission, rng = Admission(client, venue), Random(f"batches of {venue}")
        await admission.open()
        seen = Counter[str]()
        for _ in range(4):
            seen += await admission.batch(rng, 64)
        assert min(seen["admitted"], seen["rejected"], seen["duplicate"]) > 0, seen
    finally:
        await client.aclose()


@pytest.mark.parametrize(
    "bad", ["\x1b[2J\x1b]0;own\x07", "\x9b31m", "a\r\nb", "\x7f", "\u202eevil", "\u2028", "\U000e0041"]
)
def test_what_an_entry_copies_moves_no_terminal(bad: str) -> None:
    """A field of the producer's own is copied as it is, so whoever shows it has to take care."""
    event = Event(entry_id="1-0", id="i", status="rejected", final=True, detail=bad, extras={"x_a": bad, bad: "1"})
    for line in (showing.as_line(event, colour=False), showing.as_json(event)):
        assert line.isprintable()
    assert json.loads(showing.as_json(event))["x_a"] == bad
