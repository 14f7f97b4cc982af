"""The door for desks that speak RQ: a cancel intent as a job.

    from redis import Redis
    from rq import Queue
    from rq.serializers import JSONSerializer

    queue = Queue("cancelq", connection=Redis.from_url(url), serializer=JSONSerializer)
    job = queue.enqueue("cancelq.rq.submit", "bitget:main", {"symbol": "BTCUSDT", "order_id": "121211212122"})

`cancelq jobs` runs it; the job's result is the intent's `id`. What became of the order stands in the lane's results.
This module itself does not need RQ.
"""

import re
from collections.abc import Collection, Mapping
from hashlib import blake2b

from cancelq.client import Client
from cancelq.contract import Lane, wire_fields
from cancelq.errors import CancelqError, LaneError

# The queue, and the name under which `submit` is on the list of what runs there.
QUEUE = "cancelq"
SUBMIT = "cancelq.rq.submit"

_FITS = re.compile(r"[A-Za-z0-9._:-]{1,61}").fullmatch


def submit(lane: str, fields: Mapping[str, object]) -> str:
    """The function to enqueue, by its name or as it is: puts one intent into the lane's inbox and returns its `id`.

    `fields` are those of an inbox entry. Without an `id` they get one that follows from the job's, so that a job which
    is run again asks for nothing twice. The job fails, for good, where the lane is not open to RQ (`rq_lanes`) or a
    field is wrong, and says which.
    """
    raise CancelqError(f"{SUBMIT} is run by `cancelq jobs`, not by this process: enqueue it on the queue {QUEUE!r}")


class Door:
    """What `cancelq jobs` runs for `submit`: the lanes it opens to, and a client of their server."""

    def __init__(self, client: Client, lanes: Collection[Lane]) -> None:
        self._client = client
        self._lanes = frozenset(lanes)

    def submit(self, job_id: str, lane: str, fields: Mapping[str, object]) -> str:
        """Queues the intent of one job. Raises `LaneError`, `IntentError`, and what `Client.submit` raises: after
        `Uncertain` the same job may simply be run again."""
        asked = Lane.parse(lane)
        if asked not in self._lanes:
            open_to = ", ".join(sorted(map(str, self._lanes))) or "none"
            raise LaneError(f"{asked} is not open to jobs; those that are (rq_lanes): {open_to}")
        if not isinstance(fields, Mapping):
            raise LaneError(f"{SUBMIT} wants a lane and a mapping of fields, not {type(fields).__name__}")
        given = {name: value for name, value in fields.items() if value is not None}
        entry = wire_fields({"id": id_of(job_id), **given})
        return self._client.submit(asked, entry).id


def id_of(job_id: str) -> str:
    """The id of the intent that a job asks for: the same for every run of the job."""
    if _FITS(job_id):
        return f"rq-{job_id}"
    return f"rq-{blake2b(job_id.encode(errors='backslashreplace'), digest_size=20).hexdigest()}"
