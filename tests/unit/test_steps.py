"""The steps that entries and states tell, and that no entry can stop them."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import example, given
from hypothesis import strategies as st

from cancelq import Lane
from cancelq_worker.state import State
from cancelq_worker.steps import Asked, Call, Entry, Kind, Open, Step, Waiting, read_asked, read_told, steps_of

MAIN = Lane("bitget", "main")
ENTRY_ID = st.builds("{}-{}".format, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
WORDS = [b"id", b"a", b"status", b"cancelled", b"final", b"1", b"settled_us", b"queued_us", b"operator", b"\xff", b""]
FLAT = st.lists(st.one_of(st.sampled_from(WORDS), st.binary(max_size=20)), max_size=12)


def told(number: int, status: str, **fields: str) -> Entry:
    values = {"id": "a", "status": status, "final": str(int(status == "cancelled")), "queued_us": "1000", **fields}
    return read_told(f"{number}-0", [text.encode() for pair in values.items() for text in pair])


def lived(asked: list[Entry], told: list[Entry], still_open: Mapping[str, Open] | None = None) -> list[Step]:
    return steps_of(MAIN, asked, told, still_open or {}, {"a": "id"}, 9_000_000)


CALL = {"batch_id": "b1", "taken_us": "1001", "sent_us": "1002", "endpoint": "/x", "batch_size": "2", "attempt": "1"}


def test_what_several_events_of_one_call_repeat_is_told_once() -> None:
    steps = lived(
        [], [told(2, "accepted", **CALL, settled_us="1009"), told(3, "cancelled", **CALL, answered_us="1003")]
    )
    assert [(step.kind, step.at_us) for step in steps] == [
        (Kind.queued, 1000),
        (Kind.taken, 1001),
        (Kind.sent, 1002),
        # Only the second event knew of the answer.
        (Kind.answered, 1003),
        (Kind.event, 1009),
        (Kind.event, 3000),
    ]
    assert steps[1].told == Call("/x", "b1", 2, 1)


def test_each_attempt_has_steps_of_its_own() -> None:
    again = {**CALL, "batch_id": "b2", "taken_us": "2001", "sent_us": "2002", "attempt": "2"}
    steps = lived([], [told(2, "retrying", **CALL), told(3, "cancelled", **again)])
    assert [step.at_us for step in steps if step.kind is Kind.sent] == [1002, 2002]


def test_an_entry_that_is_there_tells_when_it_was_queued_once() -> None:
    asked = read_asked("1-0", [b"id", b"a", b"symbol", b"X", b"order_id", b"7"])
    queued, _ = lived([asked], [told(2, "cancelled")])
    assert (queued.kind, queued.at_us, queued.entry_id) == (Kind.queued, 1000, "1-0")
    queued, _ = lived([], [told(2, "cancelled")])
    assert (queued.kind, queued.at_us, queued.entry_id, queued.told) == (Kind.queued, 1000, None, None)


def test_steps_of_one_moment_come_in_the_order_they_happen() -> None:
    call = {"batch_id": "b1", "taken_us": "1000", "sent_us": "1000", "answered_us": "1000", "settled_us": "1000"}
    steps = lived([read_asked("1-0", [b"id", b"a"])], [told(1, "cancelled", **call)])
    assert [step.kind for step in steps] == [Kind.queued, Kind.taken, Kind.sent, Kind.answered, Kind.event]


def test_a_refused_entry_goes_by_the_id_its_event_has_and_says_why() -> None:
    entry = read_asked("5-0", [b"id", b"no id!", b"symbol", b"X"])
    assert entry.id == "5-0"
    assert isinstance(entry.told, Asked)
    assert entry.told.refused.startswith("id: ")


def test_a_damaged_note_of_a_call_costs_its_times_only() -> None:
    for call in ("x", {"b": "b1", "s": "soon", "code": None}, {"b": "other", "s": 1}):
        state = State(batch_id="b1", taken_us=1001, route="r", notes={"call": call})
        steps = lived([], [], {"a": Open(Waiting("in hand"), state, {"queued_us": "x"})})
        assert [step.kind for step in steps] == [Kind.taken, Kind.open]


@given(entry_id=ENTRY_ID, flat=FLAT)
@example("1-0", [b"id", b"a", b"id"])
@example("1-0", [b"id", b"a", b"status", b"cancelled", b"final", b"1", b"settled_us", b"9" * 40])
def test_no_entry_stops_a_trace(entry_id: str, flat: list[bytes]) -> None:
    entries = read_asked(entry_id, flat), read_told(entry_id, flat)
    steps = steps_of(MAIN, [entries[0]], [entries[1]], {}, {}, 0)
    assert {step.kind for step in steps} & {Kind.event, Kind.unreadable}
    assert any(step.kind is Kind.queued and step.entry_id == entry_id for step in steps)
