"""Lanes: their names, their keys, and what is no lane."""

import pytest

from cancelq.contract import FINAL, VENUES, Lane, Status
from cancelq.errors import CancelqError, LaneError


@pytest.mark.parametrize("venue", VENUES)
def test_a_lane_is_written_venue_colon_account(venue: str) -> None:
    lane = Lane.parse(f"{venue}:desk_1")
    assert (lane.venue, lane.account) == (venue, "desk_1")
    assert str(lane) == f"{venue}:desk_1"
    assert Lane.parse(str(lane)) == lane == Lane(venue, "desk_1")
    assert len({lane, Lane(venue, "desk_1")}) == 1


def test_every_key_of_a_lane_carries_the_same_hash_tag() -> None:
    lane = Lane.parse("bitget:main")
    assert lane.inbox == lane.key("inbox") == "cancelq:{bitget:main}:inbox"
    assert lane.results == "cancelq:{bitget:main}:results"
    assert lane.guard == "cancelq:{bitget:main}:guard"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("bitgt:main", 'did you mean "bitget"?'),
        ("BITGET:main", 'did you mean "bitget"?'),
        ("kraken:main", "wants bitget, bybit or bingx"),
        ("bitget", "write venue:account"),
        ("bitget:", "no account alias"),
        ("bitget:Main", "no account alias"),
        ("bitget:1st", "no account alias"),
        ("bitget:a__b", "no account alias"),
        ("bitget:main:x", "no account alias"),
        ("bitget:main\n", "no account alias"),
        (" bitget:main", "unknown venue"),
        ("bitget:" + "a" * 33, "no account alias"),
        ("\ud800:main", "unknown venue"),
    ],
)
def test_what_is_no_lane_is_refused_with_a_remedy(text: str, says: str) -> None:
    with pytest.raises(LaneError) as refused:
        Lane.parse(text)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
    assert isinstance(refused.value, CancelqError)


def test_the_final_statuses_are_those_of_the_contract() -> None:
    assert {status.value for status in Status if status not in FINAL} == {
        "accepted",
        "retrying",
        "duplicate",
        "resolved",
        "operator",
    }
