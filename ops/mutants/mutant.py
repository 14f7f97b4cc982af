"""One deliberate breakage."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """An exact replacement in one file, and the tests that must fail for it.

    `old` occurs exactly once in `file`; `harm` says what would happen to a desk; `tests` are pytest's node ids, as few
    as will do, so that all mutants are tried within minutes.
    """

    name: str
    file: str
    old: str
    new: str
    harm: str
    tests: tuple[str, ...]

    def applied(self, text: str) -> str:
        """The broken file. Raises ValueError unless `old` occurs exactly once."""
        found = text.count(self.old)
        if found != 1:
            raise ValueError(f"mutant {self.name}: its text occurs {found} times in {self.file}, not once: adapt it")
        return text.replace(self.old, self.new)
