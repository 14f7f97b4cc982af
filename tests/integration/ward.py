"""For tests of the doctor: one examination, and how its findings are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from redis import Redis

from cancelq.contract import Lane
from cancelq_worker.doctor.checkup import examine
from cancelq_worker.doctor.findings import Finding, Level, Report
from cancelq_worker.doctor.patient import Patient
from cancelq_worker.settings import Settings


async def examined(
    redis_url: str, env: Mapping[str, str] | None = None, *, lanes: Sequence[str] = (), offline: bool = True
) -> Report:
    """What `cancelq doctor` finds with these settings."""
    settings = Settings.load(None, {"CANCELQ_REDIS_URL": redis_url, **(env or {})}, need_keys=False)
    patient = Patient(settings, [Lane.parse(lane) for lane in lanes], offline=offline)
    try:
        return await examine(patient)
    finally:
        await patient.close()


def the(report: Report, check: str, subject: str | None = None) -> Finding:
    """The one finding of a check."""
    found = [one for one in report.findings if one.check == check and subject in (None, one.subject)]
    assert len(found) == 1, f"{len(found)} findings of {check}: {found}"
    return found[0]


def at(report: Report, level: Level) -> dict[str, str]:
    """The checks that came to this, and what they told."""
    return {one.check: one.told for one in report.findings if one.level is level}


@contextmanager
def changed(client: Redis, **config: str) -> Iterator[None]:
    """The server's settings (`_` for `-`), as long as the block runs."""
    named = {name.replace("_", "-"): value for name, value in config.items()}
    before: Mapping[Any, Any] = client.config_get(*named)
    for name, value in named.items():
        client.config_set(name, value)
    try:
        yield
    finally:
        for name in named:
            client.config_set(name, before[name])


def empty_lane(client: Redis, lane: Lane) -> Lane:
    """A lane as a worker would have made it, with nobody serving it now."""
    for stream in (lane.inbox, lane.results):
        client.xgroup_create(stream, "g", mkstream=True)
        client.xgroup_destroy(stream, "g")
    return lane
