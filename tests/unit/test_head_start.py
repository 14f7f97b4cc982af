"""When the second watcher of a lane admits."""

from __future__ import annotations

import pytest

from cancelq_worker.head_start import HEAD_START_US, LONGEST_NS, PAGES, HeadStart

MS = 1_000_000


@pytest.fixture
def second() -> HeadStart:
    head_start = HeadStart()
    head_start.us = HEAD_START_US
    return head_start


def test_the_first_watcher_admits_at_once() -> None:
    assert not HeadStart().second
    assert HeadStart().may_admit(0)


def test_the_second_one_admits_nothing_before_it_knows_where_the_admission_stands(second: HeadStart) -> None:
    assert not second.may_admit(10_000 * MS)


def test_it_admits_behind_a_cursor_that_stood_for_a_head_start(second: HeadStart) -> None:
    second.saw("1-0", 0)
    second.saw("1-0", 30 * MS)
    assert not second.may_admit(49 * MS)
    assert second.may_admit(50 * MS)


def test_a_cursor_that_somebody_moves_is_left_to_him(second: HeadStart) -> None:
    second.saw("1-0", 0)
    second.saw("2-0", 40 * MS)
    assert not second.may_admit(60 * MS)


def test_what_it_moves_itself_tells_nothing_of_another(second: HeadStart) -> None:
    second.saw("1-0", 0)
    second.moved("2-0")
    second.saw("2-0", 60 * MS)
    assert second.may_admit(60 * MS)


def test_where_a_page_takes_the_other_long_it_is_given_as_long_as_several_take(second: HeadStart) -> None:
    second.saw("1-0", 0)
    second.saw("2-0", 200 * MS)
    assert not second.may_admit((200 + PAGES * 200 - 1) * MS)
    assert second.may_admit((200 + PAGES * 200) * MS)


def test_but_no_longer_than_a_worker_that_is_gone_stands_on_the_roster(second: HeadStart) -> None:
    second.saw("1-0", 0)
    second.saw("2-0", 60_000 * MS)
    assert not second.may_admit(60_000 * MS + LONGEST_NS - 1)
    assert second.may_admit(60_000 * MS + LONGEST_NS)
