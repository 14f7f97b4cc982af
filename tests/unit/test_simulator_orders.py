"""The simulator's own bookkeeping: sorted numbers behave like a sorted set, times run on the clock given."""

from hypothesis import given
from hypothesis import strategies as st

from cancelq_worker.simulator import ManualClock, SystemClock
from cancelq_worker.simulator.orders import Ids, SortedNumbers

NUMBER = st.integers(0, 60)


class ShortRuns(SortedNumbers):
    """Splits so soon that a few numbers make many runs."""

    __slots__ = ()
    RUN = 2


@given(
    steps=st.lists(st.tuples(st.booleans(), NUMBER), max_size=120),
    below=st.none() | NUMBER,
)
def test_sorted_numbers_are_a_sorted_set(steps: list[tuple[bool, int]], below: int | None) -> None:
    numbers, model = ShortRuns(), set[int]()
    for adds, number in steps:
        if not adds:
            numbers.discard(number)
            model.discard(number)
        elif number not in model:
            numbers.add(number)
            model.add(number)
    expected = sorted((one for one in model if below is None or one < below), reverse=True)
    assert list(numbers.descending(below)) == expected


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 3)), min_size=1, max_size=50))
def test_ids_are_never_handed_out_twice_and_new_ones_are_the_largest(steps: list[tuple[int, int]]) -> None:
    ids, seen, now_ms = Ids(), set[int](), 1_700_000_000_000
    for age_ms, step_ms in steps:
        now_ms += step_ms
        number = ids.next(now_ms - age_ms, now_ms)
        assert number not in seen
        assert age_ms or number > max(seen, default=0)
        seen.add(number)
    assert {len(str(number)) for number in seen} == {19}


def test_a_manual_clock_moves_both_its_hands() -> None:
    clock = ManualClock(5)
    clock.advance(ms=2, us=3)
    assert (clock.wall_us(), clock.steady_us()) == (7_003, 2_003)


def test_the_system_clock_goes_forward() -> None:
    clock = SystemClock()
    assert clock.steady_us() <= clock.steady_us()
    assert clock.wall_us() > 1_700_000_000_000_000
