"""What makes jobs run by themselves: once per period over all processes, and again after a failure that may pass.

RQ has parts for both, and neither can be used: its scheduler, orphaned by a crash of its worker, swallows jobs; its
cron pickles and has no leader. Here a period is fired by one transaction on RQ's server, in which the job is queued and
the period noted, so no crash comes between the two. The clock is that server's.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import structlog
from redis import Redis
from redis.exceptions import RedisError, WatchError
from rq import Queue, Retry
from rq.suspension import is_suspended

from cancelq.contract import Lane
from cancelq_worker.jobs.guarded import FAILURE_TTL_S, RESULT_TTL_S, RETRY_AFTER_S, Duty
from cancelq_worker.settings_jobs import DAY_MS, Jobs

log = structlog.get_logger("cancelq.jobs")

TICK_S = 1.0
# How long a period that was not taken up may wait: a job of last hour's sweep is of no use.
WAITS_LEAST_S = 60


@dataclass(frozen=True, slots=True)
class Period:
    """One job of one lane, in every period of `every_ms` since the epoch."""

    job: str
    lane: Lane
    every_ms: int

    @property
    def function(self) -> str:
        """Its name in the table."""
        return f"cancelq.jobs.{self.job}"

    @property
    def key(self) -> str:
        """Where RQ's server keeps which period was fired last."""
        return f"cancelq:jobs:{self.job}:{self.lane}"

    def job_id(self, begun_ms: int) -> str:
        """The id of the job of the period that began then: the same whoever fires it."""
        return f"{self.job}-{self.lane.venue}-{self.lane.account}-{begun_ms}"


def periods_of(jobs: Jobs, table: Mapping[str, Duty]) -> Iterator[Period]:
    """What the settings want to run by itself. A job that is not in the table is told and left out."""
    for name, lane, periodic in jobs.periods():
        period = Period(name, lane, periodic.every)
        if period.function in table:
            yield period
        else:
            log.error("this version has no such job; it never runs", job=name, lane=str(lane))


class Trigger:
    """Fires periods and takes up retries, at every `tick`. Any number of processes may do so at once."""

    def __init__(self, queue: Queue, periods: list[Period], table: Mapping[str, Duty]) -> None:
        self._queue = queue
        self._connection: Redis = queue.connection
        self._periods = periods
        self._table = table

    def tick(self) -> list[str]:
        """One look at the clock; ids of the jobs that were queued. While RQ is suspended nothing is fired, and what
        was missed by then is caught up once. Raises RedisError."""
        if is_suspended(self._connection):
            return []
        seconds, us = self._connection.time()
        now_ms = seconds * 1000 + us // 1000
        fired = [job_id for period in self._periods if (job_id := self._fire(period, now_ms))]
        return fired + self._take_up_retries()

    def _fire(self, period: Period, now_ms: int) -> str | None:
        """Queues the job of the current period if nobody has yet; periods before it are not made up for."""
        begun_ms = now_ms - now_ms % period.every_ms
        with self._connection.pipeline() as pipe:
            pipe.watch(period.key)  # type: ignore[no-untyped-call]  # redis-py leaves it so
            last = cast("bytes | None", pipe.get(period.key))
            # A note from the future was made by a clock that has gone back since.
            if last is not None and begun_ms <= int(last) <= now_ms:
                return None
            pipe.multi()
            job_id = period.job_id(begun_ms)
            self._queue.enqueue_call(
                period.function,
                args=[str(period.lane), begun_ms],
                timeout=self._table[period.function].timeout_s,
                result_ttl=RESULT_TTL_S,
                failure_ttl=FAILURE_TTL_S,
                ttl=max(WAITS_LEAST_S, period.every_ms // 1000),
                description=f"{period.job} {period.lane}",
                job_id=job_id,
                retry=Retry(len(RETRY_AFTER_S), list(RETRY_AFTER_S)),
                pipeline=pipe,
            )
            pipe.set(period.key, begun_ms, px=2 * period.every_ms + DAY_MS)
            try:
                pipe.execute()
            except WatchError:
                return None  # another process was first
        log.info("queued", job=job_id)
        return job_id

    def _take_up_retries(self) -> list[str]:
        """Queues what waited for its next try: RQ leaves that to its scheduler, which does not run here."""
        registry = self._queue.scheduled_job_registry
        taken_up = []
        for job_id in registry.get_jobs_to_schedule(chunk_size=100):
            with self._connection.pipeline() as pipe:
                pipe.watch(registry.key)  # type: ignore[no-untyped-call]
                if pipe.zscore(registry.key, job_id) is None:
                    continue
                job = self._queue.fetch_job(job_id)
                pipe.multi()
                registry.remove(job_id, pipeline=pipe)
                if job is not None:
                    self._queue.enqueue_job(job, pipeline=pipe)
                try:
                    pipe.execute()
                except WatchError:
                    continue
            taken_up.append(job_id)
        return taken_up


class Ticking(threading.Thread):
    """Ticks until stopped; a thread, because the worker waits for jobs. Trouble is told when it begins and ends."""

    def __init__(self, trigger: Trigger) -> None:
        super().__init__(name="jobs-trigger", daemon=True)
        self._trigger = trigger
        self._ended = threading.Event()

    def stop(self) -> None:
        """Returns when no tick is under way any more."""
        self._ended.set()
        self.join(5.0)

    def run(self) -> None:
        trouble = ""
        while not self._ended.is_set():
            try:
                self._trigger.tick()
                told = ""
            except RedisError as error:
                told = f"{type(error).__name__}: {error}"
            except Exception:
                # Without ticks no job would run by itself, unseen: no surprise may end them.
                log.exception("a tick failed")
                told = trouble
            if told and told != trouble:
                log.error("RQ's server does not answer; no job is fired meanwhile", cause=told)
            elif trouble and not told:
                log.info("RQ's server answers again")
            trouble = told
            self._ended.wait(TICK_S)
