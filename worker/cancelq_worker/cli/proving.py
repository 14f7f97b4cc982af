"""`cancelq audit`: the proof, as text, as JSON, as a report, and the events as a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import typer

from cancelq import Lane
from cancelq_worker.archive import manifest
from cancelq_worker.archive.canonical import Entry
from cancelq_worker.audit import report as html
from cancelq_worker.audit.auditor import FAR_US, LaneAudit, Question, audit_lane, showing_time
from cancelq_worker.audit.export import ExportFile
from cancelq_worker.audit.finding import REMEDIES, Finding
from cancelq_worker.audit.numbers import PERCENTILES, Histogram
from cancelq_worker.audit.sources import Reader
from cancelq_worker.cli import showing
from cancelq_worker.cli.archiving import without_pyarrow
from cancelq_worker.cli.invocation import Invocation
from cancelq_worker.cli.lanes_asked import lanes_asked, moment_us
from cancelq_worker.exits import CommandFailed, Exit

# Of findings and unresolved intents, so many are printed; --json and the report have more.
SHOWN = 50


class Proving:
    """One run of the command."""

    def __init__(self, invocation: Invocation, named: Sequence[str], archive: Path | None) -> None:
        self._settings = invocation.settings()
        self._client = invocation.redis(self._settings)
        self._named = named
        self._archive = archive or self._settings.archive_dir
        self._asked_for_archive = archive is not None

    def run(
        self, since: str | None, until: str | None, report: Path | None, export: Path | None, *, as_json: bool
    ) -> Exit:
        """Audits lane after lane, and says what was found."""
        if export and export.suffix.lower() not in (".csv", ".ndjson"):
            raise CommandFailed(f"{export.name}: its ending says no format", "end it in .csv or .ndjson", Exit.USAGE)
        now_us = time.time_ns() // 1000
        from_us = moment_us(since, "--from", now_us) if since else 0
        to_us = moment_us(until, "--to", now_us) if until else FAR_US
        if from_us >= to_us:
            raise CommandFailed("--from is not before --to", "leave one of them out, or turn them around", Exit.USAGE)
        with self._client, ExportFile(export) if export else nullcontext() as file:
            lanes = lanes_asked(self._client, self._settings.redis_url, self._named)
            found = [self._audited(lane, from_us, to_us, file.write if file else None) for lane in lanes]
        if report:
            self._write_report(report, found, since, until)
        if as_json:
            typer.echo(
                showing.dumps({"proven": all(one.proven for one in found), "lanes": [_object(o) for o in found]})
            )
        else:
            self._tell(found)
        return Exit.OK if found and all(one.proven for one in found) else Exit.UNHEALTHY

    def _audited(self, lane: Lane, from_us: int, to_us: int, export: Callable[[Lane, Entry], None] | None) -> LaneAudit:
        folder = manifest.folder_of(self._archive, lane) if self._archive else None
        if folder and not folder.exists():
            if self._asked_for_archive and self._named:
                raise CommandFailed(f"{folder} does not exist", "check --archive and the lane", Exit.USAGE)
            folder = None
        question = Question(
            from_us,
            to_us,
            self._archive if folder else None,
            _segment_reader() if folder else None,
            self._settings.dedup_hours * 3_600_000_000,
        )
        return audit_lane(self._client, lane, question, export)

    def _write_report(self, path: Path, found: list[LaneAudit], since: str | None, until: str | None) -> None:
        span = " ".join(word for word in (f"from {since}" if since else "", f"to {until}" if until else "") if word)
        made = f"{', '.join(str(one.lane) for one in found)}; made {showing_time(time.time_ns() // 1000)}"
        plots = html.draw(found, _plotter())
        path.write_text(html.page(found, "cancelq audit", f"{made}; {span}" if span else made, plots), encoding="utf-8")
        if plots.missing:
            typer.echo(f"the report has tables only. {plots.missing}", err=True)

    def _tell(self, found: list[LaneAudit]) -> None:
        for one in found:
            typer.echo("\n".join(showing.printable(line) for line in _lines(one)))
        wrong = [finding for one in found for finding in one.findings.kept]
        if wrong:
            for kind in sorted({finding.kind for finding in wrong}):
                typer.echo(f"remedy: {kind}: {REMEDIES[kind]}", err=True)
        if not found:
            typer.echo("no lane on this server yet: a worker creates its lanes when it starts", err=True)


def _segment_reader() -> Reader:
    try:
        from cancelq_worker.archive import segments
    except ModuleNotFoundError as missing:
        raise without_pyarrow(missing) from None

    class _Segments:
        unreadable = segments.SegmentUnreadable

        def __call__(self, path: Path) -> Iterator[Entry]:
            return segments.read(path)

    return cast(Reader, _Segments())


def _plotter() -> html.Plotter | None:
    try:
        from cancelq_worker.audit import plots
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] != "matplotlib":
            raise
        return None
    return cast(html.Plotter, plots)


def _lines(one: LaneAudit) -> Iterator[str]:
    numbers = one.numbers
    verdict = "proven" if one.proven else f"{one.findings.total:,} THINGS ARE WRONG"
    yield f"{one.lane}: {verdict}: {numbers.proven:,} of {numbers.intents:,} intents have their one outcome"
    archived = f", {one.archived:,} of them from {one.segments} archived segments" if one.segments else ""
    yield f"  {one.events:,} events{archived}; {numbers.calls:,} calls"
    if one.segments:
        yield f"  archive: hash of the last line {one.head}"
    counts = "  ".join(f"{status} {count:,}" for status, count in numbers.statuses.most_common())
    yield f"  {counts or 'no event'}"
    for line in one.horizon:
        yield f"  {line}"
    yield from _latency_lines(numbers.merged_latency())
    for listed in numbers.unresolved[:SHOWN]:
        later = " (resolved later)" if listed.id in numbers.resolved else ""
        yield f"  unresolved{later}: {listed.id}, order {listed.order or '?'}, {listed.entry_id}: {listed.detail}"
    for (code, detail), count in numbers.refusals.most_common(SHOWN):
        yield f"  rejected {count:,}: {code or 'no code'} {detail}"
    for finding in one.findings.kept[:SHOWN]:
        yield f"  WRONG {_place(finding)}: {finding.problem}"
    if one.findings.total > SHOWN:
        yield f"  … and {one.findings.total - SHOWN:,} more"


def _place(finding: Finding) -> str:
    return ", ".join(word for word in (finding.where, finding.entry_id, finding.id and f"id {finding.id}") if word)


def _latency_lines(spans: dict[tuple[str, str], Histogram]) -> Iterator[str]:
    if not any(histogram.count for histogram in spans.values()):
        return
    heads = [*(f"p{percent:g}" for percent in PERCENTILES), "max", "count"]
    yield f"  {'milliseconds':<20}" + "".join(f"{head:>12}" for head in heads)
    for (begin, end), took in spans.items():
        times = [took.percentile(percent) / 1000 for percent in PERCENTILES] + [took.most / 1000]
        yield f"  {f'{begin} → {end}':<20}" + "".join(f"{ms:>12,.2f}" for ms in times) + f"{took.count:>12,}"


def _object(one: LaneAudit) -> dict[str, Any]:
    numbers = one.numbers
    return {
        "lane": str(one.lane),
        "proven": one.proven,
        "intents": numbers.intents,
        "intents_proven": numbers.proven,
        "intents_open": numbers.open_count,
        "intents_before_inbox": numbers.before_inbox,
        "intents_beyond_results": numbers.beyond_results,
        "intents_of_guard": numbers.guards,
        "events": one.events,
        "calls": numbers.calls,
        "statuses": dict(numbers.statuses),
        "archive": {"segments": one.segments, "events": one.archived, "head": one.head} if one.segments else None,
        "horizon": one.horizon,
        "latency_us": [
            {"from": begin, "to": end, "scope": scope, "priority": priority, **_times(took)}
            for (begin, end, scope, priority), took in sorted(numbers.latency.items())
        ],
        "unresolved": [{**asdict(o), "resolved": o.id in numbers.resolved} for o in numbers.unresolved],
        "open": [asdict(listed) for listed in numbers.open],
        "refusals": [{"code": c, "detail": d, "count": n} for (c, d), n in numbers.refusals.most_common()],
        "findings": [asdict(finding) for finding in one.findings.kept],
        "findings_count": one.findings.total,
        "remedies": {kind.value: REMEDIES[kind] for kind in sorted(one.findings.counts)},
    }


def _times(took: Histogram) -> dict[str, int]:
    return {
        "count": took.count,
        **{f"p{percent:g}": took.percentile(percent) for percent in PERCENTILES},
        "max": took.most,
    }
