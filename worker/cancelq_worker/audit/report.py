"""The report of an audit: one HTML file that needs nothing else, and opens from a disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from typing import Protocol

from cancelq_worker.audit.auditor import LaneAudit
from cancelq_worker.audit.finding import REMEDIES
from cancelq_worker.audit.numbers import PERCENTILES, SPANS, Histogram, Listed, merge_latency

#: Of each list so many rows are shown; the JSON form and the export have all.
ROWS_MOST = 200
_STYLE = (files("cancelq_worker") / "audit" / "report.css").read_text()


class Plotter(Protocol):
    """Draws SVG; "" where there is nothing to draw."""

    def latency(self, spans: Mapping[tuple[str, str], Histogram]) -> str: ...
    def outcomes(self, by_minute: Mapping[int, Mapping[str, int]], statuses: Sequence[str]) -> str: ...
    def calls(self, by_minute: Mapping[int, int], refused: Mapping[int, int]) -> str: ...


@dataclass(slots=True)
class Plots:
    """SVG, by title; `missing` says why there is none."""

    drawn: list[tuple[str, str]] = field(default_factory=list)
    missing: str = ""


def page(lanes: Sequence[LaneAudit], title: str, made: str, plots: Plots) -> str:
    """The whole file. `made`: when and of what, one line."""
    proven = all(lane.proven for lane in lanes)
    verdict = "Proven" if proven else f"{sum(lane.findings.total for lane in lanes):,} things are wrong"
    body = [
        f"<header><h1>{escape(title)}</h1><p class='made'>{escape(made)}</p>",
        f"<p class='verdict {'good' if proven else 'bad'}' id='verdict'>{verdict}</p></header>",
        _tiles(lanes),
        *_findings(lanes),
        _horizon(lanes),
        _outcomes(lanes),
        _latency(lanes),
        *_plots(plots),
        *_listed("Unresolved: a person must look", [(lane, lane.numbers.unresolved) for lane in lanes]),
        *_listed("Open", [(lane, lane.numbers.open) for lane in lanes]),
        *_refusals(lanes),
        *_archives(lanes),
    ]
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body><main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main></body></html>\n"
    )


def draw(lanes: Sequence[LaneAudit], plotter: Plotter | None) -> Plots:
    """The plots of all lanes together; without a plotter, why there are none."""
    if plotter is None:
        return Plots(missing="Plots need matplotlib: pip install 'cancelq[report]'")
    numbers = [lane.numbers for lane in lanes]
    outcomes: dict[int, Counter[str]] = {}
    calls: Counter[int] = Counter()
    refused: Counter[int] = Counter()
    for one in numbers:
        for minute, counts in one.outcomes_by_minute.items():
            outcomes.setdefault(minute, Counter()).update(counts)
        calls.update(one.calls_by_minute)
        refused.update(one.refused_by_minute)
    common = [status for status, _ in sum((Counter(c) for c in outcomes.values()), Counter()).most_common(6)]
    drawn = [
        ("How long each step took", plotter.latency(merge_latency(numbers))),
        ("Outcomes over time", plotter.outcomes(outcomes, common)),
        ("Calls and refusals over time", plotter.calls(calls, refused)),
    ]
    return Plots([(title, svg) for title, svg in drawn if svg])


# ---------------------------------------------------------------------------
# The parts of the page


def _tiles(lanes: Sequence[LaneAudit]) -> str:
    numbers = [lane.numbers for lane in lanes]
    duplicates = sum(one.statuses["duplicate"] for one in numbers)
    tiles = (
        ("intents asked", sum(one.intents for one in numbers)),
        ("with one outcome", sum(one.proven for one in numbers)),
        ("events", sum(lane.events for lane in lanes)),
        ("calls", sum(one.calls for one in numbers)),
        ("unresolved", sum(one.statuses["unresolved"] for one in numbers)),
        ("duplicates", duplicates),
        ("wrong", sum(lane.findings.total for lane in lanes)),
    )
    inner = "".join(f"<div><b>{count:,}</b><span>{name}</span></div>" for name, count in tiles)
    return f"<section class='tiles'>{inner}</section>"


def _findings(lanes: Sequence[LaneAudit]) -> Iterator[str]:
    found = [finding for lane in lanes for finding in lane.findings.kept]
    if not found:
        return
    rows = [(one.lane, one.kind.value, one.where, one.entry_id, one.id, one.problem) for one in found[:ROWS_MOST]]
    remedies = "".join(f"<li><b>{kind}</b>: {escape(REMEDIES[kind])}</li>" for kind in sorted({f.kind for f in found}))
    shown = _rest(len(rows), sum(lane.findings.total for lane in lanes))
    yield _section(
        "What is wrong",
        _table(("lane", "about", "where", "entry", "id", "what"), rows)
        + shown
        + f"<ul class='remedies'>{remedies}</ul>",
    )


def _horizon(lanes: Sequence[LaneAudit]) -> str:
    rows = [f"<li><b>{lane.lane}</b>: {escape(line)}</li>" for lane in lanes for line in lane.horizon]
    return _section("How far the proof reaches", f"<ul>{''.join(rows)}</ul>") if rows else ""


def _outcomes(lanes: Sequence[LaneAudit]) -> str:
    statuses = sorted({status for lane in lanes for status in lane.numbers.statuses})
    rows = [
        (str(lane.lane), f"{lane.numbers.intents:,}", *(f"{lane.numbers.statuses[s]:,}" for s in statuses))
        for lane in lanes
    ]
    return _section("Events by status", _table(("lane", "asked", *statuses), rows, numbers_from=1))


def _latency(lanes: Sequence[LaneAudit]) -> str:
    head = ("lane", "step", "count", *(f"p{percent:g}" for percent in PERCENTILES), "max")
    rows = []
    for lane in lanes:
        merged = lane.numbers.merged_latency()
        for begin, end in SPANS:
            took = merged[begin, end]
            if took.count:
                times = (*(took.percentile(percent) for percent in PERCENTILES), took.most)
                rows.append(
                    (str(lane.lane), f"{begin} → {end}", f"{took.count:,}", *(f"{t / 1000:,.2f}" for t in times))
                )
    if not rows:
        return ""
    note = "<p class='note'>Milliseconds, of intents that were sent; a timed one counts from when it was due.</p>"
    return _section("Latency", _table(head, rows, numbers_from=2) + note)


def _plots(plots: Plots) -> Iterator[str]:
    if plots.missing:
        yield _section("Plots", f"<p class='note'>{escape(plots.missing)}</p>")
    for title, svg in plots.drawn:
        yield _section(title, f"<figure>{svg}</figure>")


def _listed(title: str, lists: Sequence[tuple[LaneAudit, Sequence[Listed]]]) -> Iterator[str]:
    rows = []
    for lane, listed in lists:
        resolved = lane.numbers.resolved
        rows += [
            (str(lane.lane), o.id, o.order, o.entry_id, o.detail, "yes" if o.id in resolved else "") for o in listed
        ]
    if rows:
        head = ("lane", "id", "order", "entry", "detail", "resolved later")
        yield _section(title, _table(head, rows[:ROWS_MOST]) + _rest(min(len(rows), ROWS_MOST), len(rows)))


def _refusals(lanes: Sequence[LaneAudit]) -> Iterator[str]:
    rows = [
        (str(lane.lane), f"{count:,}", code or "none", detail)
        for lane in lanes
        for (code, detail), count in lane.numbers.refusals.most_common(ROWS_MOST)
    ]
    if rows:
        yield _section("Refusals", _table(("lane", "intents", "code", "detail"), rows))


def _archives(lanes: Sequence[LaneAudit]) -> Iterator[str]:
    rows = [(str(lane.lane), f"{lane.segments:,}", f"{lane.archived:,}", lane.head) for lane in lanes if lane.segments]
    if rows:
        note = (
            "<p class='note'>Keep the last hash in another place: with it anybody can show later that nothing was "
            "taken away from the end.</p>"
        )
        yield _section("Archive", _table(("lane", "segments", "events", "hash of the last line"), rows) + note)


def _rest(shown: int, whole: int) -> str:
    return f"<p class='note'>{shown:,} of {whole:,} are shown.</p>" if whole > shown else ""


def _section(title: str, inner: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{inner}</section>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers_from: int | None = None) -> str:
    """From the column `numbers_from` on, cells are numbers."""
    kinds = ["" if numbers_from is None or n < numbers_from else " class='number'" for n in range(len(head))]
    top = "".join(f"<th{kind}>{escape(name)}</th>" for kind, name in zip(kinds, head, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(kinds, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f"<div class='scroll'><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
