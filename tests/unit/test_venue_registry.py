"""Every venue whose name the public contract lets through is served, and a new one is a folder and that name."""

from pathlib import Path

import pytest

from cancelq import VENUES
from cancelq_worker import venues
from cancelq_worker.venues.registry import KINDS, kind_of

NEW_VENUE = """
from tests.conformance.example_venue.adapter import KIND as KIND
"""


def test_the_registry_serves_exactly_the_venues_of_the_contract() -> None:
    assert tuple(KINDS) == VENUES


def test_a_folder_is_all_that_a_new_venue_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "example"
    folder.mkdir()
    (folder / "kind.py").write_text(NEW_VENUE)
    monkeypatch.setattr(venues, "__path__", [*venues.__path__, str(tmp_path)])
    assert kind_of("example").place.base_url == "https://api.example"


def test_a_name_without_a_folder_is_an_error() -> None:
    with pytest.raises(ImportError, match="nowhere"):
        kind_of("nowhere")
