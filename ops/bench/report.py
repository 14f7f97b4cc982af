"""What was measured, as rows, and the rows as a Markdown table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `ratio` compares it with `baseline`; `reached` is None where nothing was promised."""

    part: str
    server: str
    what: str
    value: float
    unit: str
    baseline: float | None = None
    ratio: float | None = None
    target: str = ""
    reached: bool | None = None


def aimed(row: Row, target: str, reached: bool) -> Row:
    """The row with what was promised of it, and whether it holds."""
    return replace(row, target=target, reached=reached)


def table(rows: Iterable[Row]) -> str:
    """Markdown, one line for each row."""
    lines = [
        "| part | server | what | value | bare | ratio | target | reached |",
        "|---|---|---|--:|--:|--:|---|---|",
    ]
    for row in rows:
        cells = (
            row.part,
            row.server,
            row.what,
            f"{_number(row.value)} {row.unit}".strip(),
            "" if row.baseline is None else f"{_number(row.baseline)} {row.unit}".strip(),
            "" if row.ratio is None else f"{row.ratio:.2f}",
            row.target,
            {True: "yes", False: "**no**", None: ""}[row.reached],
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def page(rows: Iterable[Row], machine: Mapping[str, str], notes: Iterable[str], flags: str = "--keep") -> str:
    """The whole of RESULTS.md, or of another part's page."""
    told = "\n".join(f"* {name}: {value}" for name, value in machine.items())
    said = "\n".join(f"* {note}" for note in notes)
    return (
        f"# Measured by `make bench ARGS={flags if flags == '--keep' else repr(flags)}`\n\n"
        "One machine, one run; everything shared the same processors. Trust the ratios and the processor time, not "
        f"the absolute speeds.\n\n{told}\n\n{table(rows)}\n\n## What the words mean\n\n{said}\n"
    )


def as_json(rows: Iterable[Row], machine: Mapping[str, str]) -> dict[str, Any]:
    return {"machine": dict(machine), "rows": [asdict(row) for row in rows]}


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
