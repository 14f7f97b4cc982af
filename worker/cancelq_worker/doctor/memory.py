"""The server's memory: whether it would drop intents, how full it is, when it will be full."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cancelq_worker.doctor.findings import About, Finding
from cancelq_worker.doctor.patient import Patient, Server, asked
from cancelq_worker.growth import Growth, growth

WARN_SHARE, FAIL_SHARE = 0.80, 0.95
WARN_HOURS, FAIL_HOURS = 72.0, 6.0


async def eviction(p: Patient, s: Server) -> list[Finding]:
    about = About("memory.eviction", s.subject)
    policy = str((await s.info()).get("maxmemory_policy") or (await s.config()).get("maxmemory-policy", "?"))
    if policy != "noeviction":
        return [
            about.fail(
                f"maxmemory-policy {policy}: the server drops accepted intents when its memory is full",
                "set it: redis-cli CONFIG SET maxmemory-policy noeviction, and in the server's configuration file",
                policy=policy,
            )
        ]
    return [about.ok("maxmemory-policy noeviction", policy=policy)]


async def headroom(p: Patient, s: Server) -> list[Finding]:
    return [judge_headroom(await s.info(), s.subject)]


def judge_headroom(info: Mapping[str, Any], subject: str = "server") -> Finding:
    about = About("memory.headroom", subject)
    used, most = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    machine = int(info.get("total_system_memory", 0))
    facts: dict[str, Any] = {"used_bytes": used, "most_bytes": most or None}
    if not most:
        whole = f" of the machine's {_mib(machine)}" if machine else ""
        return about.warn(
            f"{_mib(used)} used{whole}, and no maxmemory: the system ends the server when its memory is full",
            "set maxmemory to what the server may use; then it refuses new intents loudly instead",
            **facts,
        )
    share = used / most
    line = f"{_mib(used)} of {_mib(most)} used ({share:.0%})"
    if share >= FAIL_SHARE:
        remedy = "raise maxmemory, or archive and trim results (cancelq archive); settling goes on meanwhile"
        what = "new intents are refused" if used >= most else "soon new intents are refused"
        return about.fail(f"{line}: {what}", remedy, **facts)
    if share >= WARN_SHARE:
        return about.warn(line, "raise maxmemory, or archive and trim results: cancelq archive", **facts)
    return about.ok(line, **facts)


async def forecast(p: Patient, s: Server) -> list[Finding]:
    """When memory is full at the pace of the last hour."""
    about = About("memory.forecast", s.subject)
    lanes = [lane for lane in await p.found() if await p.holds(s, lane)]
    if not lanes:
        return [about.ok("no lane yet, so nothing grows")]
    return [judge_forecast(await asked(growth(s.redis, lanes)), p.settings.results_keep_days, s.subject)]


def judge_forecast(grown: Growth, keep_days: int, subject: str = "server") -> Finding:
    about = About("memory.forecast", subject)
    hours = grown.full_in_h
    facts: dict[str, Any] = {"full_in_h": None if hours is None else round(hours, 1)}
    if hours is None:
        why = "there is no maxmemory" if grown.memory_most is None else "nothing came in the last hour"
        return about.ok(f"no time at which memory would be full: {why}", **facts)
    line = f"at the pace of the last hour memory is full in {_hours(hours)}, if nothing is trimmed"
    if hours > keep_days * 24:
        return about.ok(f"{line}; results are trimmed after {keep_days} days", **facts)
    remedy = f"raise maxmemory, archive (cancelq archive), or keep results less long (results_keep_days {keep_days})"
    if hours < FAIL_HOURS:
        return about.fail(line, remedy, **facts)
    if hours < WARN_HOURS:
        return about.warn(line, remedy, **facts)
    return about.ok(line, **facts)


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB" if size >= 10 * 2**20 else f"{size / 2**20:,.1f} MiB"


def _hours(hours: float) -> str:
    return f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:,.0f} days"
