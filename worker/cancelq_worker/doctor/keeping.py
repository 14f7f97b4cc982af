"""Results and their archive: whether what is old goes, and whether the archive keeps up."""

from __future__ import annotations

from typing import Any

from cancelq.contract import Lane
from cancelq_worker.archive.manifest import NOTHING_ARCHIVED
from cancelq_worker.doctor.findings import About, Finding
from cancelq_worker.doctor.inbox import stream_facts
from cancelq_worker.doctor.patient import Patient, asked
from cancelq_worker.trips import command

DAY_MS = 86_400_000
#: An archive that runs daily is late after so long.
LATE_MS = 2 * DAY_MS


async def archive(p: Patient, lane: Lane) -> list[Finding]:
    """The marker `archived`: nothing behind it is ever trimmed, so one that stands still fills the memory."""
    about = About("lane.archive", str(lane))
    marker = ((await asked(command(p.redis, "GET", lane.key("archived")))) or b"").decode(errors="replace")
    facts = await stream_facts(p.redis, lane.results)
    now_ms = await p.now_ms()
    oldest_ms = now_ms - _ms(facts.first) if facts.first else 0
    shown: dict[str, Any] = {
        "verified_to": marker.partition(" ")[0] or None,
        "oldest_ms": oldest_ms,
        "results": facts.length,
    }
    keep_days = p.settings.results_keep_days
    if not marker and p.settings.archive_dir is None:
        if oldest_ms > (keep_days + 2) * DAY_MS:
            told = f"results are {oldest_ms // DAY_MS} days old, and trimmed after {keep_days}: no worker trims them"
            return [about.warn(told, "see that a worker serves the lane and that its clock is right", **shown)]
        return [about.ok(f"no archive; results are trimmed after {keep_days} days (results_keep_days)", **shown)]
    first_new = _behind(marker, facts.last)
    if marker in ("", NOTHING_ARCHIVED):
        late_ms, what = oldest_ms, "nothing is archived yet"
    else:
        verified_ms = _ms(marker)
        late_ms, what = (
            now_ms - verified_ms,
            f"archived and verified up to {_ago(now_ms - verified_ms)}",
        )
    if first_new and late_ms > LATE_MS:
        remedy = f"cancelq archive {lane} (or let `cancelq jobs` do it); to end it: cancelq archive {lane} --off"
        return [about.warn(f"{what}, and results are kept until they are: memory fills", remedy, **shown)]
    return [about.ok(what, **shown)]


def _behind(marker: str, last: str) -> bool:
    """Whether there are results after the marker."""
    return _order(marker.partition(" ")[0] or "0-0") < _order(last)


def _order(entry_id: str) -> tuple[int, int]:
    ms, _, number = entry_id.partition("-")
    return int(ms), int(number or 0)


def _ms(entry_id: str) -> int:
    return int(entry_id.partition("-")[0])


def _ago(ms: int) -> str:
    return f"{ms // DAY_MS} days ago" if ms >= 2 * DAY_MS else f"{ms / 3_600_000:.1f} hours ago"
