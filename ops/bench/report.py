"""What was measured, as rows, and the rows as a Markdown table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
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


def at_least(row: Row, least: float, target: str) -> Row:
    """The row with a target that its value must reach."""
    return _aimed(row, target, row.value >= least)


def at_most(row: Row, most: float, target: str) -> Row:
    """The row with a target that its ratio, or else its value, must not pass."""
    return _aimed(row, target, (row.value if row.ratio is None else row.ratio) <= most)


def _aimed(row: Row, target: str, reached: bool) -> Row:
    return Row(**{**asdict(row), "target": target, "reached": reached})


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


def page(rows: Iterable[Row], machine: Mapping[str, str], notes: Iterable[str]) -> str:
    """The whole of RESULTS.md."""
    told = "\n".join(f"* {name}: {value}" for name, value in machine.items())
    said = "\n".join(f"* {note}" for note in notes)
    return (
        "# Measured by `make bench ARGS=--keep`\n\n"
        "One machine, one run; everything shared the same processors. Trust the ratios and the processor time, not "
        f"the absolute speeds.\n\n{told}\n\n{table(rows)}\n\n## What the words mean\n\n{said}\n"
    )


def as_json(rows: Iterable[Row], machine: Mapping[str, str]) -> dict[str, Any]:
    return {"machine": dict(machine), "rows": [asdict(row) for row in rows]}


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
