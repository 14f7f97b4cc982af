"""How events are shown."""

import json

import pytest

from cancelq import Event, Status
from cancelq_worker.cli import showing

EVENT = Event(
    entry_id="1763690000123-0",
    id="a-1",
    status=Status.cancelled,
    final=True,
    venue="bitget",
    account="main",
    scope="order",
    symbol="BTCUSDT",
    order_id="121211212122",
    filled="0.5",
    queued_us=1763690000000000,
    settled_us=1763690000123000,
    extras={"x_desk": "7"},
)


def test_json_is_flat_and_leaves_out_what_is_not_known() -> None:
    shown = json.loads(showing.as_json(EVENT))
    assert shown["x_desk"] == "7"
    assert shown["final"] is True
    assert shown["order_id"] == "121211212122"
    assert "detail" not in shown
    assert "extras" not in shown


def test_a_line_holds_what_a_person_looks_for() -> None:
    line = showing.as_line(EVENT, colour=False)
    for part in (
        "2025-11-21 01:53:20.123",
        "bitget:main",
        "cancelled",
        "121211212122",
        "123 ms",
        "a-1",
        "filled 0.5",
    ):
        assert part in line
    assert "(accepted)" in showing.as_line(
        EVENT.model_copy(update={"status": Status.accepted, "final": False}), colour=False
    )


def test_columns_stand_below_their_names() -> None:
    assert showing.header().index("status") == showing.as_line(EVENT, colour=False).index("cancelled")


def test_nothing_in_an_event_moves_the_terminal() -> None:
    line = showing.as_line(EVENT.model_copy(update={"detail": "\x1b[2J\r\nforged \u202e"}), colour=False)
    assert line.isprintable()


@pytest.mark.parametrize(
    ("status", "scope", "asked"),
    [
        (Status.cancelled, "order", True),
        (Status.cancelled, "account", True),
        (Status.revoked, "revoke", True),
        (Status.revoked, "order", False),
        (Status.filled, "order", False),
        (Status.unresolved, "order", False),
    ],
)
def test_as_asked(status: Status, scope: str, asked: bool) -> None:
    assert showing.as_asked(EVENT.model_copy(update={"status": status, "scope": scope})) is asked


@pytest.mark.parametrize(
    ("ms", "shown"),
    [
        (0, "0 ms"),
        (999, "999 ms"),
        (1500, "1.5 s"),
        (119_999, "120.0 s"),
        (600_000, "10 min"),
        (7_200_000, "2.0 h"),
    ],
)
def test_durations(ms: float, shown: str) -> None:
    assert showing.duration(ms) == shown


def test_numbers_that_are_no_times_of_ours_are_shown_as_they_are() -> None:
    absurd = EVENT.model_copy(update={"settled_us": 10**30})
    assert json.loads(showing.as_json(absurd))["settled_us"] == 10**30
    assert showing.as_line(absurd, colour=False).startswith(f"{10**30} µs  ")


@pytest.mark.parametrize("indent", [False, True])
def test_json_holds_nothing_that_could_move_a_cursor_and_reads_back_as_it_was(indent: bool) -> None:
    told = {"detail": "a\n\x1b[2J\x9b31m\u202eb\u2028é", "many": [1, 2**70, {"x": "\x07"}]}
    text = showing.dumps(told, indent=indent)
    assert json.loads(text) == told
    assert all(line.isprintable() for line in text.split("\n"))
    assert ("\n" in text) is indent
    assert "é" in text


def test_a_line_tells_what_is_still_open_and_who_acted() -> None:
    swept = EVENT.model_copy(update={"scope": "account", "open_orders": 3})
    assert "3 still open" in showing.as_line(swept, colour=False)
    acted = EVENT.model_copy(update={"status": Status.operator, "final": False, "act": "pause", "actor": "ann@desk"})
    assert "pause by ann@desk" in showing.as_line(acted, colour=False)
