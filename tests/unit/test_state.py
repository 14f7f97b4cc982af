"""The state line: Python and Lua read and write the same words."""

import importlib.resources
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from cancelq.contract import Lane
from cancelq_worker.state import LOCAL, NONE, TRUSTED_TIMES, State, Work
from cancelq_worker.venues.port import Stage

# Lua's numbers are doubles: counters and times stay far below 2^53.
COUNT = st.integers(0, 2**53 - 1)
SMALL = st.integers(0, 500)
WORD = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40)
CLASS = st.one_of(st.sampled_from([NONE, "by-id", "sweep-order", "walk-open:BTCUSDT:123"]), WORD)
ORDER_KEY = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters=","), min_size=2, max_size=40
)
SCALAR = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
NOTE = st.recursive(
    SCALAR,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)
NOTES = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), NOTE, max_size=4)

STATES = st.builds(
    State,
    fence=COUNT, taken=st.integers(0, 2), stage=st.sampled_from(Stage), attempts=SMALL, lookups=SMALL, strikes=SMALL,
    cap=SMALL, urgent=st.booleans(), place=COUNT, expires_ms=COUNT, cancel_class=CLASS, look_class=CLASS,
    digest=st.one_of(st.just(NONE), st.from_regex(r"[0-9a-f]{8}", fullmatch=True)),
    orders=st.lists(ORDER_KEY, max_size=3).map(tuple), route=CLASS, batch_id=CLASS, size=SMALL, taken_us=COUNT,
    notes=NOTES,
)  # fmt: skip


@settings(max_examples=200)
@given(STATES)
def test_a_line_is_read_as_it_was_written(state: State) -> None:
    assert State.parse(state.pack().encode()) == state


@given(STATES)
def test_a_line_has_nineteen_words_and_no_break(state: State) -> None:
    line = state.pack()
    assert len(line.split(" ", 18)) == 19
    assert "\n" not in line
    assert "\x00" not in line
    assert line.split(" ", 18)[:18] == line.split(" ")[:18], "only the last word may hold blanks"


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"1",
        b"1 0 c 0 0 0 0 n 0 0 by-id any - - - - 0 0",
        b"x" * 40,
        b"\xff",
        b"1 0 ? 0 0 0 0 n 0 0 a b c - - - 0 0 {}",
    ],
)
def test_what_is_no_line_is_an_error_that_says_so(line: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the type is the promise
        State.parse(line)


# -- the same line in Lua ------------------------------------------------------------------------------------

PRELUDE = (importlib.resources.files("cancelq_worker") / "lua" / "prelude.lua").read_text()

# What Lua makes of each line given: the words it reads, the line it writes, the queue it would put it into.
READ_ALL = """
local out = {}
for i = 1, #ARGV do
  local s = parse(ARGV[i])
  out[i] = {text(s.fence), s.taken, s.stage, text(s.attempts), s.lookups, text(s.strikes), s.cap, s.priority, s.place,
    s.expires_ms, s.cancel_class, s.look_class, s.digest, s.orders, s.route, s.batch, s.size, s.taken_us, s.notes,
    pack(s), lane_of(s.stage, s.priority) .. ':' .. class_of(s)}
end
return out
"""

# What take does to a line: one fence more, in a call; and what a lost lease does to it.
TAKE_ALL = """
local out = {}
for i = 1, #ARGV do
  local s = parse(ARGV[i])
  s.fence, s.taken, s.attempts, s.strikes = s.fence + 1, '1', s.attempts + 1, s.strikes + 1
  out[i] = pack(s)
end
return out
"""


def in_lua(redis_url: str, script: str, lines: list[bytes]) -> Any:
    with Redis.from_url(redis_url) as client:
        return client.eval(f"{PRELUDE}\n{script}", 1, Lane.parse("bitget:main").key("clock"), *lines)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(states=st.lists(STATES, min_size=1, max_size=8))
def test_lua_reads_and_writes_the_line_that_python_does(redis_url: str, states: list[State]) -> None:
    lines = [state.pack().encode() for state in states]
    for state, line, words in zip(states, lines, in_lua(redis_url, READ_ALL, lines), strict=True):
        assert b" ".join(words[:19]) == line
        assert words[19] == line
        assert State.parse(words[19]) == state
        if state.cancel_class != LOCAL:
            assert words[20].decode() == state.queue
        assert orjson.loads(words[18]) == state.notes


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(states=st.lists(STATES.filter(lambda s: s.fence < 2**53 - 2), min_size=1, max_size=8))
def test_lua_counts_without_losing_a_digit(redis_url: str, states: list[State]) -> None:
    """At 2^53 a double skips numbers, and the default form of large ones is 1e+15."""
    lines = [state.pack().encode() for state in states]
    for state, line in zip(states, in_lua(redis_url, TAKE_ALL, lines), strict=True):
        after = State.parse(line)
        assert (after.fence, after.taken) == (state.fence + 1, 1)
        assert (after.attempts, after.strikes) == (state.attempts + 1, state.strikes + 1)
        assert after.place == state.place
        assert after.notes == state.notes


@pytest.mark.parametrize(("stage", "strikes"), [(Stage.CANCEL, 0), (Stage.LOOK, 2)])
def test_a_look_that_passed_says_nothing_of_the_cancel_that_ended_workers(stage: Stage, strikes: int) -> None:
    """Else an intent whose cancel ends its worker, but whose look does not, would end one for every attempt."""
    work = Work("i", {"id": "i"}, State(fence=3, stage=stage, strikes=2, cap=1), 4)
    after = work.taken(stage=stage, batch_id="b", route="r", size=1, taken_us=1)
    assert (after.strikes, after.cap) == (strikes, 1 if strikes else 0)


def test_a_suspect_is_trusted_with_company_after_a_look_a_few_times_only() -> None:
    """What ends a worker at some looks only must not end one after each look that passes."""
    state = State(stage=Stage.LOOK, strikes=2, cap=1)
    assert state.suspect(Stage.LOOK)
    for _ in range(TRUSTED_TIMES):
        state.passed(Stage.LOOK)
        assert not state.suspect(Stage.LOOK)
        assert state.suspect(Stage.CANCEL)
        state.cap = 1  # an end in company
    state.passed(Stage.LOOK)
    assert state.suspect(Stage.LOOK)
    assert state.strikes == 2
    state.passed(Stage.CANCEL)
    assert (state.strikes, state.cap, state.notes) == (0, 0, {})


def test_the_script_that_is_tested_is_the_head_of_every_script() -> None:
    folder = importlib.resources.files("cancelq_worker") / "lua"
    for name in ("admit", "take", "settle", "claim"):
        assert "\n--include prelude\n" in (folder / f"{name}.lua").read_text(), name


# -- an intent in a worker's hands ---------------------------------------------------------------------------


@given(STATES, st.sampled_from(Stage))
def test_what_was_taken_counts_one_more_and_leaves_what_was_before_alone(state: State, stage: Stage) -> None:
    line = state.pack()
    work = Work.read(b"i1", line.encode(), b'{"scope":"order"}')
    taken = work.taken(stage=stage, batch_id="b1", route="r1", size=7, taken_us=99)
    assert (taken.fence, taken.taken) == (state.fence + 1, 0)
    assert (taken.attempts, taken.lookups) == (
        state.attempts + (stage is Stage.CANCEL),
        state.lookups + (stage is Stage.LOOK),
    )
    if stage is Stage.CANCEL:
        assert (taken.batch_id, taken.route, taken.size, taken.taken_us) == ("b1", "r1", 7, 99)
    else:
        assert (taken.batch_id, taken.route) == (state.batch_id, state.route), "those of the last cancel"
    taken.notes["n"] = 5
    assert work.before.pack() == line


def test_the_queue_of_a_state_is_its_stage_priority_and_class() -> None:
    state = State(stage=Stage.CANCEL, cancel_class="by-id", look_class="any")
    assert state.queue == "c:n:by-id"
    state.stage, state.urgent = Stage.LOOK, True
    assert state.queue == "l:u:any"
