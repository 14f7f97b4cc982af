"""How long a lane takes nothing after calls that came too late to be sent."""

from __future__ import annotations

from cancelq_worker.breath import FIRST_NS, MOST_NS, Breath

FIRST_US, MOST_US = FIRST_NS // 1000, MOST_NS // 1000


def test_each_late_call_in_a_row_doubles_the_wait_up_to_a_second() -> None:
    now_ns = 5
    breath = Breath(lambda: now_ns)
    assert breath.left_us == 0
    for nth in range(12):
        breath.late()
        assert breath.left_us == min(MOST_US, FIRST_US * 2**nth)
    now_ns += MOST_NS - 1_000
    assert breath.left_us == 1
    now_ns += 1_000
    assert breath.left_us == 0


def test_a_call_in_time_ends_the_row() -> None:
    breath = Breath(lambda: 5)
    for _ in range(10):
        breath.late()
    breath.sent()
    breath.late()
    assert breath.left_us == FIRST_US
