"""`cancelq jobs`: an RQ worker for the queue `cancelq`, and the trigger beside it.

One queue per process, JSON only, jobs from the table only, never RQ's own scheduler. INT and TERM end it after the job
in hand, HUP has it start again with the settings read anew.
"""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import structlog
from redis.client import Pipeline
from redis.exceptions import RedisError
from rq import Queue, SimpleWorker
from rq.exceptions import StopRequested
from rq.serializers import JSONSerializer
from rq.suspension import is_suspended
from rq.worker import WorkerStatus

from cancelq.rq import QUEUE
from cancelq_worker.exits import Exit
from cancelq_worker.jobs.guarded import RESULT_TTL_S, Duty, GuardedJob
from cancelq_worker.jobs.table import table_of
from cancelq_worker.jobs.trigger import Ticking, Trigger, periods_of
from cancelq_worker.rq_worker import rq_connection, worker_name
from cancelq_worker.settings import Settings, SettingsError

log = structlog.get_logger("cancelq.jobs")

# RQ forgets a worker that died without a word 60 s after this many seconds without a heartbeat.
WORKER_TTL_S = 30
# How often abandoned jobs are looked for.
MAINTENANCE_S = 30
DEQUEUE_S = 2
# After RQ's own loop gave up over its server.
AGAIN_AFTER_S = 1.0


def run(settings: Settings) -> bool:
    """Runs jobs until INT or TERM; true if HUP asked to start again with new settings.

    Raises `SettingsError` where RQ cannot run on the server that is configured, `RedisError` where that server is down
    or refuses this user at the start; later it is waited for.
    """
    if any(settings.account(lane).api_key.get_secret_value() for lane in settings.lanes):
        log.warning("this process was given exchange keys, and needs none: start it without them")
    table = table_of(settings)
    job_class = type("CancelqJob", (GuardedJob,), {"table": table})
    ticking = Ticking(_trigger(settings, job_class, table))
    session = _Session(settings)
    with session.heeding_signals():
        try:
            worker = session.worker = _worker(settings, job_class)
            _require_rights(worker)
            ticking.start()
            while not worker.stop_wished:
                _work(worker)
                if not worker.stop_wished:
                    ended, worker = worker, _again(settings, job_class)
                    worker.stop_wished, session.worker = ended.stop_wished, worker
        except StopRequested:
            _sign_off(session.worker)
        finally:
            if ticking.is_alive():
                ticking.stop()
    return session.restart_wanted


def _require_rights(worker: JobsWorker) -> None:
    """Raises NoPermissionError where this user of RQ's server may be no worker: RQ would be begun again for ever."""
    is_suspended(worker.connection)
    worker.connection.hdel(worker.key, "nothing")


def _work(worker: JobsWorker) -> None:
    try:
        worker.work(logging_level=None)
    except RedisError as error:  # RQ signs its worker off, whatever ended it
        log.warning("RQ was not told that this worker ended; it forgets it by itself", cause=str(error))


def _sign_off(worker: JobsWorker | None) -> None:
    """After a signal that came while RQ was not in its loop."""
    if worker is None:
        return
    try:
        worker.teardown()  # type: ignore[no-untyped-call]  # RQ leaves it unannotated
    except RedisError as error:
        log.warning("RQ was not told that this worker ended; it forgets it by itself", cause=str(error))


def _worker(settings: Settings, job_class: type[GuardedJob]) -> JobsWorker:
    return JobsWorker(
        [QUEUE],
        name=worker_name(),
        connection=rq_connection(settings),
        job_class=job_class,
        serializer=JSONSerializer,
        default_result_ttl=RESULT_TTL_S,
        worker_ttl=WORKER_TTL_S,
        maintenance_interval=MAINTENANCE_S,
        log_job_description=False,
    )


def _again(settings: Settings, job_class: type[GuardedJob]) -> JobsWorker:
    """A worker in the place of one that RQ ended; waits for RQ's server as long as it takes."""
    log.error("RQ's loop ended, probably over its server; it is begun again")
    while True:
        time.sleep(AGAIN_AFTER_S)
        try:
            return _worker(settings, job_class)
        except RedisError as error:
            log.warning("RQ's server cannot be reached", cause=str(error))


def _trigger(settings: Settings, job_class: type[GuardedJob], table: Mapping[str, Duty]) -> Trigger:
    queue = Queue(QUEUE, connection=rq_connection(settings), job_class=job_class, serializer=JSONSerializer)
    return Trigger(queue, list(periods_of(settings.jobs, table)), table)


class JobsWorker(SimpleWorker):
    """RQ's worker, held to one queue, to JSON and to jobs of the table. Jobs run in this process, one at a time."""

    stop_wished: bool = False
    # RQ waits up to a minute before it asks a server that was away again.
    max_connection_wait_time = 4.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        guarded = isinstance(self.job_class, type) and issubclass(self.job_class, GuardedJob)
        if not guarded or self.serializer is not JSONSerializer or self.queue_names() != [QUEUE]:
            logging.getLogger("rq.worker").handlers.clear()
            print(
                f"error: jobs of the queue {QUEUE} are run by `cancelq jobs` alone, not by `rq worker`", file=sys.stderr
            )
            raise SystemExit(Exit.USAGE)

    def work(self, *args: Any, with_scheduler: bool = False, **kwargs: Any) -> bool:
        """As RQ's. Raises `SettingsError` for `with_scheduler`: orphaned by a crash, RQ's scheduler swallows jobs."""
        if with_scheduler:
            raise SettingsError(["the jobs run without RQ's scheduler; periodic jobs stand in the settings ([jobs.…])"])
        return super().work(*args, **kwargs)

    @property
    def dequeue_timeout(self) -> int:
        """Seconds that one read waits for a job, and so the most by which `heartbeat` sees a wish to stop late."""
        return DEQUEUE_S

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """As RQ's. RQ stops by an exception that its signal handler raises; where that comes while a line is logged, it
        is swallowed, so the wish is looked at here once more. Raises `StopRequested`."""
        if self.stop_wished and self.get_state() != WorkerStatus.BUSY:
            raise StopRequested
        super().heartbeat(timeout, pipeline)

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        """Ends the loop after the job in hand."""
        self.stop_wished = True
        super().request_stop(signum, frame)  # type: ignore[no-untyped-call]  # RQ leaves it so


class _Session:
    """One run under signals: HUP wants a restart; INT and TERM are RQ's while it is in its loop, and end the run before
    and between."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.worker: JobsWorker | None = None
        self.restart_wanted = False

    @contextmanager
    def heeding_signals(self) -> Iterator[None]:
        """In the main thread only."""
        handlers = {signal.SIGHUP: self._reread, signal.SIGINT: self._end, signal.SIGTERM: self._end}
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self.restart_wanted = False
        if self.worker is not None:
            self.worker.stop_wished = True
        raise StopRequested

    def _reread(self, number: int, frame: FrameType | None) -> None:
        if self.worker is not None and self.worker.stop_wished and not self.restart_wanted:
            return  # it is to end after the job in hand, and not to begin anew
        try:
            self._settings.again()
        except SettingsError as error:
            log.error("HUP: the new settings cannot be used, the old ones stay", problems=error.problems)
            return
        self.restart_wanted = True
        if self.worker is None:
            raise StopRequested
        self.worker.request_stop(number, frame)
