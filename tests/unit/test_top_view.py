"""From snapshots to what a terminal shows: what is said of a lane, in which order, and how it fits."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from typing import Any, Literal

import pytest
from rich.console import Console

from cancelq.contract import Lane
from cancelq_worker.cli.top import every_s
from cancelq_worker.cli.top_rows import Level, View, compose
from cancelq_worker.cli.top_screen import draw
from cancelq_worker.exits import CommandFailed, Exit
from cancelq_worker.flow import Flow
from cancelq_worker.guard_status import GuardStatus
from cancelq_worker.snapshot import AddressStatus, LaneStatus, Refusals, ServerStatus
from tests.unit.outcomes import NOW_MS, event, newest_first, spans

SERVER = ServerStatus(NOW_MS * 1000, "Valkey", "9.1.2", 13_000_000, 4 << 30, 0.31, ["w1", "w2", "w3"])
MAIN = Lane("bitget", "main")


def state(lane: Lane = MAIN, **fields: Any) -> LaneStatus:
    plain = LaneStatus(lane, 0, 0, 0, 0, None, 0, 10, 10, workers=["w1", "w2"], untouched_ms=100)
    return replace(plain, **fields)


def view(*states: LaneStatus, never: tuple[Lane, ...] = (), addresses: tuple[AddressStatus, ...] = ()) -> View:
    flows = {s.lane: Flow.beginning(NOW_MS) for s in states}
    return compose(SERVER, [*(s.lane for s in states), *never], {s.lane: s for s in states}, flows, addresses)


def shown(what: View, width: int, height: int | None = None, *, colour: bool = False) -> list[str]:
    """The lines of a terminal that shows it."""
    out = StringIO()
    system: Literal["standard"] | None = "standard" if colour else None
    console = Console(
        file=out, width=width, force_terminal=colour, color_system=system, highlight=False, no_color=False
    )
    console.print(draw(what, width, height))
    return out.getvalue().splitlines()


class TestWhatIsSaid:
    def test_a_lane_is_idle_or_busy(self) -> None:
        (idle,) = view(state()).rows
        assert (idle.word, idle.level, idle.oldest_ms, idle.busiest) == ("idle", Level.calm, None, None)
        at_work = (state(queued=1), state(in_flight=1), state(confirming=1), state(not_admitted=1))
        assert {view(lane).rows[0].word for lane in at_work} == {"busy"}

    def test_what_no_worker_has_read_waits_too(self) -> None:
        (row,) = view(
            state(queued=3, not_admitted=500, not_admitted_more=True, oldest_age_ms=20, inbox_age_ms=900)
        ).rows
        assert (row.queued, row.queued_more, row.oldest_ms) == (503, True, 900)

    def test_the_busiest_bucket_is_the_fullest(self) -> None:
        (row,) = view(state(budget={"a": (9, 10), "b": (50, 100), "c": (3, None), "d": (0, 5)})).rows
        assert row.busiest == ("a", 9, 10)

    @pytest.mark.parametrize(
        ("fields", "level", "word", "said"),
        [
            ({"workers": []}, Level.trouble, "no worker", "no worker that has this account is alive"),
            (
                {"not_admitted": 1, "inbox_age_ms": 20_000, "untouched_ms": None},
                Level.trouble,
                "no worker",
                "no live worker has this account",
            ),
            (
                {"holds": [("*", "paused", "until resumed: paused by anna")]},
                Level.notice,
                "paused",
                "paused by anna; normal cancels wait for: cancelq resume bitget:main",
            ),
            (
                {"holds": [("*", "auth", "until resumed: 40006 bad key")]},
                Level.trouble,
                "bad key",
                "closed: 40006 bad key",
            ),
            (
                {"holds": [("*", "unreachable", "2.1 s more: the venue could not be reached")]},
                Level.trouble,
                "held",
                "closed (unreachable): 2.1 s more: the venue could not be reached",
            ),
            (
                {"holds": [("cancel", "rate", "0.4 s more: refused")]},
                Level.trouble,
                "held",
                "cancel closed (rate): 0.4 s more: refused",
            ),
            (
                {"refusals": {"cancel": Refusals(3, 40_000)}},
                Level.notice,
                "refused",
                "cancel refused 3 times lately (40 s ago): does somebody else use this key?",
            ),
        ],
    )
    def test_what_is_wrong_is_named(self, fields: dict[str, Any], level: Level, word: str, said: str) -> None:
        (row,) = view(state(**fields)).rows
        assert (row.level, row.word) == (level, word)
        assert said in row.notes[0].text

    def test_a_refusal_is_noted_for_an_hour(self) -> None:
        (row,) = view(state(refusals={"cancel": Refusals(1, 3_000_000)})).rows
        assert row.word == "idle"
        assert "refused once lately (50 min ago)" in row.notes[0].text
        assert view(state(refusals={"cancel": Refusals(1, 3_600_001)})).rows[0].notes == ()

    def test_a_lane_that_rests_is_not_unattended(self) -> None:
        assert view(state(untouched_ms=10**8)).rows[0].level is Level.calm
        # An entry that came a moment ago finds its worker yet.
        assert view(state(untouched_ms=10**8, not_admitted=1, inbox_age_ms=300)).rows[0].level is Level.calm

    def test_an_unresolved_outcome_is_trouble(self) -> None:
        flow = Flow.beginning(NOW_MS)
        flow.add([event(NOW_MS, "unresolved", id="close-7")], NOW_MS, whole=True)
        (row,) = compose(SERVER, [MAIN], {MAIN: state()}, {MAIN: flow}).rows
        assert (row.level, row.word) == (Level.trouble, "unresolved")
        assert row.notes[0].text.endswith("cancelq trace close-7")

    def test_a_guard_is_noted_and_a_missed_one_is_trouble(self) -> None:
        flows = {MAIN: Flow.beginning(NOW_MS)}
        armed, missed = GuardStatus(4_200, missed=False, fired=None), GuardStatus(None, missed=True, fired=None)
        (kept,) = compose(SERVER, [MAIN], {MAIN: state()}, flows, guards={MAIN: armed}).rows
        (late,) = compose(SERVER, [MAIN], {MAIN: state()}, flows, guards={MAIN: missed}).rows
        assert (kept.word, kept.level, kept.notes[0].text) == ("idle", Level.calm, "guard armed, 4.2 s left")
        assert (late.word, late.level) == ("guard", Level.trouble)

    def test_trouble_comes_first_then_what_waits_longest(self) -> None:
        lanes = [Lane("bybit", name) for name in "abcde"]
        composed = view(
            state(lanes[0]),
            state(lanes[1], queued=1, oldest_age_ms=50),
            state(lanes[2], queued=1, oldest_age_ms=5000),
            state(lanes[3], holds=[("*", "paused", "until resumed")], queued=1, oldest_age_ms=9),
            never=(lanes[4],),
        )
        assert [row.lane.account for row in composed.rows] == ["e", "d", "c", "b", "a"]
        assert (composed.totals.lanes, composed.totals.troubled, composed.totals.queued) == (5, 1, 3)


def busy_desk() -> View:
    lanes = [Lane("bitget", "main"), Lane("bybit", "mm"), Lane("bingx", "main"), Lane("bitget", "hedge")]
    flows = {lane: Flow.beginning(NOW_MS) for lane in lanes}
    told = [spans(NOW_MS - 9000 + n, n % 90, 400 + n) for n in range(2000)]
    flows[lanes[0]].add(newest_first(*told, event(NOW_MS - 5, "filled")), NOW_MS, whole=True)
    flows[lanes[1]].add([event(NOW_MS - 50, "unresolved", id="close-7")], NOW_MS, whole=True)
    held = [("*", "auth", "until resumed: 100413 Incorrect apiKey; mend it, then: cancelq resume bingx:main")]
    paused = [("*", "paused", "until resumed: paused by anna@desk-1")]
    states = [
        state(
            lanes[0], queued=12_345, in_flight=150, confirming=80, oldest_age_ms=2_310, not_admitted=10_000,
            not_admitted_more=True, budget={"batch-cancel-order": (9, 10), "history-orders": (3, 20)},
        ),
        state(lanes[1], budget={"cancel-batch": (38, 40)}, refusals={"cancel-batch": Refusals(12, 59_000)}),
        state(lanes[2], queued=70, oldest_age_ms=3_725_000, holds=held),
        state(lanes[3], queued=7, oldest_age_ms=61_000, holds=paused),
    ]  # fmt: skip
    addresses = [
        AddressStatus("tokyo-1", "bitget-ip", 496, 6000),
        AddressStatus("tokyo-1", "bybit-ip", 142, 600, 3200, "403 access too frequent"),
        AddressStatus("tokyo-1", "bingx-group-2", 0, 2000),
        AddressStatus("tokyo-1", "bingx-query", 4, None),
    ]
    return compose(SERVER, lanes, {s.lane: s for s in states}, flows, addresses)


class TestHowItLooks:
    def test_80_columns(self) -> None:
        lines = shown(busy_desk(), 80)
        assert max(map(len, lines)) <= 80
        assert lines[:8] == [
            "cancelq  01:53:20 UTC  Valkey 9.1.2  12.4M of 4.0G  0.3 ms  3 workers",
            "4 lanes, 2 in trouble  queued ≥22k  flight 150  confirm 80  200/s  p99 2.38 s",
            "",
            "lane         state      queued oldest flight confirm done/s    p99 budget",
            "bingx:main   bad key        70 62 min      -       -      -      - -",
            "└ closed: 100413 Incorrect apiKey; mend it, then: cancelq resume bingx:main",
            "bybit:mm     unresolved      0      -      -       -    0.1      - ████  95%",
            "└ 1 unresolved, a person must look: cancelq trace close-7",
        ]
        assert lines[8].startswith("└ cancel-batch refused 12 times lately (59 s ago): does somebody else use this")
        assert lines[-3:] == [
            "tokyo-1 bybit-ip    ██░░░░░░ 142/600  closed 3.2 s more: 403 access too frequent",
            "tokyo-1 bitget-ip   █░░░░░░░ 496/6000",
            "tokyo-1 bingx-query 4 in use",
        ]

    def test_160_columns_show_everything(self) -> None:
        lines = shown(busy_desk(), 160)
        assert max(map(len, lines)) <= 160
        (main,) = [line for line in lines if line.startswith("bitget:main")]
        assert main.split() == [
            *("bitget:main", "busy", "≥22k", "2.31", "s", "150", "80", "-", "200", "0.1", "-", "-"),
            *("44", "ms", "89", "ms", "1.40", "s", "2.38", "s", "batch-cancel-order", "█████", "9/10", "2"),
        ]
        assert any("outcomes per second" in line and "queued→settled" in line for line in lines)
        # Titles stand above their values.
        (titles,) = [line for line in lines if line.startswith("lane ")]
        assert titles.index("workers") + len("workers") == len(main)

    @pytest.mark.parametrize("width", [20, 40, 79, 100, 120, 159, 161, 250])
    def test_no_line_is_wider_than_there_is_room(self, width: int) -> None:
        lines = shown(busy_desk(), width)
        assert max(map(len, lines)) <= width
        assert any(line.startswith("bingx:main") for line in lines)

    @pytest.mark.parametrize("height", range(5, 30))
    def test_as_many_lanes_as_fit_and_the_rest_is_counted(self, height: int) -> None:
        many = view(*(state(Lane("bybit", f"a{n}"), workers=[]) for n in range(40)))
        lines = shown(many, 80, height)
        assert len(lines) <= height
        (rest,) = [line for line in lines if line.startswith("…")]
        seen = sum(line.startswith("bybit:") for line in lines)
        assert seen > 0 or height < 6
        assert rest == f"… and {40 - seen} more lanes"

    def test_all_lanes_that_fit_are_there(self) -> None:
        lines = shown(view(*(state(Lane("bybit", f"a{n}")) for n in range(19))), 80, 23)
        assert sum(line.startswith("bybit:") for line in lines) == 19
        assert not any(line.startswith("…") for line in lines)

    def test_a_server_that_is_away_is_said_above_what_was_known(self) -> None:
        lines = shown(replace(busy_desk(), away=("Redis cannot be reached: refused", 3.2)), 80)
        assert lines[2] == "away for 3 s, below is how it was before: Redis cannot be reached: refused"
        assert any(line.startswith("bingx:main") for line in lines)

    def test_trouble_may_take_two_lines_as_the_remedy_stands_last(self) -> None:
        said = "40006 Invalid ACCESS_KEY, told by the venue; mend it, then: cancelq resume bitget:main"
        composed = view(state(holds=[("*", "auth", f"until resumed: {said}")]), never=(Lane("bybit", "x"),))
        lines = shown(composed, 80)
        start = lines.index("└ closed: 40006 Invalid ACCESS_KEY, told by the venue; mend it, then: cancelq")
        assert lines[start + 1] == "  resume bitget:main"
        assert len(shown(composed, 80, 8)) == 8

    def test_a_worker_that_cannot_serve_the_lane_is_not_counted(self) -> None:
        lines = shown(view(state(untouched_ms=None, not_admitted=1, inbox_age_ms=20_000)), 160)
        (line,) = [line for line in lines if line.startswith("bitget:main")]
        assert line.endswith(" 0")

    def test_a_suspension_by_rq_is_said(self) -> None:
        assert "suspended by `rq suspend`" in shown(replace(busy_desk(), suspended=True), 80)[2]

    def test_a_dry_run_is_said(self) -> None:
        rehearsed = compose(SERVER, [], {}, {}, rehearsing=["d1"])
        assert "DRY RUN by d1: nothing it tells in …:dryrun is real" in shown(rehearsed, 80)

    def test_text_from_elsewhere_cannot_move_the_cursor(self) -> None:
        lines = shown(view(state(holds=[("*", "rate", "1.0 s more: \x1b[2Jgone\nbybit:forged")])), 120)
        assert not any("\x1b" in line or line.startswith("bybit:forged") for line in lines)

    def test_trouble_is_red_where_there_are_colours(self) -> None:
        lines = shown(view(state(workers=[])), 80, colour=True)
        assert any("\x1b[1;31m" in line and "no worker" in line for line in lines)

    def test_nothing_served_yet(self) -> None:
        assert "0 lanes, none served here yet" in shown(view(), 80)[1]


@pytest.mark.parametrize(("text", "seconds"), [("1s", 1), ("2", 2), ("500ms", 0.5), ("1m", 60), ("0.25s", 0.25)])
def test_spans_between_two_looks(text: str, seconds: float) -> None:
    assert every_s(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "10ms", "2h", "-1s", "1e3", "61m", "nan"])
def test_a_span_that_makes_no_sense_is_misuse(text: str) -> None:
    with pytest.raises(CommandFailed) as failed:
        every_s(text)
    assert failed.value.code is Exit.USAGE
