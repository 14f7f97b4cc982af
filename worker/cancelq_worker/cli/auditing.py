"""Commands of those who keep the records: results into an archive, and the proof of what is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cancelq_worker.cli.invocation import invocation_of

Lanes = Annotated[list[str] | None, typer.Argument(help="Lanes like bitget:main; left out: all.", show_default=False)]
OptionalPath = Path | None
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
To = Annotated[OptionalPath, typer.Option(help="The archive's folder; else the setting archive_dir.", metavar="DIR")]
Keep = Annotated[str, typer.Option(help="Younger events stay in the stream, too: 1h, 7d.", metavar="TIME")]
Leave = Annotated[str, typer.Option(help="Younger events are left for the next run.", metavar="TIME")]
IgnoreGroups = Annotated[
    bool, typer.Option("--ignore-groups", help="Also trim what consumer groups have not read or acknowledged.")
]
NoTrim = Annotated[bool, typer.Option("--no-trim", help="Archive and verify, but leave the stream as it is.")]
Off = Annotated[bool, typer.Option("--off", help="End archiving: workers trim results by age alone again.")]
Since = Annotated[
    str | None, typer.Option("--from", help="Only intents queued since: 2026-01-31T10:00, 7d.", metavar="TIME")
]
Until = Annotated[str | None, typer.Option("--to", help="Only intents queued before.", metavar="TIME")]
ArchiveDir = Annotated[
    OptionalPath, typer.Option("--archive", help="The archive's folder; else the setting archive_dir.", metavar="DIR")
]
Report = Annotated[OptionalPath, typer.Option(help="Write a report with plots.", metavar="FILE.html")]
ExportTo = Annotated[OptionalPath, typer.Option("--export", help="Write every event.", metavar="FILE.csv|.ndjson")]


def archive(
    ctx: typer.Context,
    lanes: Lanes = None,
    to: To = None,
    keep: Keep = "1d",
    leave: Leave = "1m",
    ignore_groups: IgnoreGroups = False,
    no_trim: NoTrim = False,
    off: Off = False,
    as_json: Json = False,
) -> None:
    """Move results to verified Parquet segments, then trim them from the stream.

    Each segment is read back and compared with the stream event by event, and bound
    to the one before by a chain of hashes. Trimmed is only what is verified, older than
    --keep, and read and acknowledged by every consumer group. Needs cancelq[archive].
    """
    from cancelq_worker.cli.archiving import Archiving

    run = Archiving(invocation_of(ctx), lanes or [], to, as_json=as_json)
    if off:
        raise typer.Exit(run.off())
    raise typer.Exit(run.run(keep, leave, ignore_groups=ignore_groups, trim=not no_trim))


def audit(
    ctx: typer.Context,
    lanes: Lanes = None,
    since: Since = None,
    until: Until = None,
    archive: ArchiveDir = None,
    report: Report = None,
    export: ExportTo = None,
    as_json: Json = False,
) -> None:
    """Prove from streams and archive that each intent has one outcome, and name what is wrong.

    Exits with 0 only if everything is proven as far as inbox and results reach back.
    """
    from cancelq_worker.cli.proving import Proving

    run = Proving(invocation_of(ctx), lanes or [], archive)
    raise typer.Exit(run.run(since, until, report, export, as_json=as_json))
