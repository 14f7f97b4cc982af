"""The list of what `cancelq jobs` runs, by the names that jobs carry. They are names, not import paths.

Each function gets the job's id first. All of them may be run twice: what they ask for has ids that follow from their
arguments, or is asked for only where it is still missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TypeVar

from redis import Redis

from cancelq import Client
from cancelq.broker import client
from cancelq.contract import Lane
from cancelq.link import options
from cancelq.rq import SUBMIT, Door
from cancelq_worker.flatten import Flattening, Wish
from cancelq_worker.jobs import redrive
from cancelq_worker.jobs.guarded import TIMEOUT_MOST_S, Duty
from cancelq_worker.jobs.reconcile import reconcile
from cancelq_worker.operate import UnknownLane
from cancelq_worker.settings import Settings, SettingsError
from cancelq_worker.settings_jobs import DAY_MS, Periodic
from cancelq_worker.trips import connect

try:
    from cancelq_worker.archive.archiver import Archiver, Options
except ModuleNotFoundError:
    CAN_ARCHIVE = False  # pyarrow comes with the extra `archive`
else:
    CAN_ARCHIVE = True

PREFIX = "cancelq.jobs."
FLATTEN_S = 120.0
TIMEOUT_S = 5.0

PeriodicT = TypeVar("PeriodicT", bound=Periodic)


class NotEmpty(Exception):
    """The lane was not emptied: what is still open, and why."""


def table_of(settings: Settings) -> Mapping[str, Duty]:
    """The table of one process."""
    duties = _Duties(settings)
    archive = {PREFIX + "archive": Duty(duties.archive, timeout_s=TIMEOUT_MOST_S)} if CAN_ARCHIVE else {}
    return {
        SUBMIT: Duty(duties.submit, timeout_s=30),
        PREFIX + "sweep": Duty(duties.sweep, timeout_s=30),
        PREFIX + "reconcile": Duty(duties.reconcile, timeout_s=120),
        PREFIX + "redrive": Duty(duties.redrive, timeout_s=120),
        PREFIX + "flatten": Duty(duties.flatten, timeout_s=int(FLATTEN_S) + 30),
        **archive,
    }


class _Duties:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._url = settings.redis_url

    def submit(self, job_id: str, lane: str, fields: Mapping[str, object]) -> str:
        with self._lanes_server() as redis, Client(redis) as asking:
            return Door(asking, self._settings.lanes_open_to_rq).submit(job_id, lane, fields)

    def sweep(self, job_id: str, lane: str, begun_ms: int) -> str:
        """One intent for what is older than the settings want, under an id that follows from the period."""
        asked = Lane.parse(lane)
        fields = _of_lane(self._settings.jobs.sweep, "sweep", asked).fields(begun_ms)
        with self._lanes_server() as redis, Client(redis) as asking:
            return asking.submit(asked, fields).id

    def reconcile(self, job_id: str, lane: str, begun_ms: int) -> dict[str, int]:
        asked = Lane.parse(lane)
        wanted = _of_lane(self._settings.jobs.reconcile, "reconcile", asked)
        turn = begun_ms // wanted.every
        with self._lanes_server() as redis:
            _require(redis, asked)
            return asdict(reconcile(redis, asked, since_ms=_now_ms(redis) - wanted.within, turn=turn))

    def redrive(
        self, job_id: str, lane: str, ids: Sequence[str] = (), within_ms: int = DAY_MS, actor: str = ""
    ) -> dict[str, object]:
        """Sends again what ended as `unresolved`, within `within_ms` or under one of `ids`."""
        asked = Lane.parse(lane)
        with self._lanes_server() as redis:
            since_ms = 0 if ids else _now_ms(redis) - within_ms
            wanted = redrive.plan(redis, asked, since_ms=since_ms, ids=tuple(ids))
            redrive.send(redis, wanted, actor or f"job-{job_id}")
        return {"sent": {old: entry["id"] for old, entry in wanted.again.items()}, "left": wanted.left}

    def archive(self, job_id: str, lane: str, begun_ms: int = 0) -> dict[str, object]:
        """Moves results to the folder `archive_dir`, verified, then trims; goes on where the last run stood."""
        asked, folder = Lane.parse(lane), self._settings.archive_dir
        if folder is None:
            raise SettingsError(["an archive needs a folder; set archive_dir"])
        with self._lanes_server() as redis:
            done = Archiver(redis, asked, folder, Options()).run()
        return {"segments": done.segments, "events": done.events, "trimmed": done.trimmed, "notes": done.notes}

    async def flatten(
        self,
        job_id: str,
        lane: str,
        symbol: str | None = None,
        client_prefix: str | None = None,
        orders_only: bool = False,
        actor: str = "",
    ) -> dict[str, object]:
        """The kill switch as a job. Raises `NotEmpty` where something is still open at the end."""
        redis = connect(self._url)
        try:
            wish = Wish(Lane.parse(lane), symbol, client_prefix, orders_only)
            run = Flattening(redis, wish, actor or f"job-{job_id}", "flatten")
            report = await run.run(within_s=FLATTEN_S)
        finally:
            await redis.aclose()
        if not report.empty:
            raise NotEmpty(f"{report.still_open} still open; {'; '.join(report.problems)}")
        return {"cancelled": report.cancelled, "bulk_calls": report.bulk_calls, "rounds": report.rounds}

    @contextmanager
    def _lanes_server(self) -> Iterator[Redis]:
        """A client of the lanes' server, for one job: never RQ's, whose time-outs RQ changes."""
        redis = client(self._url, heeding=True, **options(TIMEOUT_S))
        try:
            yield redis
        finally:
            redis.close()


def _of_lane(by_venue: Mapping[str, Mapping[str, PeriodicT]], job: str, lane: Lane) -> PeriodicT:
    found = by_venue.get(lane.venue, {}).get(lane.account)
    if found is None:
        raise SettingsError([f"{lane} has no {job}; add [jobs.{job}.{lane.venue}.{lane.account}]"])
    return found


def _require(redis: Redis, lane: Lane) -> None:
    if not redis.exists(lane.inbox):
        raise UnknownLane(lane)


def _now_ms(redis: Redis) -> int:
    seconds, us = redis.time()
    return seconds * 1000 + us // 1000
