"""`cancelq archive`: one run over the lanes, or the end of archiving."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from cancelq import Lane
from cancelq_worker.archive.fence import LaneBusy, MarkerChanged, marker_key
from cancelq_worker.archive.repair import OtherArchive
from cancelq_worker.cli import showing
from cancelq_worker.cli.invocation import Invocation
from cancelq_worker.cli.lanes_asked import age_ms, lanes_asked
from cancelq_worker.exits import CommandFailed, Exit

if TYPE_CHECKING:
    from cancelq_worker.archive.archiver import Done, Options

NEEDS = "pip install 'cancelq[archive]'"
NO_FOLDER = "name it with --to DIR, or in the settings: archive_dir (CANCELQ_ARCHIVE_DIR)"
OTHER = "name that folder with --to, bring its end back from a copy, or begin anew with cancelq archive LANE --off"


class Archiving:
    """One run of the command."""

    def __init__(self, invocation: Invocation, named: Sequence[str], to: Path | None, *, as_json: bool) -> None:
        self._settings = invocation.settings()
        self._client = invocation.redis(self._settings)
        self._named = named
        self._to = to or self._settings.archive_dir
        self._as_json = as_json
        self._well = True

    def run(self, keep: str, leave: str, *, ignore_groups: bool, trim: bool) -> Exit:
        """Archives lane after lane; what goes wrong at one keeps no other from being archived."""
        try:
            from cancelq_worker.archive.archiver import Options
        except ModuleNotFoundError as missing:
            raise without_pyarrow(missing) from None
        if self._to is None:
            raise CommandFailed("an archive needs a folder", NO_FOLDER, Exit.CONFIGURATION)
        keep_ms, leave_ms = age_ms(keep, "--keep"), age_ms(leave, "--leave")
        options = Options(keep_ms, leave_ms, ignore_groups, trim)
        with self._client:
            lanes = self._lanes()
            told = [self._archived(lane, options) for lane in lanes]
        if self._as_json:
            typer.echo(showing.dumps({"archived": [one for one in told if one], "well": self._well}))
        return Exit.OK if self._well else Exit.UNHEALTHY

    def off(self) -> Exit:
        """Makes the lanes forget their archive, whose files stay as they are."""
        with self._client:
            lanes = self._lanes()
            for lane in lanes:
                if self._client.exists(lane.key("archiver")):
                    raise CommandFailed(
                        f"{lane} is being archived just now", "wait for that run to end", Exit.UNHEALTHY
                    )
                was_on = self._client.delete(marker_key(lane))
                typer.echo(f"{lane}: {'archiving is off' if was_on else 'had no archive'}; workers trim results by age")
        if self._settings.archive_dir:
            typer.echo("archive_dir is still set: workers that have it switch archiving on again", err=True)
        return Exit.OK

    def _lanes(self) -> list[Lane]:
        return lanes_asked(self._client, self._settings.redis_url, self._named)

    def _archived(self, lane: Lane, options: Options) -> dict[str, Any] | None:
        from cancelq_worker.archive.archiver import Archiver
        from cancelq_worker.archive.compare import ArchiveFlawed

        try:
            done = Archiver(self._client, lane, self._to or Path(), options).run()
        except LaneBusy as error:
            self._failed(lane, str(error), "let it end; nothing was done here")
        except (OtherArchive, MarkerChanged) as error:
            self._failed(lane, str(error), OTHER)
        except ArchiveFlawed as error:
            said = "\n".join(f"{flaw.where} {flaw.entry_id}: {flaw.problem}" for flaw in error.flaws)
            remedy = "nothing was trimmed; bring the file back from a copy. cancelq audit --archive names all of it"
            self._failed(lane, said, remedy)
        except OSError as error:
            self._failed(lane, f"the archive cannot be written: {error}", "check the folder, its rights and its room")
        else:
            return self._told(done)
        return None

    def _told(self, done: Done) -> dict[str, Any]:
        if self._as_json:
            return {**asdict(done), "lane": str(done.lane)}
        what = (
            f"{done.events:,} events in {done.segments} segments, {done.bytes:,} bytes"
            if done.events
            else "nothing new"
        )
        typer.echo(f"{done.lane}: {what}; verified up to {done.last}; {done.trimmed:,} trimmed")
        if done.kept_by:
            group = showing.printable(done.kept_by)
            typer.echo(f"  kept in the stream: consumer group {group} has not read, or not acknowledged, what follows")
        for note in done.notes:
            typer.echo(f"  {showing.printable(note)}", err=True)
        return {}

    def _failed(self, lane: Lane, message: str, remedy: str) -> None:
        self._well = False
        for line in message.splitlines():
            typer.echo(f"error: {lane}: {showing.printable(line)}", err=True)
        typer.echo(f"remedy: {remedy}", err=True)


def without_pyarrow(missing: ModuleNotFoundError) -> CommandFailed:
    """What to tell where pyarrow is not installed; any other missing module is a fault and raised as it is."""
    if (missing.name or "").partition(".")[0] != "pyarrow":
        raise missing
    return CommandFailed("archives are Parquet files, and pyarrow is not installed", NEEDS, Exit.CONFIGURATION)
