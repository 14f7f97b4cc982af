"""docs/RELIABILITY.md says what the kept runs' files say, and names tests and commands that are there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ops import reliability

TESTS = {path.name for path in (reliability.ROOT / "tests").rglob("test_*.py")}


def test_the_page_holds_the_figures_of_the_kept_runs() -> None:
    page = reliability.PAGE.read_text()
    assert reliability.with_figures(page) == page, "make reliability"


def test_every_test_the_page_names_is_there() -> None:
    named = set(re.findall(r"test_\w+\.py", reliability.PAGE.read_text()))
    assert named
    assert named <= TESTS, f"no such test: {named - TESTS}"


def test_every_promise_is_shown_by_something() -> None:
    rows = re.findall(r"^\| (\d+) \| .+ \| (.+) \|$", reliability.PAGE.read_text(), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 23))
    assert all(shown.strip() for _, shown in rows)


def test_a_run_that_left_nothing_is_told_as_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reliability, "ROOT", tmp_path)
    assert reliability.table().count(reliability.NOT_RUN) == len(reliability.ROWS)
    (tmp_path / "ops").mkdir()
    found = {"mutants": 2, "caught": 1, "rows": [{"name": "a", "caught": True}, {"name": "b", "caught": False}]}
    (tmp_path / "ops" / "mutants.json").write_text(json.dumps(found))
    assert "1 of 2 caught; **survived**: ['b']" in reliability.table()


def test_a_page_without_a_place_for_figures_is_an_error() -> None:
    with pytest.raises(ValueError, match="must hold the lines"):
        reliability.with_figures("# no figures here")
