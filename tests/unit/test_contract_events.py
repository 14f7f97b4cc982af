"""`Event.read`: what an entry of the results says."""

import pytest
from pydantic import ValidationError

from cancelq.contract import FINAL, Event, Status
from cancelq.errors import EventError

MINIMAL = {b"id": b"k", b"status": b"cancelled", b"final": b"1"}


def test_absent_fields_are_none_and_numbers_are_numbers() -> None:
    event = Event.read("5-1", {**MINIMAL, b"lookups": b"2", b"queued_us": b"1700000000000000", b"filled": b"0.10"})
    assert (event.entry_id, event.id, event.status, event.final) == ("5-1", "k", Status.cancelled, True)
    assert (event.lookups, event.queued_us, event.filled) == (2, 1_700_000_000_000_000, "0.10")
    assert event.symbol is None
    assert event.answered_us is None


def test_fields_of_the_producer_and_of_later_versions_are_kept() -> None:
    event = Event.read("5-1", {**MINIMAL, b"x_desk": b"delta", b"mood": b"good", b"extras": b"!", b"entry_id": b"?"})
    assert event.entry_id == "5-1"
    assert event.extras == {"x_desk": "delta", "mood": "good", "extras": "!", "entry_id": "?"}


@pytest.mark.parametrize("status", Status)
def test_every_status_is_read(status: Status) -> None:
    final = b"1" if status in FINAL else b"0"
    event = Event.read("5-1", {b"id": b"k", b"status": status.encode(), b"final": final})
    assert event.status is status
    assert event.final == (status in FINAL)


def test_bytes_that_are_no_text_are_shown_escaped() -> None:
    event = Event.read("5-1", {**MINIMAL, b"detail": b"half \xff", b"\xfe": b"\xfd"})
    assert event.detail == "half \\xff"
    assert event.extras == {"\\xfe": "\\xfd"}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "id: "),
        ({b"id": b"k", b"final": b"1"}, "status: "),
        ({**MINIMAL, b"status": b"vanished"}, "status: "),
        ({**MINIMAL, b"final": b"perhaps"}, "final: "),
        ({**MINIMAL, b"attempt": b"many"}, "attempt: "),
        ({**MINIMAL, b"attempt": b"-1"}, "attempt: "),
    ],
)
def test_what_is_no_event_is_said_with_its_place(fields: dict[bytes, bytes], says: str) -> None:
    with pytest.raises(EventError) as unreadable:
        Event.read("5-1", fields)
    assert unreadable.value.entry_id == "5-1"
    assert unreadable.value.detail.startswith(says)


def test_an_event_does_not_change() -> None:
    event = Event.read("5-1", MINIMAL)
    with pytest.raises(ValidationError, match="frozen"):
        event.status = Status.filled  # type: ignore[misc]
