"""docs/ADDING-A-VENUE.md shows the example venue as it is, and names only what there is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.conformance.suite.papers import ANSWERS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "ADDING-A-VENUE.md").read_text()
SHOWN = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SOURCES = [(ROOT / "tests" / "conformance" / name).read_text() for name in ("example_venue/adapter.py", "dossiers.py")]
CODE_ROOTS = (ROOT, ROOT / "worker" / "cancelq_worker", ROOT / "tests" / "conformance" / "example_venue")


@pytest.mark.parametrize("shown", SHOWN, ids=range(len(SHOWN)))
def test_the_code_it_shows_is_the_examples(shown: str) -> None:
    """Line by line, but for the indentation."""
    assert any(_lines(shown) in _lines(source) for source in SOURCES)


def test_the_answer_it_shows_is_recorded() -> None:
    (shown,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert json.loads(shown) in json.loads((ANSWERS / "example" / "cancels.json").read_text())


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`([\w/]+\.py)`", PAGE))))
def test_the_files_it_names_are_there(path: str) -> None:
    assert any((root / path).is_file() for root in CODE_ROOTS), path


def test_the_rules_it_lists_are_all_there_are() -> None:
    suite = {path.stem for path in (ROOT / "tests" / "conformance" / "suite").glob("test_*.py")}
    named = re.findall(r"`(test_[a-z]+)`", PAGE)
    assert set(named) == suite
    assert len(named) == len(suite)


def _lines(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().splitlines())
