"""RQ's worker as a script of the desk's own, so that the libraries are loaded before it forks, as RQ's notes on
performance advise. Helped: RQ's worker that does not fork, because each of its jobs runs long."""

from __future__ import annotations

import os

import redis
from rq import SimpleWorker, Worker

from peers.desk import rq_jobs

if __name__ == "__main__":
    rq_jobs.prepare()
    kind = SimpleWorker if rq_jobs.HELPED else Worker
    kind(["urgent", "cancels"], connection=redis.Redis.from_url(os.environ["DESK_REDIS"])).work(with_scheduler=True)
