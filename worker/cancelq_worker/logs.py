"""Logs of a process: one line per event on one stream, for people on a terminal, as JSON everywhere else.

The libraries' lines take the same way as ours. As a last defence, whatever looks like a secret is blanked
before a line is written (`redaction`); nothing may rely on that.
"""

from __future__ import annotations

import logging
import threading
from typing import TextIO

import structlog
from structlog.typing import Processor

from cancelq_worker.redaction import redact

# Neither may show what it reports at INFO: httpx prints URLs, and venues sign in the URL.
_QUIET = ("httpx", "httpcore", "websockets")


def configure(stream: TextIO, *, pretty: bool | None = None, level: int = logging.INFO) -> None:
    """Sends every log line of this process to `stream`; `pretty` None: if it is a terminal. Repeatable."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # Rich tracebacks and dict tracebacks would print local variables, and with them keys.
        structlog.processors.format_exc_info,
        redact,
    ]
    on_terminal = stream.isatty() if pretty is None else pretty
    renderer: Processor
    if on_terminal:
        renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    else:
        renderer = structlog.processors.JSONRenderer(ensure_ascii=False, default=str)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Else the interpreter prints the traceback past all of this.
    threading.excepthook = _log_thread_end
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _log_thread_end(ended: threading.ExceptHookArgs) -> None:
    name = ended.thread.name if ended.thread else "unknown"
    error = ended.exc_value
    if error is not None and not isinstance(error, SystemExit):
        logging.getLogger(__name__).error("thread %s ended by an error", name, exc_info=error)
