"""How a trace looks, for people on terminals of any width and for programs."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from cancelq import Event, Lane, Status
from cancelq_worker.cli import story
from cancelq_worker.cli.tracing import ProgressLine
from cancelq_worker.steps import Asked, Call, Kind, Step, Unreadable, Waiting

MAIN = Lane("bitget", "main")
US = 1763690000000000
ASKED = Asked((("id", "a"), ("symbol", "BTCUSDT"), ("order_id", "121211212122")))
EVENT = Event(entry_id="1763690000412-0", id="a", status=Status.cancelled, final=True, evidence="query", worker="w1")


def a_step(
    kind: Kind, told: Asked | Call | Event | Waiting | Unreadable | None, after_us: int = 0, id: str = "a"
) -> Step:
    entry_id = None if isinstance(told, Call | Waiting) or told is None else "1763690000000-0"
    return Step(MAIN, id, kind, US + after_us, US, "id", told, entry_id)


def shown(steps: list[Step], width: int) -> list[str]:
    """The lines, without the blanks that fill the last column up."""
    console = Console(file=io.StringIO(), width=width)
    with console.capture() as captured:
        for part in story.timeline(steps, console):
            console.print(part, markup=False, highlight=False)
    return [line.rstrip() for line in captured.get().splitlines()]


LIFE = [
    a_step(Kind.queued, ASKED),
    a_step(Kind.taken, Call("/api/v2/spot/trade/batch-cancel-order", "909cfade-3", 50, 1), 1512),
    a_step(Kind.sent, Call("/api/v2/spot/trade/batch-cancel-order", "909cfade-3", 50, 1), 2000),
    a_step(Kind.event, EVENT, 412_000),
]


def test_one_intent_has_no_tags_and_is_summed_up_in_the_first_line() -> None:
    lines = shown(LIFE, 160)
    assert lines == [
        "bitget:main  a  order BTCUSDT 121211212122  cancelled after 412.0 ms",
        "",
        "time (UTC)                   elapsed  step       what is known",
        "2025-11-21 01:53:20.000000            queued     symbol BTCUSDT, order_id 121211212122; entry 1763690000000-0",
        "2025-11-21 01:53:20.001512    1.5 ms  taken      /api/v2/spot/trade/batch-cancel-order; "
        "batch 909cfade-3 of 50; attempt 1",
        "2025-11-21 01:53:20.002000    2.0 ms  sent",
        "2025-11-21 01:53:20.412000  412.0 ms  cancelled  evidence query; by w1",
    ]


def test_where_it_is_narrow_the_date_stands_once_above_its_steps() -> None:
    lines = shown([*LIFE, a_step(Kind.open, Waiting("gone"), 86_400_000_000)], 80)
    assert [line for line in lines if line.startswith("2025")] == ["2025-11-21", "2025-11-22"]
    assert any(line.startswith("01:53:20.001512") for line in lines)


def test_several_intents_have_a_letter_each() -> None:
    steps = [a_step(Kind.queued, ASKED, id=f"n-{number}") for number in range(28)]
    tags = [line.split()[0] for line in shown(steps, 160)[:28]]
    assert tags == [*"ABCDEFGHIJKLMNOPQRSTUVWXYZ", "AA", "AB"]


@pytest.mark.parametrize(
    ("waiting", "line"),
    [
        (
            Waiting("queued", "cancel", "normal", 0, 0, 0, "c:n:by-id", 3, 120, 1_200_000, holds=["lane paused (…)"]),
            "queued; place 3 of 120 in queue c:n:by-id; not taken for 1.2 s more; attempts 0, look-ups 0; "
            "held: lane paused (…); no live worker",
        ),
        (
            Waiting("in hand", "look", "urgent", 2, 1, 1, "l:u:info", workers=["w1", "w2"]),
            "in hand; attempts 2, look-ups 1; leases that ended 1; served by w1, w2",
        ),
        (
            Waiting("timed", "cancel", "normal", 0, 0, 0, "c:n:by-id", not_before_ms=1900000000000),
            "timed; not before 2030-03-17 17:46:40.000000; attempts 0, look-ups 0; no live worker",
        ),
        (
            Waiting("not admitted", detail="no worker has read it yet"),
            "not admitted; no worker has read it yet; no live worker",
        ),
        (Waiting("gone", detail="not open any more"), "not open any more"),
    ],
)
def test_what_is_open_says_why_it_waits(waiting: Waiting, line: str) -> None:
    (told,) = [text for text in shown([a_step(Kind.open, waiting, 5000)], 400) if text.startswith("2025")]
    assert told.partition("open  ")[2] == line


@pytest.mark.parametrize(
    ("steps", "became"),
    [
        ([a_step(Kind.queued, ASKED), a_step(Kind.open, Waiting("queued", "cancel"))], "open: queued, to be sent"),
        ([a_step(Kind.queued, ASKED), a_step(Kind.open, Waiting("queued", "look"))], "open: queued, to be confirmed"),
        ([a_step(Kind.queued, ASKED), a_step(Kind.open, Waiting("gone"))], "no outcome among the results read"),
        (
            [*LIFE, a_step(Kind.open, Waiting("not admitted"))],
            "cancelled after 412.0 ms; asked again, not admitted yet",
        ),
        ([a_step(Kind.unreadable, Unreadable("?", (("final", "1"),)))], "ended, in words this version cannot read"),
        ([a_step(Kind.unreadable, Unreadable("?", (("final", "0"),)))], "no outcome"),
    ],
)
def test_what_became_of_it(steps: list[Step], became: str) -> None:
    assert shown(steps, 160)[0].endswith(f"  {became}")


def test_an_operators_act_is_called_one() -> None:
    act = Event(entry_id="1-0", id="op-1", status=Status.operator, final=False, act="pause", actor="me@desk")
    lines = shown([a_step(Kind.event, act, id="op-1")], 160)
    assert lines[0] == "bitget:main  op-1  an operator's act"
    assert "operator  pause by me@desk" in lines[-1]


TEXT = st.text(max_size=300)


@settings(max_examples=40)  # each draws a whole table
@given(width=st.integers(80, 200), text=TEXT, name=TEXT, after_us=st.integers(-(10**31), 10**31))
def test_no_text_breaks_the_table_or_the_terminal(width: int, text: str, name: str, after_us: int) -> None:
    event = EVENT.model_copy(update={"detail": text, "worker": name, "code": text, "act": name, "actor": text})
    steps = [
        a_step(
            Kind.queued, Asked(((name, text), ("symbol", text), ("order_id", name), ("scope", text)), text), id=name
        ),
        a_step(Kind.taken, Call(text, name, 1, 1), after_us, id=name),
        a_step(Kind.event, event, after_us, id=name),
        a_step(Kind.unreadable, Unreadable(text, ((name, text),)), after_us),
        a_step(Kind.open, Waiting(text, detail=text, holds=[name], workers=[text]), after_us),
    ]
    lines = shown(steps, width)
    assert all(line.isprintable() for line in lines)
    assert max(map(cell_len, lines)) <= width
    for step in steps:
        told = json.loads(story.as_json(step))
        assert told["at_us"] == step.at_us
        assert told["step"] == step.kind


@pytest.mark.parametrize(
    ("terminal", "patience_s", "told"), [(True, 0.0, True), (True, 3600.0, False), (False, 0.0, False)]
)
def test_how_far_it_is_is_told_on_a_terminal_if_it_takes_long(terminal: bool, patience_s: float, told: bool) -> None:
    stream = io.StringIO()
    with ProgressLine(Console(file=stream, force_terminal=terminal, width=80), patience_s) as line:
        for read in (1000, 2000):
            line.tell("bitget:main results", read, 5000)
    assert ("reading bitget:main results" in stream.getvalue()) is told
    assert bool(stream.getvalue()) is told


def test_a_long_value_is_cut_for_people_and_whole_for_programs() -> None:
    step = a_step(Kind.queued, Asked((("x_a", "z" * 3000), *((f"x_{n}", "1") for n in range(40)))))
    (line,) = [line for line in shown([step], 4000) if "x_a" in line]
    assert "z" * 120 + "…" in line
    assert "z" * 121 not in line
    assert "11 more fields" in line
    assert json.loads(story.as_json(step))["intent"]["x_a"] == "z" * 3000
