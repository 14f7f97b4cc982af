"""Whether what was accepted outlives the server: its append-only file, its snapshots, its disk."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cancelq_worker.doctor.findings import About, Finding
from cancelq_worker.doctor.patient import Patient, Server, Untold

#: Free space that a disk should have, as a share of it and as a multiple of what the server keeps there.
FREE_SHARE, FREE_TIMES = 0.10, 2
FREE_LEAST = 64 * 2**20
LOG_TAIL = 262_144
_TRUNCATED = re.compile(
    r"short read while loading the AOF|AOF loaded anyway because aof-load-truncated|Truncating the AOF", re.I
)
_STARTED = re.compile(r"Server initialized|oO0OoO0OoO0Oo .* is starting", re.I)
_CONFIG_SET = "redis-cli CONFIG SET {}, and the same in the server's configuration file"


async def append_only(p: Patient, s: Server) -> list[Finding]:
    about, info = About("durability.aof", s.subject), await s.info()
    if not int(info.get("aof_enabled", 0)):
        return [
            about.fail(
                "appendonly no: a restart of the server loses every intent and every result",
                f"set it: {_CONFIG_SET.format('appendonly yes')}",
            )
        ]
    return [about.ok("appendonly yes")]


async def fsync(p: Patient, s: Server) -> list[Finding]:
    about = About("durability.fsync", s.subject)
    if not int((await s.info()).get("aof_enabled", 0)):
        return []  # told already
    config = await s.config()
    how = config.get("appendfsync", "?")
    remedy = f"set it: {_CONFIG_SET.format('appendfsync always')}"
    if how == "everysec":
        told = (
            "appendfsync everysec: a power cut loses what was accepted in the last second or two (2,671 and 3,808 "
            "entries in two simulated ones; with always none)"
        )
        return [about.warn(told, remedy, appendfsync=how)]
    if how != "always":
        told = f"appendfsync {how}: a power cut loses what the system has not written yet, half a minute and more"
        return [about.fail(told, remedy, appendfsync=how)]
    if config.get("no-appendfsync-on-rewrite") == "yes":
        told = "no-appendfsync-on-rewrite yes: while the file is rewritten, nothing is surely on disk"
        return [about.warn(told, f"set it: {_CONFIG_SET.format('no-appendfsync-on-rewrite no')}", appendfsync=how)]
    return [about.ok("appendfsync always: every write is on disk before it is answered", appendfsync=how)]


async def writes(p: Patient, s: Server) -> list[Finding]:
    """What the server says of its last writes to disk."""
    info = await s.info()
    return [judge_writes(info), judge_rewrites(info), await _snapshots(s, info)]


def judge_writes(info: Mapping[str, Any], subject: str = "server") -> Finding:
    about = About("durability.writes", subject)
    if info.get("aof_last_write_status", "ok") != "ok":
        return about.fail(
            "the last write to the append-only file failed: the server refuses all writes (MISCONF)",
            "make room on its disk, or mend it; it goes on by itself",
        )
    return about.ok("the last write to disk went well")


def judge_rewrites(info: Mapping[str, Any], subject: str = "server") -> Finding:
    about = About("durability.rewrites", subject)
    if info.get("aof_last_bgrewrite_status", "ok") != "ok":
        return about.warn(
            "the last rewrite of the append-only file failed: the file grows without end",
            "see the server's log: mostly there is too little memory (vm.overcommit_memory = 1) or disk",
        )
    return about.ok("the append-only file can be rewritten")


async def _snapshots(s: Server, info: Mapping[str, Any]) -> Finding:
    about = About("durability.snapshots", s.subject)
    if info.get("rdb_last_bgsave_status", "ok") == "ok":
        return about.ok("the last snapshot went well, or none was made")
    remedy = 'see the server\'s log; without snapshots (save "") the append-only file alone is enough'
    try:
        config = await s.config()
    except Untold:
        return about.warn("the last snapshot failed: the server may refuse writes for it (MISCONF)", remedy)
    if config.get("save") and config.get("stop-writes-on-bgsave-error") == "yes":
        return about.fail("the last snapshot failed: the server refuses all writes for it (MISCONF)", remedy)
    return about.warn("the last snapshot failed", remedy)


async def truncated(p: Patient, s: Server) -> list[Finding]:
    """Whether the file had lost its end when the server loaded it. No command tells, only the server's log."""
    about = About("durability.truncated", s.subject)
    if not await s.here():
        return [about.unknown("whether the append-only file was cut off when it was loaded stands in the server's log")]
    config = await s.config()
    log = _log_text(config)
    if log is None:
        return [about.unknown("the server's log cannot be read here: it would tell if its file was cut off at loading")]
    if not _TRUNCATED.search(log):
        return [about.ok("the server's log tells of no file that was cut off at loading")]
    return [
        about.warn(
            "the append-only file was cut off when the server loaded it: what was written last is gone",
            "cancelq audit shows what is missing; feed what was asked in the last second before the crash again",
        )
    ]


def _log_text(config: Mapping[str, str]) -> str | None:
    """What the log tells since the server's last start, as far as its last part reaches; None if it cannot be read."""
    name = config.get("logfile")
    if not name:
        return None
    path = Path(config.get("dir", "/")) / name
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_TAIL))
            text = file.read(LOG_TAIL).decode(errors="replace")
    except OSError:
        return None
    starts = [found.start() for found in _STARTED.finditer(text)]
    # A start is told by two lines.
    return text[starts[-2] if len(starts) > 1 else starts[-1] :] if starts else text


async def disk(p: Patient, s: Server) -> list[Finding]:
    """The room on the server's disk, where that is ours too."""
    about = About("durability.disk", s.subject)
    if not await s.here():
        return [about.unknown("the room on the server's disk can be seen on its own machine only")]
    folder = (await s.config()).get("dir", "")
    try:
        room = os.statvfs(folder)
    except OSError:
        return [about.unknown(f"the server's folder {folder} cannot be seen from here")]
    info = await s.info()
    kept = int(info.get("aof_current_size", 0)) + int(info.get("used_memory", 0))
    return [judge_disk(folder, room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize, kept)]


def judge_disk(folder: str, free: int, size: int, kept: int, subject: str = "server") -> Finding:
    """`kept`: the bytes that the server keeps there, and would write anew in a rewrite."""
    about = About("durability.disk", subject)
    told = f"{_gib(free)} free of {_gib(size)} in {folder}"
    facts: dict[str, Any] = {"free_bytes": free, "size_bytes": size, "kept_bytes": kept}
    remedy = "make room: when the disk is full, the server refuses all writes, and nothing is sent"
    if free < FREE_LEAST:
        return about.fail(told, remedy, **facts)
    if free < FREE_SHARE * size or free < FREE_TIMES * kept:
        return about.warn(told, remedy, **facts)
    return about.ok(told, **facts)


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
