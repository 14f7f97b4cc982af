"""What a check comes to: one line, how grave it is, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from cancelq_worker.exits import Exit


class Level(IntEnum):
    """How grave a finding is. `unknown`: it could not be found out, and why stands in its words."""

    ok = 0
    unknown = 1
    warn = 2
    fail = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """`check`: what was looked at, like `durability.fsync`, a stable name; `subject`: of what, a lane (`bitget:main`),
    a venue, or `server`, `jobs`, `settings`; `told`: what was seen; `remedy`: what to do, "" if nothing; `facts`: the
    same for programs; `code`: how the command ends if this is the gravest failure. None of it holds a secret."""

    check: str
    subject: str
    level: Level
    told: str
    remedy: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    code: Exit = Exit.UNHEALTHY

    @property
    def group(self) -> str:
        """The part of the check's name by which findings are shown together."""
        return self.check.partition(".")[0]


@dataclass(frozen=True, slots=True)
class About:
    """One check of one subject; makes its findings."""

    check: str
    subject: str

    def ok(self, told: str, **facts: Any) -> Finding:
        return Finding(self.check, self.subject, Level.ok, told, facts=facts)

    def unknown(self, told: str, remedy: str = "", **facts: Any) -> Finding:
        return Finding(self.check, self.subject, Level.unknown, told, remedy, facts)

    def warn(self, told: str, remedy: str, **facts: Any) -> Finding:
        return Finding(self.check, self.subject, Level.warn, told, remedy, facts)

    def fail(self, told: str, remedy: str, code: Exit = Exit.UNHEALTHY, **facts: Any) -> Finding:
        return Finding(self.check, self.subject, Level.fail, told, remedy, facts, code)


#: Failures are told by the first of these that is among them: what keeps most from being known comes first.
_GRAVEST = (Exit.UNREACHABLE, Exit.CONFIGURATION, Exit.KEY_REFUSED)


@dataclass(frozen=True, slots=True)
class Report:
    """All findings of one run, in the order they are shown. `took_ms`: how long it took."""

    findings: Sequence[Finding]
    took_ms: int

    @property
    def level(self) -> Level:
        return max((one.level for one in self.findings), default=Level.ok)

    @property
    def exit(self) -> Exit:
        """0 unless something failed."""
        codes = {one.code for one in self.findings if one.level is Level.fail}
        return next((code for code in _GRAVEST if code in codes), Exit.UNHEALTHY) if codes else Exit.OK

    def count(self, level: Level) -> int:
        return sum(one.level is level for one in self.findings)
