"""What the demo shows while it runs: on a terminal a live view, elsewhere a line each second. Fits 80 columns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cancelq_worker.demo import summary
from cancelq_worker.demo.audit import BucketUse, Report
from cancelq_worker.demo.progress import Progress

LINE_EVERY_S = 1.0
BAR_WIDTH = 36
PATIENCE = "Orders nobody knows are looked for during 10 s, so the last ones take a while."
# In this order, so that a line stays where it is while others appear.
OUTCOMES = (
    "cancelled", "filled", "triggered", "closed", "not_found",
    "rejected", "expired", "revoked", "unresolved", "duplicate",
)  # fmt: skip


class Screen:
    """Speaks to the person in front of the demo, on standard output."""

    def __init__(self, entries: int) -> None:
        self._console = Console(highlight=False)
        self._live: Live | None = None
        self._line_s = 0.0
        self._console.print(
            f"[bold]cancelq demo[/]: {entries:,} cancels of every kind, and an audit of what became of each.\n"
            "Nothing here reaches a real venue. It starts:"
        )

    def starting(self, what: str) -> None:
        self._console.print(f"  - {what}")

    @contextmanager
    def live(self) -> Iterator[None]:
        """While this is open, `show` draws."""
        self._console.print()
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, auto_refresh=False, vertical_overflow="visible") as self._live:
            yield
        self._live = None

    def show(self, progress: Progress) -> None:
        if self._live is not None:
            self._live.update(_view(progress), refresh=True)
        elif progress.complete or progress.elapsed_s - self._line_s >= LINE_EVERY_S:
            self._line_s = progress.elapsed_s
            self._console.print(_line(progress), soft_wrap=True)

    def stuck(self, progress: Progress, still_s: float) -> None:
        left = progress.expected - progress.settled
        self._console.print(
            f"\n[bold red]Nothing has moved for {still_s:.0f} s[/], and {left:,} of {progress.expected:,} are not "
            "settled. The audit follows as things stand.",
            soft_wrap=True,
        )

    def report(self, report: Report, logs: Path | None) -> None:
        """The audit, and what to try next; `logs` are kept if something is wrong."""
        self._console.print(summary.view(report))
        if logs is None:
            for line in summary.what_next():
                self._console.print(line, soft_wrap=True, markup=False)
        else:
            self._say_where(logs)

    def failed(self, why: str, logs: Path) -> None:
        self._console.print(Text("\nThe demo failed: ", style="bold red") + Text(why, style="default"), soft_wrap=True)
        self._say_where(logs)

    def interrupted(self) -> None:
        self._console.print("\nInterrupted. Every process of the demo has ended; there was no audit.")

    def _say_where(self, logs: Path) -> None:
        self._console.print(f"Logs, and what the audit rests on, are kept in {logs}", soft_wrap=True)


def _view(progress: Progress) -> RenderableType:
    share = progress.settled / progress.expected
    bar = Table.grid(padding=(0, 1))
    bar.add_row(
        "settled",
        ProgressBar(total=progress.expected, completed=progress.settled, width=BAR_WIDTH),
        f"{progress.settled:,} of {progress.expected:,}",
        f"{share:.0%}",
        f"{progress.elapsed_s:.0f} s",
    )
    tables = Table.grid(padding=(0, 4))
    tables.add_row(_outcomes(progress), _calls(progress))
    return Group(bar, Text(), tables, Text("\n" + PATIENCE, style="dim"))


def _outcomes(progress: Progress) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("outcome")
    table.add_column("so far", justify="right", min_width=7)
    for status in OUTCOMES:
        table.add_row(status, f"{progress.outcomes[status]:,}")
    return table


def _calls(progress: Progress) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("calls to the venue")
    for name in ("taken", "refused", "most/s", "limit/s"):
        table.add_column(name, justify="right")
    for bucket in shown(progress.buckets):
        table.add_row(
            bucket.name, f"{bucket.taken:,}", _count_of_refused(bucket.refused), str(bucket.worst), str(bucket.limit)
        )
    table.add_row(Text("orders per batch call", style="dim"), f"{progress.calls.per_batch:.1f}")
    return table


def shown(buckets: list[BucketUse]) -> list[BucketUse]:
    """The limits per second; what is counted per address and minute sums up the same calls."""
    return [bucket for bucket in buckets if bucket.window_ms == 1_000]


def _count_of_refused(count: int) -> Text:
    return Text(f"{count:,}", style="bold red" if count else "default")


def _line(progress: Progress) -> str:
    outcomes = ", ".join(f"{status} {progress.outcomes[status]:,}" for status in OUTCOMES if progress.outcomes[status])
    return (
        f"{progress.elapsed_s:4.0f} s  {progress.settled:,} of {progress.expected:,} settled"
        f"{': ' + outcomes if outcomes else ''}; {progress.taken:,} calls, {progress.refused:,} refused, "
        f"{progress.calls.per_batch:.1f} orders per batch call"
    )
