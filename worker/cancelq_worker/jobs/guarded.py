"""An RQ job that can run nothing but what stands in a table.

Whoever can write to RQ's server can write a job. RQ itself would import whatever function a job names, call it with
the job's arguments, import and call its callbacks, and send its webhooks. Here a job is text: a name that is looked
up, and arguments as JSON.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import orjson
import structlog
from redis.client import Pipeline
from rq.exceptions import DeserializationError, NoSuchJobError
from rq.job import Job

from cancelq.errors import IntentError, LaneError
from cancelq.rq import QUEUE
from cancelq_worker.settings import SettingsError

log = structlog.get_logger("cancelq.jobs")

# Bounds of every job, whatever the job itself says, in seconds.
RESULT_TTL_S = 86_400
FAILURE_TTL_S = 7 * 86_400
TIMEOUT_MOST_S = 900
# Bytes of a job's name and arguments; thousands of ids fit in.
DATA_MOST = 1_048_576
# A job that was abandoned, or that failed for a reason that may pass, is run again after these waits.
RETRY_AFTER_S = (5, 30, 120)

_CALLBACKS = ("success_callback_name", "failure_callback_name", "stopped_callback_name")


class Refused(Exception):
    """This job is not one that `cancelq jobs` runs: nothing was imported, nothing was run."""


# Trying again does not mend these.
HOPELESS = (Refused, IntentError, LaneError, SettingsError, TypeError)


@dataclass(frozen=True, slots=True)
class Duty:
    """What a name in the table stands for. `run` gets the job's id and its arguments, and returns what JSON can hold;
    it is ended after `timeout_s`. Twice must be as good as once."""

    run: Callable[..., object]
    timeout_s: int = 60


class GuardedJob(Job):
    """A job as it is read from RQ's server. Only a function of `table` can run; a job that asks for anything else fails
    for good, and says what it asked for."""

    table: ClassVar[Mapping[str, Duty]] = {}
    duty: Duty | None = None
    refusal: str = ""

    def restore(self, raw_data: Mapping[bytes, bytes]) -> None:
        """Reads a job's hash. What is none counts as no job at all: RQ would end the worker over it, every time."""
        try:
            _refuse_large(raw_data.get(b"data", b""))
            super().restore(raw_data)
            self._judge(raw_data)
        except NoSuchJobError:
            raise
        except Exception as error:
            log.error("removed what is no job from the queue", job=self.id, cause=f"{type(error).__name__}: {error}")
            raise NoSuchJobError(f"{self.key} holds no job") from error
        if self.origin == QUEUE:
            self._bound()

    def prepare_for_execution(self, worker_name: str, pipeline: Pipeline) -> None:
        """As RQ's; and writes down that the job may be tried again, for whoever clears up after this worker: `rq info`
        does so too, and knows nothing of this class."""
        super().prepare_for_execution(worker_name, pipeline)
        pipeline.hset(self.key, "retries_left", self.retries_left or 0)
        pipeline.hset(self.key, "retry_intervals", orjson.dumps(self.retry_intervals or [0]))

    def perform(self) -> Any:
        """Runs the job's function from the table. Raises `Refused` where there is none."""
        try:
            if self.duty is None:
                raise Refused(self.refusal)
            return super().perform()
        except HOPELESS:
            self.retries_left = 0
            raise

    @property
    def func_name(self) -> str | None:
        """The name the job carries; None where its data is no JSON: RQ wants a name before it runs a job."""
        try:
            return super().func_name
        except DeserializationError:
            return None

    @func_name.setter
    def func_name(self, value: str | None) -> None:
        Job.func_name.__set__(self, value)  # type: ignore[attr-defined]  # mypy sees no property in a class

    @property
    def func(self) -> Callable[..., object]:
        """What runs: RQ would import the name instead."""
        if self.duty is None:
            raise Refused(self.refusal)
        run = self.duty.run
        return lambda *args, **kwargs: run(self.id, *args, **kwargs)

    @property
    def success_callback(self) -> None:
        """None, whatever the job names: RQ would import it."""
        return None

    @property
    def failure_callback(self) -> None:
        """As `success_callback`."""
        return None

    @property
    def stopped_callback(self) -> None:
        """As `success_callback`."""
        return None

    def _judge(self, raw_data: Mapping[bytes, bytes]) -> None:
        self.duty, self.refusal = (
            None,
            self._refusal({bytes(name).decode() for name, value in raw_data.items() if value}),
        )
        self.webhooks = []
        self.repeats_left = None
        if not self.refusal:
            self.duty = self.table[str(self.func_name)]

    def _refusal(self, given: set[str]) -> str:
        """Why nothing of this job may run; empty if it may."""
        if callbacks := [name for name in _CALLBACKS if name in given]:
            return f"it names a callback ({callbacks[0]}); read the job's result, or the lane's results"
        if self.webhooks:
            return "it has webhooks, and this process calls no address"
        if self.repeats_left:
            return "it asks to be repeated; periodic jobs stand in the settings ([jobs.…])"
        try:
            instance, name, args, kwargs = self.instance, self.func_name, self.args, self.kwargs
        except DeserializationError:
            return "its data is no JSON; enqueue with rq.serializers.JSONSerializer"
        if not isinstance(name, str) or name not in self.table:
            return f"{name!r:.80} is not on the list; what runs here is {', '.join(sorted(self.table))}"
        if instance is not None or not isinstance(args, list) or not isinstance(kwargs, dict):
            return "it is no plain call with arguments"
        return ""

    def _bound(self) -> None:
        if self.duty is None:
            self.retries_left = 0
        most = self.duty.timeout_s if self.duty else 1
        self.timeout = most if self.timeout is None else _within(self.timeout, most)
        self.result_ttl = RESULT_TTL_S if self.result_ttl is None else _within(self.result_ttl, RESULT_TTL_S)
        self.failure_ttl = FAILURE_TTL_S if self.failure_ttl is None else _within(self.failure_ttl, FAILURE_TTL_S)
        if self.retries_left is None:
            # A job without Retry that is abandoned by a worker that died would never run again.
            self.retries_left, self.retry_intervals = len(RETRY_AFTER_S), list(RETRY_AFTER_S)


def _refuse_large(data: bytes) -> None:
    """RQ unpacks whatever a job holds, and a few kilobytes can unpack to gigabytes."""
    unpacker = zlib.decompressobj()
    # What cannot be unpacked, older versions of RQ left as it was.
    with contextlib.suppress(zlib.error):
        unpacker.decompress(data, DATA_MOST)
    if unpacker.unconsumed_tail or len(data) > DATA_MOST:
        raise ValueError(f"its data is larger than {DATA_MOST} bytes")


def _within(given: float, most: int) -> int:
    """RQ means "for ever" by anything below nought."""
    return most if given < 0 or given > most else int(given)
