"""The settings: what they name, and what stands in the way of using them."""

from __future__ import annotations

from cancelq_worker.doctor.findings import About, Finding
from cancelq_worker.doctor.keys import without_key
from cancelq_worker.doctor.patient import Patient
from cancelq_worker.exits import Exit
from cancelq_worker.settings import SettingsError
from cancelq_worker.venues.registry import KINDS


def problems(error: SettingsError) -> list[Finding]:
    """Settings that cannot be used: nothing else can be looked at."""
    about = About("settings.valid", "settings")
    return [about.fail(*_parted(problem), Exit.CONFIGURATION) for problem in error.problems]


def _parted(problem: str) -> tuple[str, str]:
    """A problem and its remedy, which stands behind the last semicolon."""
    told, _, remedy = problem.rpartition("; ")
    return (told, remedy) if told else (problem, "correct it there")


async def accounts(p: Patient) -> list[Finding]:
    settings = p.settings
    about = About("settings.valid", "settings")
    if not settings.lanes:
        return [about.ok("no account is configured here: the lanes on the server are looked at, and no key")]
    keyed = [lane for lane in settings.lanes if not without_key(p, lane)]
    lanes = "1 lane" if len(settings.lanes) == 1 else f"{len(settings.lanes)} lanes"
    told = f"{lanes} configured, {len(keyed)} with all of their keys; no key stands twice"
    return [about.ok(told, lanes=[str(lane) for lane in settings.lanes]), *_places(p)]


def _places(p: Patient) -> list[Finding]:
    """Accounts that do not call the venue itself."""
    findings = []
    for lane in p.configured:
        account, place = p.settings.account(lane), KINDS[lane.venue].place
        kind = "the venue's demo" if account.demo else "the venue's testnet" if account.testnet else ""
        if not kind and account.base_url != place.base_url:
            kind = f"{account.base_url}, not the venue itself"
        about = About("settings.place", str(lane))
        findings.append(about.ok(f"calls {kind or account.base_url}", base_url=account.base_url))
    return findings
