"""The trial of one mutant: a copy of the tree, the breakage, the tests that must notice."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ops.mutants.mutant import Mutant

ROOT = Path(__file__).resolve().parents[2]
COPIED = (
    "producers",
    "worker",
    "tests",
    "ops",
    "docs",
    "pyproject.toml",
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
)
PACKAGES = ("cancelq", "cancelq_worker")
FAILED = 1  # pytest's status for failing tests; others mean that they were not run
LONGEST_S = 240  # for one mutant
TEST_S = 60  # for one test: a mutant may make it wait for what never comes
_FIRST_FAILURE = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


def all_passed(status: int, said: str) -> bool:
    """Whether that run of pytest says something: one in which every test was left out passes, too."""
    return status == 0 and re.search(r"\b[1-9]\d* passed\b", said) is not None


class CopyNotLoaded(Exception):
    """Python does not load the copy but another tree: no verdict would mean anything."""


@dataclass(frozen=True)
class Verdict:
    """`caught`: a test failed, the first of which is `by`; `ran`: the tests ran at all; `said`: the end of what pytest
    said."""

    name: str
    caught: bool
    ran: bool
    by: str
    took_s: float
    said: str


class Copy:
    """A copy of the working tree that tests run in. Nothing is ever changed outside of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.exists():
                shutil.copy2(source, folder / name)
        self._env = {name: value for name, value in os.environ.items() if not name.startswith(("CANCELQ_", "PYTEST_"))}
        self._env |= {
            # Before the installed packages, for the tests and for every process they start.
            "PYTHONPATH": os.pathsep.join(str(folder / part) for part in ("producers", "worker", ".")),
            # A file that is broken and mended within one second would else be taken from its bytecode.
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self._prove_loaded()

    def _prove_loaded(self) -> None:
        """Also of a child of a child, as workers are."""
        ask = f"import {', '.join(PACKAGES)}; print({', '.join(f'{name}.__file__' for name in PACKAGES)}, sep='\\n')"
        nested = f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {ask!r}]).returncode)"
        told = subprocess.run(
            [sys.executable, "-c", nested], cwd=self._folder, env=self._env, capture_output=True, text=True, check=False
        )
        files = [Path(line).resolve() for line in told.stdout.split()]
        inside = [file for file in files if file.is_relative_to(self._folder.resolve())]
        if len(inside) != len(PACKAGES):
            raise CopyNotLoaded(f"not the copy in {self._folder} is loaded, but {told.stdout or told.stderr}")

    def tried(self, mutant: Mutant) -> Verdict:
        """Breaks the copy, runs the mutant's tests, mends it again. Raises ValueError if the mutant does not apply."""
        file = self._folder / mutant.file
        whole = file.read_text()
        began_s = time.monotonic()
        try:
            file.write_text(mutant.applied(whole))
            status, said = self.tests(mutant.tests)
        finally:
            file.write_text(whole)
        first = _FIRST_FAILURE.search(said)
        caught = status == FAILED and first is not None
        by = first.group(1) if first else ""
        ran = caught or all_passed(status, said)
        return Verdict(mutant.name, caught, ran, by, time.monotonic() - began_s, said[-2000:])

    def tests(self, tests: Sequence[str], *, stop: bool = True, within_s: float = LONGEST_S) -> tuple[int, str]:
        """Pytest's exit status and what it said; tests that hang are failures by their own time-out."""
        command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "--tb=line", "-p", "no:cacheprovider"]
        command += [f"--timeout={TEST_S}"]
        command += ["-x"] if stop else []
        try:
            done = subprocess.run(
                [*command, *tests], cwd=self._folder, env=self._env, capture_output=True, text=True, check=False,
                timeout=within_s,
            )  # fmt: skip
        except subprocess.TimeoutExpired as slow:
            return FAILED, f"FAILED {tests[0]} (all of them: no end within {within_s} s)\n{slow.output or ''}"
        return done.returncode, done.stdout + done.stderr
