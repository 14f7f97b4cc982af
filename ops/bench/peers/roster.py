"""The peers and their rows: how each is started, and what a reader has to know to judge whether that is fair."""

from __future__ import annotations

from dataclasses import dataclass

SHIPPED, HELPED, BATCHED, WHOLE = "as shipped", "helped", "with cancel_orders", "urgent_reserve 0"
WORKERS = 3


@dataclass(frozen=True, slots=True)
class Row:
    """One way to run one peer. `worker` are arguments of its own Python, `{n}` the worker's number; `ready` is what
    its log says once it takes work; `single`: one order a call; `mixed`: whether that load is played."""

    peer: str
    row: str
    worker: tuple[str, ...]
    ready: str
    note: str
    producer: str = ""
    single: bool = False
    mixed: bool = False


CANCELQ = "from cancelq_worker.cli import main; main()"
# The tools' own command lines, as modules, so that every process is the Python of its environment.
_RQ = ("-m", "peers.desk.rq_worker")
_CELERY = ("-m", "celery", "-A", "peers.desk.celery_app", "worker", "-Q", "urgent,celery", "-lINFO", "-nw{n}@%h")
_DRAMATIQ = ("-m", "dramatiq", "peers.desk.dramatiq_app", "--processes", "1")
_SAQ = ("-m", "saq", "peers.desk.saq_app.settings")
_FASTSTREAM = ("-m", "faststream", "run", "peers.desk.faststream_app:app")
_CCXT = ("-m", "peers.desk.ccxt_engine", "{n}")

_DRAIN = (
    "Producers enter orders into a sorted set in Redis (an order that waits is not entered twice, urgent ones stand "
    "first) and start up to three long jobs; each job waits for a permit of the shared limiter, takes up to 50 orders "
    "and makes one batch call. What a job has held for five seconds is taken by the next; the "
    "producer looks every second whether a job has died."
)

ROWS = (
    Row(
        "rq",
        SHIPPED,
        _RQ,
        "Listening on",
        "One job a cancel at `cancel-order`, entered with `enqueue_many`; `Retry(max=100, interval=1)` and the "
        "scheduler for a refusal. The worker forks for each job, one at a time; the desk's worker script loads the "
        "libraries before, as RQ's notes on performance advise. Urgent: a queue of its own, read first.",
        "rq_jobs",
        single=True,
        mixed=True,
    ),
    Row("rq", HELPED, _RQ, "Listening on", f"{_DRAIN} `SimpleWorker`, which does not fork.", "rq_jobs", mixed=True),
    Row(
        "celery",
        SHIPPED,
        _CELERY,
        " ready.",
        "celery-batches at `batch-cancel-order`: `flush_every` 50, `flush_interval` 0.1 s; each worker prefork with a "
        "process per processor, prefetch 50 for each. A refused batch is put back task by task with a countdown of a "
        "second. Urgent: a queue of its own, read first; in a worker's buffer all are alike. The short interval "
        "is for lone cancels, which wait for it, and makes batches that are not full in a burst.",
        "celery_app",
        mixed=True,
    ),
    Row(
        "celery",
        HELPED,
        _CELERY,
        " ready.",
        "The same with a permit of the shared limiter before each call, late acknowledgement, and a visibility timeout "
        "of 10 s with restores of 1,000 messages, instead of an hour and of ten.",
        "celery_app",
        mixed=True,
    ),
    Row(
        "dramatiq",
        SHIPPED,
        _DRAMATIQ,
        "ready for action",
        "One message a cancel at `cancel-order` under `WindowRateLimiter(limit=10, window=1)`, which raises outside "
        "its window; tried again after 1 to 5 s (its default of 15 s at the least would only be slower). One process "
        "with its eight threads for each worker.",
        "dramatiq_app",
        single=True,
    ),
    Row(
        "dramatiq",
        HELPED,
        (*_DRAMATIQ, "--threads", "1"),
        "ready for action",
        f"{_DRAIN} One thread, so that no worker has more than one of the jobs.",
        "dramatiq_app",
    ),
    Row(
        "saq",
        SHIPPED,
        _SAQ,
        "ready",
        "One job a cancel at `cancel-order`, ten at a time in each worker (its default); `retries` 100, `retry_delay` "
        "a second for a refusal.",
        "saq_app",
        single=True,
    ),
    Row(
        "saq",
        HELPED,
        _SAQ,
        "ready",
        f"{_DRAIN} `concurrency` 1, so that no worker has more than one of the jobs.",
        "saq_app",
    ),
    Row(
        "faststream",
        SHIPPED,
        _FASTSTREAM,
        "started successfully",
        "One message of a stream's consumer group a cancel at `cancel-order`, one at a time in each worker; a refusal "
        "leaves the message pending, and a second subscriber claims what is pending for a second (`min_idle_time`). "
        "Urgent: a stream of its own.",
        "faststream_app",
        single=True,
        mixed=True,
    ),
    Row(
        "faststream",
        HELPED,
        _FASTSTREAM,
        "started successfully",
        "Batches of up to 50 messages a read (`batch=True`), a permit of the shared limiter before each call; claimed "
        "after five seconds.",
        "faststream_app",
        mixed=True,
    ),
    Row(
        "ccxt",
        SHIPPED,
        _CCXT,
        "ready",
        "Three strategy engines on asyncio, each with a third of the orders and no queue between: `cancel_order`, up "
        "to 20 under way, ccxt's own rate limiter on; a second's wait after a refusal.",
        single=True,
    ),
    Row(
        "ccxt",
        BATCHED,
        _CCXT,
        "ready",
        "The same engines, but `cancel_orders` for up to 50 of what has gathered, one call after another.",
    ),
    Row(
        "ccxt",
        HELPED,
        _CCXT,
        "ready",
        "`cancel_orders` with a permit of the shared limiter before each call, ccxt's own limiter off.",
    ),
    Row(
        "cancelq",
        SHIPPED,
        ("-c", CANCELQ, "worker"),
        "",
        "Three `cancelq worker` processes, one lane, default settings: of each endpoint's ten calls a second one is "
        "kept for urgent cancels, so the best there is for all others takes a ninth longer. The order stream is on, as "
        "it is by default at the venue.",
        "cancelq_client",
        mixed=True,
    ),
    Row(
        "cancelq",
        WHOLE,
        ("-c", CANCELQ, "worker"),
        "",
        "The same, but nothing is kept for urgent cancels: the whole budget, which all other rows have, too.",
        "cancelq_client",
    ),
)

PEERS = tuple(dict.fromkeys(row.peer for row in ROWS))
