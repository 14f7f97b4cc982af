"""The list of mutants fits the product as it is, so that none of them is silently skipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.mutants import ALL
from ops.mutants.mutant import Mutant
from ops.mutants.trial import all_passed

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("mutant", ALL, ids=lambda mutant: mutant.name)
def test_a_mutant_applies_and_its_tests_are_there(mutant: Mutant) -> None:
    whole = (ROOT / mutant.file).read_text()
    broken = mutant.applied(whole)
    assert broken != whole
    if mutant.file.endswith(".py"):
        compile(broken, mutant.file, "exec")
    assert mutant.tests
    for test in mutant.tests:
        file, *names = test.split("::")
        assert (ROOT / file).is_file(), test
        assert not names or f"def {names[-1]}(" in (ROOT / file).read_text(), test


def test_there_are_many_and_each_has_its_name() -> None:
    assert len({mutant.name for mutant in ALL}) == len(ALL) >= 25
    assert {Path(mutant.file).suffix for mutant in ALL} == {".py", ".lua"}


@pytest.mark.parametrize(
    ("status", "said", "passed"),
    [
        (0, "3 passed in 1.2s", True),
        (0, "1 passed, 2 skipped in 1.2s", True),
        (0, "1 skipped, 10 deselected in 0.9s", False),
        (1, "1 failed, 2 passed in 1.2s", False),
    ],
)
def test_tests_that_were_left_out_show_nothing(status: int, said: str, passed: bool) -> None:
    assert all_passed(status, said) == passed


def test_a_text_that_is_gone_or_stands_twice_is_an_error() -> None:
    mutant = Mutant("m", "f", "old", "new", "harm", ("t",))
    assert mutant.applied("an old file") == "an new file"
    for text in ("nothing", "old and old"):
        with pytest.raises(ValueError, match="not once"):
            mutant.applied(text)
