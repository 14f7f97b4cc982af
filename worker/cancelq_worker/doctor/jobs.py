"""RQ: its server, the process that runs the jobs, and the jobs that failed."""

from __future__ import annotations

import asyncio

from redis import Redis
from redis.exceptions import NoPermissionError, RedisError
from rq import Queue, Worker
from rq.registry import FailedJobRegistry
from rq.serializers import JSONSerializer

from cancelq.rq import QUEUE
from cancelq_worker.doctor.findings import About, Finding
from cancelq_worker.doctor.patient import Patient, not_allowed
from cancelq_worker.exits import Exit
from cancelq_worker.jobs.table import table_of
from cancelq_worker.jobs.trigger import periods_of
from cancelq_worker.redaction import redacted_text
from cancelq_worker.rq_worker import rq_connection
from cancelq_worker.settings import SettingsError, without_credentials

PLAIN = "name a plain Redis server for RQ in rq_redis_url; it runs on no cluster"


async def state(p: Patient) -> list[Finding]:
    about = About("jobs.server", "jobs")
    place = without_credentials(p.settings.rq_redis_url or p.settings.redis_url)
    try:
        connection = rq_connection(p.settings)
    except SettingsError as error:
        return [about.fail("; ".join(error.problems), PLAIN, Exit.CONFIGURATION)]
    try:
        running, failed = await asyncio.to_thread(_looked_at, connection)
    except NoPermissionError as error:
        refused = not_allowed(error)
        return [about.unknown(str(refused), refused.remedy)]
    except (RedisError, OSError) as error:
        said = redacted_text(str(error))[:160] or type(error).__name__
        return [about.fail(f"RQ's server {place} does not answer: {said}", "see rq_redis_url", Exit.UNREACHABLE)]
    finally:
        await asyncio.to_thread(connection.close)
    return [about.ok(f"RQ's server {place} answers"), _process(p, running), _failed(failed)]


def _looked_at(connection: Redis) -> tuple[list[str], int]:
    """The processes that run the queue, and how many of its jobs have failed."""
    queue = Queue(QUEUE, connection=connection, serializer=JSONSerializer)
    workers = [worker.name for worker in Worker.all(queue=queue)]
    registry = FailedJobRegistry(queue=queue)
    return sorted(workers), registry.get_job_count(cleanup=False)


def _process(p: Patient, running: list[str]) -> Finding:
    about = About("jobs.process", "jobs")
    periodic = sorted({one.job for one in periods_of(p.settings.jobs, table_of(p.settings))})
    if running:
        return about.ok(f"run by {', '.join(running)}", processes=running)
    if periodic:
        told = f"no process runs the jobs, and some are to run by themselves: {', '.join(periodic)}"
        return about.warn(told, "start one: cancelq jobs", processes=[], periodic=periodic)
    return about.ok("no process runs jobs, and none is to run by itself", processes=[])


def _failed(count: int) -> Finding:
    about = About("jobs.failed", "jobs")
    if count:
        told = f"{count} jobs have failed" if count > 1 else "1 job has failed"
        return about.warn(told, f"rq info shows them; rq requeue --queue {QUEUE} --all runs them again", failed=count)
    return about.ok("no job has failed", failed=0)
