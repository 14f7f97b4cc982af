"""What is known of a remote clock, and by how much it may be off."""

from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cancelq_worker.clocks import Pace, RemoteClock, drift_us

MS_NS = 1_000_000
SECOND_NS = 1_000 * MS_NS
# What whole microseconds may add on either side.
ROUNDING_US = 3


@dataclass
class Monotonic:
    """This process' monotonic clock, moved by the test."""

    ns: int = 5_000_000_000

    def __call__(self) -> int:
        return self.ns


# A pause before a reading, its round trip, and how much of that was the way there.
READING = st.tuples(
    st.one_of(st.integers(0, 2 * SECOND_NS), st.integers(0, 900 * SECOND_NS)),
    st.one_of(st.integers(0, 5 * MS_NS), st.integers(0, 500 * MS_NS)),
    st.floats(0, 1),
)


@given(
    st.integers(-(10**15), 10**15),
    st.integers(-40, 40),
    st.sampled_from([1, 1_000]),
    st.lists(READING, min_size=1, max_size=12),
    st.integers(0, 600 * SECOND_NS),
)
@example(0, 37, 1, [(0, 115_135_137, 0.0)], 19_999_999)
def test_it_is_never_further_off_than_it_says(
    offset_us: int, drift_per_s_us: int, resolution_us: int, readings: list[tuple[int, int, float]], later_ns: int
) -> None:
    """However the way there and the way back differ, however coarse the remote clock tells its time, and however
    the two clocks drift apart, as far as clocks do."""
    monotonic = Monotonic()
    clock = RemoteClock(resolution_us, monotonic)

    def remote_us(ns: int) -> int:
        return ns // 1000 + offset_us + ns * drift_per_s_us // SECOND_NS

    def check() -> None:
        error_us = clock.now_us() - remote_us(monotonic.ns)
        assert abs(error_us) <= clock.uncertainty_us + ROUNDING_US

    for pause_ns, rtt_ns, share in readings:
        before_ns = monotonic.ns + pause_ns
        told_us = remote_us(before_ns + int(rtt_ns * share))
        monotonic.ns = before_ns + rtt_ns
        clock.learn(before_ns, monotonic.ns, told_us // resolution_us * resolution_us)
        check()
    monotonic.ns += later_ns
    check()
    assert not clock.leapt_us, "nobody set it"


@given(st.integers(0, 2 * 10**15), st.integers(0, 10**12))
def test_moments_are_mapped_there_and_back(remote_us: int, before_ns: int) -> None:
    clock = RemoteClock(1, Monotonic(before_ns + 20 * MS_NS))
    clock.learn(before_ns, before_ns + 20 * MS_NS, remote_us)
    for moment_us in (remote_us, remote_us + 1, remote_us + 3_600_000_000):
        assert clock.at_us(clock.when_ns(moment_us)) == moment_us


def test_a_reading_is_off_by_at_most_half_its_round_trip_and_what_the_clocks_part_in_it() -> None:
    clock = RemoteClock(1, Monotonic(100 * MS_NS))
    clock.learn(0, 100 * MS_NS, 1_000_000)
    assert abs(clock.uncertainty_us - 50_000 - drift_us(100 * MS_NS)) <= ROUNDING_US
    assert abs(clock.at_us(50 * MS_NS) - 1_000_000) <= ROUNDING_US


def test_a_better_reading_is_believed_and_a_worse_one_changes_little() -> None:
    monotonic = Monotonic(100 * MS_NS)
    clock = RemoteClock(1, monotonic)
    clock.learn(0, 100 * MS_NS, 1_000_000)
    for before_ms, after_ms in ((200, 210), (300, 500)):
        monotonic.ns = after_ms * MS_NS
        clock.learn(before_ms * MS_NS, after_ms * MS_NS, 1_000_000 + (before_ms + after_ms) * 500 - 50_000)
        assert clock.uncertainty_us <= 5_100
        assert abs(clock.at_us(205 * MS_NS) - 1_155_000) <= 5_100


def test_a_remote_clock_that_was_set_is_followed() -> None:
    """By ten seconds, either way: the readings before tell nothing any more."""
    for step_us in (10_000_000, -10_000_000):
        monotonic = Monotonic(0)
        clock = RemoteClock(1_000, monotonic)
        for n in range(5):
            monotonic.ns = n * 20 * SECOND_NS + MS_NS
            clock.learn(monotonic.ns - MS_NS, monotonic.ns, 700_000_000 + n * 20_000_000)
        monotonic.ns += 20 * SECOND_NS
        clock.learn(monotonic.ns - MS_NS, monotonic.ns, 800_000_000 + step_us)
        assert abs(clock.now_us() - (800_000_000 + step_us)) <= 2_000
        assert clock.uncertainty_us <= 2_000


@pytest.mark.parametrize(
    ("step_us", "rtt_ms", "least_us"),
    [(900_000, 1, 900_000), (5_000, 1, 5_000), (-900_000, 1, 0), (900_000, 200, 900_000)],
)
def test_a_remote_clock_that_leapt_ahead_is_told(step_us: int, rtt_ms: int, least_us: int) -> None:
    """Also by a reading so slow that it is not used otherwise; only a step back is none."""
    monotonic = Monotonic(0)
    clock = RemoteClock(1, monotonic)
    for n in range(4):
        monotonic.ns = n * 300 * MS_NS + MS_NS
        clock.learn(monotonic.ns - MS_NS, monotonic.ns, 700_000_000 + n * 300_000)
    before_ns = monotonic.ns + 10 * MS_NS
    for n in range(3):
        monotonic.ns = before_ns + (n + 1) * rtt_ms * MS_NS
        clock.learn(monotonic.ns - rtt_ms * MS_NS, monotonic.ns, 700_000_000 + step_us + monotonic.ns // 1000)
        assert least_us <= clock.leapt_us <= (least_us + rtt_ms * 1_000 + 2_000 if least_us else 0)


def test_a_step_is_told_though_a_slow_reading_lies_across_it() -> None:
    monotonic = Monotonic(0)
    clock = RemoteClock(1, monotonic)

    def read(rtt_us: int, ahead_us: int) -> None:
        before_ns = monotonic.ns
        monotonic.ns += rtt_us * 1_000
        clock.learn(before_ns, monotonic.ns, 700_000_000 + ahead_us + (before_ns // 1000 + rtt_us // 2))
        monotonic.ns += 5 * MS_NS

    for _ in range(5):
        read(500, 0)
    read(9_000, 4_000)
    assert not clock.leapt_us, "it may as well have been read late"
    read(500, 4_000)
    assert 4_000 <= clock.leapt_us <= 6_000
    read(500, 4_000)
    assert clock.leapt_us <= 6_000, "told once"


def test_what_is_known_fades_with_time() -> None:
    """A venue that does not tell its time for an hour may have drifted away meanwhile."""
    monotonic = Monotonic(0)
    clock = RemoteClock(1, monotonic)
    clock.learn(0, 0, 1_000_000)
    fresh_us = clock.uncertainty_us
    monotonic.ns = 3_600 * SECOND_NS
    assert clock.uncertainty_us >= fresh_us + 36_000, "ten millionths are an ordinary drift"


def test_a_coarse_clock_is_off_by_half_its_step() -> None:
    clock = RemoteClock(1_000, Monotonic(0))
    clock.learn(0, 0, 7_000)
    assert (clock.at_us(0), clock.uncertainty_us) == (7_500, 500)


def test_before_anything_was_learnt_a_whole_second_is_in_doubt() -> None:
    clock = RemoteClock(1_000, Monotonic())
    assert not clock.known
    assert clock.uncertainty_us == 1_000_000
    assert clock.now_us() > 1_600_000_000_000_000, "the wall clock of this machine stands in"


def test_a_clock_found_wrong_is_learnt_anew() -> None:
    clock = RemoteClock(1, Monotonic(100 * MS_NS))
    clock.learn(0, 0, 1_000_000)
    assert clock.known
    clock.forget()
    assert (clock.known, clock.uncertainty_us) == (False, 1_000_000)
    clock.learn(0, 100 * MS_NS, 2_000_000)
    assert abs(clock.at_us(50 * MS_NS) - 2_000_000) <= ROUNDING_US


def test_it_runs_with_the_monotonic_clock_alone() -> None:
    monotonic = Monotonic()
    clock = RemoteClock(1, monotonic)
    clock.learn(monotonic.ns, monotonic.ns, 77_000_000)
    monotonic.ns += 3 * SECOND_NS
    assert clock.now_us() == 80_000_000


def test_a_pace_lets_so_many_through_in_any_second() -> None:
    clock = Monotonic()
    pace = Pace(2, clock)
    assert [pace.may() for _ in range(3)] == [True, True, False]
    clock.ns += SECOND_NS - 1
    assert not pace.may()
    clock.ns += 1
    assert [pace.may() for _ in range(3)] == [True, True, False]


def test_how_long_a_clock_was_known_begins_anew_with_every_break() -> None:
    now_ns = 0

    def read(at_ms: int, remote_us: int) -> int:
        nonlocal now_ns
        now_ns = at_ms * 1_000_000
        clock.learn(now_ns - 200_000, now_ns, remote_us)
        return clock.vouched_us // 1000

    clock = RemoteClock(1, lambda: now_ns)
    assert clock.vouched_us == 0
    assert [read(at_ms, at_ms * 1_000) for at_ms in (10, 500, 2_000)] == [0, 490, 1_990]
    for n in range(100):  # more than are kept
        assert read(2_001 + n, (2_001 + n) * 1_000) == 1_991 + n
    assert read(2_200, 2_200_000 + 50_000) == 0, "set ahead"
    assert read(2_300, 2_300_000 + 50_000) == 100
    assert read(2_400, 2_400_000 - 50_000) == 0, "set back"
    now_ns = 62_000 * 1_000_000
    assert clock.vouched_us == 59_600_000
    now_ns = 62_500 * 1_000_000
    assert clock.vouched_us == 0, "nobody looked for longer than readings are kept"
    assert read(100_000, 100_000_000 - 50_000) == 0
    clock.forget()
    assert clock.vouched_us == 0


def known_by(rtts_ns: list[int], pause_ns: int) -> RemoteClock:
    """A clock that was read so often, in the middle of each round trip, with a pause after each."""
    monotonic = Monotonic(0)
    clock = RemoteClock(1, monotonic)
    for rtt_ns in rtts_ns:
        before_ns = monotonic.ns
        monotonic.ns += rtt_ns
        clock.learn(before_ns, monotonic.ns, 700_000_000 + (before_ns + monotonic.ns) // 2_000)
        monotonic.ns += pause_ns
    return clock


def test_a_clock_far_away_is_known_as_well_after_hours() -> None:
    """Each of its readings takes long, and tells nothing new beside one that is recent."""
    clock = known_by(3_600 * [50 * MS_NS], pause_ns=2 * SECOND_NS)
    assert clock.uncertainty_us <= 25_500
    assert clock.vouched_us >= 7_000_000_000


def test_a_clock_whose_way_has_become_long_is_vouched_for_as_before() -> None:
    """Each reading tells less than what is known already, and that the clock still goes as it did."""
    clock = known_by([MS_NS, *60 * [50 * MS_NS]], pause_ns=2 * SECOND_NS)
    assert clock.vouched_us >= 120_000_000


def test_what_tells_nothing_new_is_not_kept() -> None:
    """A reading that is no better than a recent one drops none that is."""
    clock = known_by([MS_NS // 10, *200 * [MS_NS]], pause_ns=10 * MS_NS)
    assert clock.uncertainty_us <= 250


def test_a_clock_that_leaps_ahead_again_leapt_by_both() -> None:
    monotonic = Monotonic(0)
    clock = RemoteClock(1, monotonic)
    ahead_us = 0
    for step_us in (0, 3_000_000, 1_000_000):
        ahead_us += step_us
        for _ in range(3):
            monotonic.ns += 20 * MS_NS
            clock.learn(monotonic.ns - MS_NS, monotonic.ns, 700_000_000 + ahead_us + monotonic.ns // 1000)
    assert 4_000_000 <= clock.leapt_us <= 4_010_000
