"""What is known of a remote clock, and by how much it may be off."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from cancelq_worker.clocks import RemoteClock

MS_NS = 1_000_000
# What whole microseconds may add on either side.
ROUNDING_US = 2


@dataclass
class Monotonic:
    """This process' monotonic clock, moved by the test."""

    ns: int = 5_000_000_000

    def __call__(self) -> int:
        return self.ns


SAMPLE = st.tuples(st.integers(0, 2_000 * MS_NS), st.integers(0, 500 * MS_NS), st.floats(0, 1))


@given(st.integers(-(10**15), 10**15), st.sampled_from([1, 1_000]), st.lists(SAMPLE, min_size=1, max_size=12))
def test_it_is_never_further_off_than_it_says(
    offset_us: int, resolution_us: int, samples: list[tuple[int, int, float]]
) -> None:
    """However the way there and the way back differ, and however coarse the remote clock tells its time."""
    clock = RemoteClock(resolution_us, Monotonic())
    now_ns = 1_000_000_000
    for pause_ns, rtt_ns, share in samples:
        before_ns = now_ns + pause_ns
        told_us = (before_ns + int(rtt_ns * share)) // 1000 + offset_us
        now_ns = before_ns + rtt_ns
        clock.learn(before_ns, now_ns, told_us // resolution_us * resolution_us)
        error_us = clock.at_us(now_ns) - (now_ns // 1000 + offset_us)
        assert abs(error_us) <= clock.uncertainty_us + ROUNDING_US


@given(st.integers(0, 2 * 10**15), st.integers(0, 10**12))
def test_moments_are_mapped_there_and_back(remote_us: int, before_ns: int) -> None:
    clock = RemoteClock(1, Monotonic())
    clock.learn(before_ns, before_ns + 20 * MS_NS, remote_us)
    for moment_us in (remote_us, remote_us + 1, remote_us + 3_600_000_000):
        assert clock.at_us(clock.when_ns(moment_us)) == moment_us


def test_the_shortest_round_trip_is_believed() -> None:
    clock = RemoteClock(1, Monotonic())
    clock.learn(0, 100 * MS_NS, 1_000_000)
    assert clock.uncertainty_us == 50_000
    clock.learn(200 * MS_NS, 210 * MS_NS, 1_205_000)
    assert clock.uncertainty_us == 5_000
    assert clock.at_us(205 * MS_NS) == 1_205_000
    clock.learn(300 * MS_NS, 500 * MS_NS, 9_000_000)
    assert clock.at_us(205 * MS_NS) == 1_205_000, "a slow answer changes nothing"


def test_an_old_sample_gives_way_to_the_best_of_the_last_minute() -> None:
    """Clocks drift: the best sample of yesterday is not the best of today."""
    clock = RemoteClock(1, Monotonic())
    clock.learn(0, 1 * MS_NS, 1_000_000)
    minute_ns = RemoteClock.KEEP_NS
    clock.learn(minute_ns, minute_ns + 40 * MS_NS, 61_000_000)
    assert clock.uncertainty_us == 500
    later_ns = minute_ns + 10 * MS_NS
    clock.learn(later_ns, later_ns + 30 * MS_NS, 62_000_000)
    assert clock.uncertainty_us == 15_000
    assert clock.at_us(later_ns + 15 * MS_NS) == 62_000_000


def test_a_coarse_clock_is_off_by_half_its_step() -> None:
    clock = RemoteClock(1_000, Monotonic())
    clock.learn(0, 0, 7_000)
    assert (clock.at_us(0), clock.uncertainty_us) == (7_500, 500)


def test_before_anything_was_learnt_a_whole_second_is_in_doubt() -> None:
    clock = RemoteClock(1_000, Monotonic())
    assert not clock.known
    assert clock.uncertainty_us == 1_000_000
    assert clock.now_us() > 1_600_000_000_000_000, "the wall clock of this machine stands in"


def test_a_clock_found_wrong_is_learnt_anew() -> None:
    clock = RemoteClock(1, Monotonic())
    clock.learn(0, 0, 1_000_000)
    assert clock.known
    clock.forget()
    assert (clock.known, clock.uncertainty_us) == (False, 1_000_000)
    clock.learn(0, 100 * MS_NS, 2_000_000)
    assert clock.at_us(50 * MS_NS) == 2_000_000


def test_it_runs_with_the_monotonic_clock_alone() -> None:
    monotonic = Monotonic()
    clock = RemoteClock(1, monotonic)
    clock.learn(monotonic.ns, monotonic.ns, 77_000_000)
    monotonic.ns += 3_000_000_000
    assert clock.now_us() == 80_000_000
