"""The worker as RQ sees it: registered, listed by `rq info`, held by `rq suspend`, ended by TERM.

Cancels do not travel as RQ jobs. What runs here is the engine, an asyncio program that knows nothing of RQ;
this adapter registers it on one RQ queue per lane (`lane:VENUE:ACCOUNT`), keeps its heartbeat, tells it when RQ
is suspended and turns signals into its stop event. Nothing that must be true depends on RQ's server being
there: if it goes away, the engine goes on, and the registration is made again when it is back.

    cancelq worker
    rq worker -w cancelq_worker.rq_worker.LaneWorker lane:bitget:main -u redis://…
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from types import FrameType
from typing import Any, Protocol

import structlog
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import OutOfMemoryError, RedisError
from redis.retry import Retry
from rq import Queue, worker_registration
from rq.defaults import DEFAULT_LOGGING_DATE_FORMAT, DEFAULT_LOGGING_FORMAT
from rq.exceptions import NoSuchJobError
from rq.job import Job, JobStatus
from rq.results import Result
from rq.serializers import JSONSerializer
from rq.suspension import WORKERS_SUSPENDED, is_suspended
from rq.worker import BaseWorker, DequeueStrategy, WorkerStatus

from cancelq.broker import Broker, client
from cancelq.contract import Lane
from cancelq.errors import LaneError
from cancelq_worker import logs, redaction, wiring
from cancelq_worker.exits import Exit
from cancelq_worker.private_memory import keep_memory_private
from cancelq_worker.rotation import restart_for
from cancelq_worker.settings import Settings, SettingsError

new_loop: Callable[[], asyncio.AbstractEventLoop]
try:
    from uvloop import new_event_loop as new_loop
except ImportError:  # no build for this platform: slower, nothing else
    new_loop = asyncio.new_event_loop

log = structlog.get_logger(__name__)

QUEUE_PREFIX = "lane:"
# One beat asks whether RQ is suspended, so this bounds how late `rq suspend` is seen, too.
BEAT_S = 0.4
# RQ stretches its clients' socket time-out to minutes, for its blocking reads; nothing here blocks. Short enough
# that a server which swallows packets does not keep a drained worker from ending in time.
RQ_SOCKET_TIMEOUT_S = 2.0
# RQ forgets a worker that died without a word 60 s after this many seconds without a heartbeat.
WORKER_TTL_S = 30
# A pool passes the terminal's Ctrl-C on to workers that got it themselves: one wish, two signals.
SAME_WISH_S = 1.0
# How many misplaced jobs of one queue are failed per beat.
MISPLACED_AT_ONCE = 10


class Serve(Protocol):
    """The engine: serves the lanes of `settings`, or of the newest in `fresh`, and returns after draining once `stop`
    is set."""

    def __call__(
        self,
        settings: Settings,
        *,
        worker_name: str,
        stop: asyncio.Event,
        suspended: Callable[[], bool],
        dry_run: bool = False,
        fresh: asyncio.Queue[Settings] | None = None,
    ) -> Coroutine[Any, Any, None]: ...


def run(settings: Settings, *, serve: Serve = wiring.serve) -> bool:
    """Serves every lane of `settings` until TERM or INT; true if HUP asked to start again with new settings. New
    accounts and keys alone need no start: the lanes they concern are opened anew, the others go on.

    Raises `SettingsError` where RQ cannot run on the server that is configured, and `RedisError` where that
    server is down at the start and is also the lanes' own.
    """
    name = worker_name()
    try:
        worker = LaneWorker(
            [queue_name(lane) for lane in settings.lanes],
            name=name,
            connection=rq_connection(settings),
            worker_ttl=WORKER_TTL_S,
            serializer=JSONSerializer,
        )
    except RedisError as error:
        if settings.rq_redis_url is None:
            raise
        log.error("RQ's server cannot be reached: serving without it, unlisted until restarted", cause=str(error))
        return _Session(serve, settings, name, suspended=lambda: False).run()
    worker.settings = settings
    worker.serve = serve
    worker.work()
    return worker.restart_wanted


def rehearse(settings: Settings, *, from_start: bool) -> bool:
    """A dry run of every lane until TERM or INT, not registered with RQ; true if HUP asked to start again."""
    name = f"dryrun-{worker_name()}"
    log.warning("DRY RUN: nothing is sent, and nothing that is told in …:dryrun is real", worker=name)
    serve = partial(wiring.serve, dry_run=True, from_start=from_start)
    return _Session(serve, settings, name, suspended=lambda: False).run()


def worker_name() -> str:
    """A name that no other worker has or had: host, process id and a random part."""
    host = socket.gethostname().split(".", 1)[0] or "host"
    return f"{host}-{os.getpid()}-{secrets.token_hex(3)}"


def queue_name(lane: Lane) -> str:
    """The RQ queue a lane's workers are registered on."""
    return f"{QUEUE_PREFIX}{lane}"


def rq_connection(settings: Settings) -> Redis:
    """A client of RQ's server, not the engine's. Raises `SettingsError` for a server RQ cannot run on."""
    url = settings.rq_redis_url or settings.redis_url
    if Broker.read(url).kind == "cluster":
        what = "names a cluster" if settings.rq_redis_url else "is missing, and redis_url names a cluster"
        raise SettingsError([f"rq_redis_url {what}, on which RQ cannot run; let it name a server of RQ's own"])
    return client(
        url,
        heeding=True,
        driver_info=None,
        socket_timeout=RQ_SOCKET_TIMEOUT_S,
        socket_connect_timeout=RQ_SOCKET_TIMEOUT_S,
    )


def rq_suspended(settings: Settings) -> bool | None:
    """Whether `rq suspend` holds the workers now; None if RQ's server does not say."""
    try:
        with rq_connection(settings) as connection:
            return bool(is_suspended(connection))
    except (RedisError, SettingsError):
        return None


class LaneWorker(BaseWorker):
    """An RQ worker whose work is the engine. Jobs on its queues are failed aloud: its inbox feeds a lane."""

    # Left out (as under `rq worker`), they are read from the environment and the file CANCELQ_CONFIG names.
    settings: Settings | None = None
    serve: Serve = staticmethod(wiring.serve)
    # After `work`: HUP came, and the settings it asked to read again are valid.
    restart_wanted: bool = False

    def work(
        self,
        burst: bool = False,
        logging_level: str | None = None,
        date_format: str = DEFAULT_LOGGING_DATE_FORMAT,
        log_format: str = DEFAULT_LOGGING_FORMAT,
        max_jobs: int | None = None,
        max_idle_time: int | None = None,
        with_scheduler: bool = False,
        dequeue_strategy: DequeueStrategy = DequeueStrategy.DEFAULT,
        **_: object,
    ) -> bool:
        """Serves until TERM or INT, and returns false, as no job was done.

        A lane never runs empty for good and has no jobs to count or schedule, so of these keywords only those
        of logging are heeded. Raises whatever the engine raised.
        """
        settings = self.settings or _own_settings(self.queue_names())
        _hurry(self.connection)
        try:
            self.bootstrap(logging_level, date_format, log_format)
        except OutOfMemoryError:  # the lanes are drained all the same; a beat registers it once there is memory
            self.subscribe()  # type: ignore[no-untyped-call]  # RQ leaves it unannotated
        pulse = _Pulse(self)
        session = _Session(self.serve, settings, self.name, suspended=pulse.suspended, changed=pulse.serve_lanes)
        try:
            pulse.first_beat()
            pulse.start()
            self.restart_wanted = session.run()
        finally:
            pulse.stop()
            self._leave()
        return False

    def _leave(self) -> None:
        try:
            self.teardown()  # type: ignore[no-untyped-call]  # RQ leaves it unannotated
        except RedisError as error:
            log.warning("RQ was not told that this worker ended; it forgets it by itself", cause=str(error))


def _own_settings(queue_names: Iterable[str]) -> Settings:
    """The settings a worker that `rq worker` started reads by itself, narrowed to the lanes of its queues.

    Exits with code 78 where they cannot be used: RQ would print a traceback.
    """
    if not structlog.is_configured():
        logging.getLogger("rq.worker").handlers.clear()
        logs.configure(sys.stderr)
    try:
        lanes = [_lane_of(name) for name in queue_names]
        return Settings.load(None, os.environ, need_keys=False).only(lanes)
    except SettingsError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        raise SystemExit(Exit.CONFIGURATION) from None


def _lane_of(queue: str) -> Lane:
    try:
        return Lane.parse(queue.removeprefix(QUEUE_PREFIX) if queue.startswith(QUEUE_PREFIX) else "")
    except LaneError:
        raise SettingsError([f"{queue} is no lane's queue; they are named like lane:bitget:main"]) from None


def _hurry(connection: Redis) -> None:
    """Makes RQ's client fail soon and only once: what it says here is said again at the next beat."""
    connection.get_connection_kwargs().update(socket_timeout=RQ_SOCKET_TIMEOUT_S)
    connection.set_retry(Retry(NoBackoff(), 0))
    # Open connections keep the time-outs they were made with.
    connection.connection_pool.disconnect()
    connection.connection_pool.reset()


class _Pulse(threading.Thread):
    """Tells RQ that its worker lives, hears whether it may work; a thread, because RQ's client blocks."""

    def __init__(self, worker: LaneWorker) -> None:
        super().__init__(name="rq-pulse", daemon=True)
        self._worker = worker
        self._suspended = False
        self._ended = threading.Event()
        self._trouble = ""
        self._queues = worker.queue_names()
        self._shown: list[str] = []
        self._told_state: WorkerStatus | None = None

    def serve_lanes(self, settings: Settings) -> None:
        """The worker serves the lanes of these settings from now on: the next beat registers it on their queues."""
        self._queues = [queue_name(lane) for lane in settings.lanes]

    def suspended(self) -> bool:
        """What RQ said at the last beat it answered."""
        return self._suspended

    def stop(self) -> None:
        """Ends the beats; returns when none is under way any more, at most after one socket time-out."""
        self._ended.set()
        if self.is_alive():
            self.join(RQ_SOCKET_TIMEOUT_S)

    def first_beat(self) -> None:
        """As any other. Raises RedisError, but not for a server whose memory is full."""
        try:
            self.beat()
        except OutOfMemoryError as error:
            self._tell(f"{type(error).__name__}: {error}")

    def run(self) -> None:
        while not self._ended.wait(BEAT_S):
            try:
                self.beat()
            except RedisError as error:
                self._tell(f"{type(error).__name__}: {error}")
            except Exception:
                # Without a pulse `rq suspend` would go unheard, so no surprise may end it.
                log.exception("a beat for RQ failed")
            else:
                self._tell("")

    def beat(self) -> None:
        """One heartbeat: registered, alive, suspended or not, no job waiting where none belongs."""
        worker = self._worker
        self._hear(bool(worker.connection.exists(WORKERS_SUSPENDED)))
        if self._queues != worker.queue_names():
            _move(worker, self._queues)
        if not worker.connection.hexists(worker.key, "birth"):
            # A server that came back empty; what a heartbeat left there since would pass for another worker.
            worker.connection.delete(worker.key)
            worker.register_birth()  # type: ignore[no-untyped-call]  # RQ leaves it unannotated
            self._shown, self._told_state = [], None
        if self._shown != self._queues:
            # Once RQ knows any queue, the jobs' own for one, `rq info` lists the workers of those it knows alone.
            worker.connection.sadd(Queue.redis_queues_keys, *(queue.key for queue in worker.queues))
            self._shown = self._queues
        worker.heartbeat()
        if self._state != self._told_state:
            worker.set_state(self._state)
            self._told_state = self._state
        _fail_misplaced(worker)

    def _hear(self, suspended: bool) -> None:
        """First, by a read alone: a server whose memory is full takes `rq resume`, but no heartbeat and no `MULTI`."""
        if suspended != self._suspended:
            self._suspended = suspended
            log.warning("suspended by RQ: urgent cancels only" if suspended else "resumed by RQ")

    @property
    def _state(self) -> WorkerStatus:
        return WorkerStatus.SUSPENDED if self._suspended else WorkerStatus.STARTED

    def _tell(self, trouble: str) -> None:
        """Logs the trouble when it begins, changes or ends, not at every beat."""
        if trouble and trouble != self._trouble:
            log.error("RQ's server does not answer; the lanes are served on", cause=trouble)
        elif self._trouble and not trouble:
            log.info("RQ's server answers again")
        self._trouble = trouble


def _move(worker: LaneWorker, names: list[str]) -> None:
    """Has the worker registered on these queues instead of those before; the next lines of a beat register it. One that
    is cut off half way is made again by the next beat."""
    worker_registration.unregister(worker)
    worker.connection.delete(worker.key)
    worker.queues = [Queue(name, connection=worker.connection, serializer=JSONSerializer) for name in names]


def _fail_misplaced(worker: LaneWorker) -> None:
    """Jobs on the lanes' queues, a few of each. There are hardly ever any: of a thousand queues one command tells."""
    if not (worker.queues and worker.connection.exists(*(queue.key for queue in worker.queues))):
        return
    with worker.connection.pipeline(transaction=False) as pipeline:
        for queue in worker.queues:
            pipeline.lrange(queue.key, 0, MISPLACED_AT_ONCE - 1)
        waiting = pipeline.execute()
    for queue, job_ids in zip(worker.queues, waiting, strict=True):
        for job_id in job_ids:
            _fail(worker, queue, job_id)


def _fail(worker: LaneWorker, queue: Queue, job_id: bytes) -> None:
    """Moves a job to the failed registry without looking into it: what it was pickled with stays closed.

    Two workers may do so at once; the second changes nothing that anybody sees.
    """
    try:
        job = Job.fetch(job_id.decode(), connection=worker.connection, serializer=JSONSerializer)
    except NoSuchJobError:
        _drop(worker, queue, job_id)
        return
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        shown = job_id.decode(errors="backslashreplace")
        log.error("removed what is no job from a lane's queue", queue=queue.name, job=shown, cause=str(error))
        _drop(worker, queue, job_id)
        return
    inbox = _lane_of(queue.name).inbox
    reason = (
        f"{queue.name} runs no jobs: nothing was run, nothing was cancelled. "
        f"Add the intent to the stream {inbox}, or enqueue cancelq.rq.submit on the queue 'cancelq'."
    )
    job.ended_at = datetime.now(UTC)
    with worker.connection.pipeline() as pipeline:
        queue.remove(job, pipeline=pipeline)
        job.set_status(JobStatus.FAILED, pipeline=pipeline)
        queue.failed_job_registry.add(job, ttl=job.failure_ttl, exc_string=reason, pipeline=pipeline)
        Result.create_failure(job, job.failure_ttl, reason, worker_name=worker.name, pipeline=pipeline)
        worker.increment_failed_job_count(pipeline)
        pipeline.execute()
    queue.enqueue_dependents(job)
    log.error("failed a job that was put on a lane's queue", queue=queue.name, job=job.id, inbox=inbox)


def _drop(worker: LaneWorker, queue: Queue, job_id: bytes) -> None:
    """Whatever it is: an id need not be text."""
    worker.connection.lrem(queue.key, 1, job_id)  # type: ignore[arg-type]  # annotated as text alone


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Spares the garbage collector what cannot be garbage, the modules, and the short life of a batch.

    With the interpreter's own settings a third of a busy worker's processor time went into looking through
    them again and again. Cycles are rare here (29 objects in 100,000 intents) and are still collected. What lies in
    memory of a thousand lanes is half a million objects, none of them garbage: looking through them by 20,000 was a
    tenth of the time, and through all of them at once a pause of 0.1 s.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


class _Session:
    """One run of the engine under signals: TERM and INT drain, a second INT ends, HUP brings new settings, and wants a
    restart where they concern more than lanes. `changed` is told of new settings that are served."""

    def __init__(
        self,
        serve: Serve,
        settings: Settings,
        name: str,
        suspended: Callable[[], bool],
        changed: Callable[[Settings], None] = lambda _: None,
    ) -> None:
        self._serve = serve
        self._settings = settings
        self._name = name
        self._suspended = suspended
        self._changed = changed
        self._fresh: asyncio.Queue[Settings] = asyncio.Queue()
        self._stop = asyncio.Event()
        self._wished_s: float | None = None
        self._restart = False
        self._ends = False  # somebody wishes it to end, which a restart must not outlive

    def run(self) -> bool:
        """Returns when the engine has drained: true if a restart is wanted. In the main thread only."""
        redaction.conceal(self._settings.secrets())
        keep_memory_private()
        with _rare_collections(), asyncio.Runner(loop_factory=new_loop) as runner:
            loop = runner.get_loop()
            # Handlers of the interpreter, not of the loop: a second INT must end a loop that is stuck.
            handlers: dict[signal.Signals, Callable[[int, FrameType | None], object]] = {
                signal.SIGTERM: lambda *_: loop.call_soon_threadsafe(self._end, "TERM"),
                signal.SIGINT: lambda *_: self._interrupt(loop),
                signal.SIGHUP: lambda *_: loop.call_soon_threadsafe(self._reread),
            }
            before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
            try:
                runner.run(self._served())
            finally:
                for number, handler in before.items():
                    # This process ends by now: who wishes it to end has his wish, and the exit code still tells why it
                    # did. Or it begins anew, and reads the settings: what is ignored now would be until it serves.
                    given = (number is signal.SIGHUP) == self._restart
                    signal.signal(number, signal.SIG_IGN if given else handler)
        return self._restart

    async def _served(self) -> None:
        log.info("serving", worker=self._name, lanes=[str(lane) for lane in self._settings.lanes])
        await self._serve(
            self._settings, worker_name=self._name, stop=self._stop, suspended=self._suspended, fresh=self._fresh
        )
        log.info("drained", worker=self._name)

    def _end(self, why: str) -> None:
        """Also where it drains already, to begin anew."""
        self._ends, self._restart = True, False
        self._drain(why)

    def _drain(self, why: str) -> None:
        if not self._stop.is_set():
            self._stop.set()  # first: who reads the line finds it so
            log.info("draining: nothing new is taken", worker=self._name, signal=why)

    def _interrupt(self, loop: asyncio.AbstractEventLoop) -> None:
        now_s = time.monotonic()
        if self._wished_s is None:
            self._wished_s = now_s
            loop.call_soon_threadsafe(self._end, "INT")
        elif now_s - self._wished_s > SAME_WISH_S:
            # What was under way is found by its lease; a clean end is what did not come.
            os.write(sys.stderr.fileno(), b"ended at once, on a second interrupt\n")
            os._exit(Exit.INTERRUPTED)

    def _reread(self) -> None:
        if self._ends:
            return
        try:
            fresh = self._settings.again()
        except SettingsError as error:
            log.error("HUP: the new settings cannot be used, the old ones stay", problems=error.problems)
            return
        redaction.conceal(fresh.secrets())
        if wanting := restart_for(self._settings, fresh):
            log.info("HUP: starting again, as settings of the whole process have changed", settings=wanting)
            self._restart = True
            self._drain("HUP")
            return
        self._settings = fresh
        self._fresh.put_nowait(fresh)
        self._changed(fresh)
