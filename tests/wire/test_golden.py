"""Messages of every version that was ever written, and what they must still be read as.

The files are never edited: a new version of the wire adds a file. The detail of a refusal is for people and
may change, so it is not in them; the digest is, because a worker compares it with those of the day before.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from cancelq.contract import Accepted, Event, Refused, read_entry

GOLDEN = Path(__file__).parent / "golden"


def cases(pattern: str) -> list[Any]:
    files = sorted(GOLDEN.glob(pattern))
    assert files
    return [
        pytest.param(case, id=f"{file.stem}: {case['name']}")
        for file in files
        for case in json.loads(file.read_text(encoding="utf-8"))
    ]


@pytest.mark.parametrize("case", cases("entries-*.json"))
def test_old_entries_are_still_read(case: dict[str, Any]) -> None:
    judged = read_entry(case["entry_id"], [text.encode() for pair in case["fields"] for text in pair])
    if "accepted" in case:
        assert judged == Accepted(entry_id=case["entry_id"], **case["accepted"])
    else:
        assert isinstance(judged, Refused)
        assert judged == Refused(entry_id=case["entry_id"], detail=judged.detail, **case["refused"])


@pytest.mark.parametrize("case", cases("events-*.json"))
def test_old_events_are_still_read(case: dict[str, Any]) -> None:
    event = Event.read(case["entry_id"], {name.encode(): value.encode() for name, value in case["fields"]})
    assert event.model_dump(mode="json", exclude_none=True) == case["event"]
