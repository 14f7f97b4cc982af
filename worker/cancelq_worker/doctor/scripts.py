"""Whether the scripts that everything runs on are there, are ours, and may be run."""

from __future__ import annotations

import time
from typing import Any

from cancelq_worker.doctor.findings import About, Finding
from cancelq_worker.doctor.patient import Patient, Server, asked
from cancelq_worker.roster import FRESH_MS, ROSTER
from cancelq_worker.scripts import SCRIPTS
from cancelq_worker.snapshot import workers_alive
from cancelq_worker.trips import command


async def loaded(p: Patient, s: Server) -> list[Finding]:
    """Asked before any check runs one: those would load what is missing."""
    about = About("scripts.loaded", s.subject)
    names = list(SCRIPTS.sha)
    there = await asked(command(s.redis, "SCRIPT", "EXISTS", *SCRIPTS.sha.values()))
    missing = [name for name, known in zip(names, there, strict=True) if not known]
    alive = await asked(command(s.redis, "ZCOUNT", ROSTER, int(time.time() * 1000) - 2 * FRESH_MS, "+inf"))
    facts: dict[str, Any] = {"missing": missing}
    if not missing:
        return [about.ok(f"all {len(names)} scripts of this version are loaded", **facts)]
    if not alive:
        return [about.ok("workers load the scripts when they start; none is alive now", **facts)]
    return [
        about.warn(
            f"workers are alive, and {len(missing)} of {len(names)} scripts of this version are not loaded: these "
            "workers are of another version, or the scripts were flushed a moment ago",
            "run workers and tools of one version; do not use SCRIPT FLUSH",
            **facts,
        )
    ]


async def runnable(p: Patient, s: Server) -> list[Finding]:
    about = About("scripts.runnable", s.subject)
    alive = await asked(workers_alive(s.redis))
    return [about.ok(f"scripts run; live workers: {', '.join(alive) or 'none'}", workers=alive)]
