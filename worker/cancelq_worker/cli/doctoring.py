"""`cancelq doctor`: what the checks found, as lines for a person or one JSON object."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cancelq import Lane
from cancelq_worker.cli import showing
from cancelq_worker.cli.consoles import plain_console
from cancelq_worker.cli.invocation import Invocation
from cancelq_worker.doctor import configuration
from cancelq_worker.doctor.checkup import examine
from cancelq_worker.doctor.findings import Finding, Level, Report
from cancelq_worker.doctor.patient import Patient
from cancelq_worker.exits import Exit
from cancelq_worker.settings import Settings, SettingsError

VERSION = 1
WORDS = {Level.ok: "ok", Level.unknown: "?", Level.warn: "warn", Level.fail: "FAIL"}
SHADES = {Level.ok: "green", Level.unknown: "cyan", Level.warn: "yellow", Level.fail: "bold red"}
TITLES = {
    "settings": "Settings",
    "server": "Server",
    "durability": "Durability",
    "memory": "Memory",
    "doors": "Doors",
    "scripts": "Scripts",
    "lane": "Lanes",
    "inbox": "Inboxes",
    "venue": "Venues",
    "key": "Keys",
    "limits": "Limits",
    "jobs": "Jobs",
}


def examine_all(invocation: Invocation, named: Sequence[str], *, offline: bool, as_json: bool) -> Exit:
    """Runs every check and shows what came of it."""
    chosen = [Lane.parse(name) for name in dict.fromkeys(named)]
    report = _report(invocation, chosen, offline=offline)
    if as_json:
        typer.echo(showing.dumps(as_object(report), indent=True))
    else:
        show(report)
    return report.exit


def _report(invocation: Invocation, chosen: Sequence[Lane], *, offline: bool) -> Report:
    try:
        settings = invocation.settings()
    except SettingsError as error:
        return Report(configuration.problems(error), 0)
    return asyncio.run(_examined(settings, chosen, offline=offline))


async def _examined(settings: Settings, chosen: Sequence[Lane], *, offline: bool) -> Report:
    patient = Patient(settings, chosen, offline=offline)
    try:
        return await examine(patient)
    finally:
        await patient.close()


def as_object(report: Report) -> dict[str, object]:
    """What `--json` prints; its shape is told in docs/DOCTOR.md."""
    return {
        "v": VERSION,
        "level": report.level.name,
        "exit": int(report.exit),
        "took_ms": report.took_ms,
        "counts": {level.name: report.count(level) for level in reversed(Level)},
        "findings": [_object(one) for one in report.findings],
    }


def _object(one: Finding) -> dict[str, object]:
    return {
        "check": one.check,
        "subject": one.subject,
        "level": one.level.name,
        "told": one.told,
        "remedy": one.remedy or None,
        "facts": dict(one.facts),
    }


def show(report: Report) -> None:
    """On a terminal wrapped to its width, what is well of a lane in one line; elsewhere one line each."""
    console = plain_console(highlight=False)
    group = ""
    for one in _folded(report.findings) if console.is_terminal else report.findings:
        if one.group != group:
            group = one.group
            console.print()
            console.print(Text(TITLES[group], style="bold"))
        _line(console, one)
    console.print()
    console.print(_summary(report), soft_wrap=True)


def _folded(findings: Sequence[Finding]) -> list[Finding]:
    """What is well of each lane (or node of a cluster), group by group, as one finding."""
    shown: list[Finding] = []
    places: dict[tuple[str, str], int] = {}
    for one in findings:
        key = one.group, one.subject
        if one.level is Level.ok and key in places:
            before = shown[places[key]]
            shown[places[key]] = replace(before, told=f"{before.told}; {one.told}")
            continue
        if one.level is Level.ok and ":" in one.subject:
            places[key] = len(shown)
        shown.append(one)
    return shown


def _line(console: Console, one: Finding) -> None:
    word, text = WORDS[one.level], Text(showing.printable(_sentence(one)))
    if one.remedy:
        text.append(f" — {showing.printable(one.remedy)}", style="bold" if one.level >= Level.warn else "dim")
    if not console.is_terminal:
        console.print(f"{word:<4}  {text.plain}", markup=False, soft_wrap=True)
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(width=4, no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(Text(word, style=SHADES[one.level]), text)
    console.print(table)


def _sentence(one: Finding) -> str:
    """With what it is about, where the group does not say that."""
    return f"{one.subject}: {one.told}" if one.subject not in ("server", "jobs", "settings") else one.told


def _summary(report: Report) -> Text:
    parts = [
        f"{report.count(level)} {name}{'s' * (level >= Level.warn and report.count(level) != 1)}"
        for level, name in (
            (Level.fail, "failure"),
            (Level.warn, "warning"),
            (Level.unknown, "unknown"),
            (Level.ok, "ok"),
        )
    ]
    return Text(f"{', '.join(parts)}, in {report.took_ms / 1000:.1f} s", style=SHADES[report.level])
