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


def test_a_round_that_stood_in_line_makes_the_next_one_ask_for_less() -> None:
    breath = Breath()
    assert breath.takes == 4
    asked = []
    for took_ms in (2, 40, 80, 110, 300, 2_000, 3):
        breath.round_took(took_ms * 1_000_000)
        asked.append(breath.takes)
    assert asked == [4, 4, 2, 1, 1, 1, 4]


def test_a_long_way_to_the_server_is_no_line() -> None:
    breath = Breath()
    for took_ms in (210, 200, 240):
        breath.round_took(took_ms * 1_000_000)
    assert breath.takes == 4
