"""Logs of a process: one line per event on one stream, for people on a terminal, as JSON everywhere else.

The libraries' lines take the same way as ours. As a last defence, whatever looks like a secret is blanked
before a line is written; nothing may rely on that.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, TextIO

import structlog
from structlog.typing import Processor

BLANK = "[redacted]"

_SECRET_NAME = re.compile(
    r"secret|pass(?:word|phrase)|api.?key|access.?key|signature|(?:^|[_-])sign$|bx.?apikey|authorization|token",
    re.IGNORECASE,
)
# In running text: the user part of a URL, and parameters or headers that carry a key or a signature.
_SECRET_IN_TEXT = (
    (re.compile(r"(\w://)[^@/\s]+@"), rf"\1{BLANK}@"),
    (
        re.compile(
            r"((?:signature|sign|api_?key|api_?secret|passphrase|password|access-key|access-sign|"
            r"access-passphrase|x-bapi-api-key|x-bapi-sign|x-bx-apikey|listen_?key)[\"']?\s*[=:]\s*[b\"']*)[^\s&\"',}]+",
            re.IGNORECASE,
        ),
        rf"\1{BLANK}",
    ),
)
# Neither may show what it reports at INFO: httpx prints URLs, and venues sign in the URL.
_QUIET = ("httpx", "httpcore", "websockets")
# Values that are secrets by themselves, the longest first: one may be the beginning of another.
_known: tuple[str, ...] = ()
# Deep enough for any line of ours; what lies deeper is blanked rather than walked.
_DEPTH = 6


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


def conceal(secrets: Iterable[str]) -> None:
    """From now on every line of this process is without these values, and without those concealed before."""
    global _known
    _known = tuple(sorted({*_known, *secrets}, key=len, reverse=True))


def _log_thread_end(ended: threading.ExceptHookArgs) -> None:
    name = ended.thread.name if ended.thread else "unknown"
    error = ended.exc_value
    if error is not None and not isinstance(error, SystemExit):
        logging.getLogger(__name__).error("thread %s ended by an error", name, exc_info=error)


def redact(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: blanks values under names of secrets, and keys and signatures inside texts."""
    for key, value in event.items():
        event[key] = _blanked(key, value, _DEPTH)
    return event


def redacted_text(text: str) -> str:
    """`text` without user parts of URLs, values of key and signature parameters, and what `conceal` was told."""
    for secret in _known:
        text = text.replace(secret, BLANK)
    for pattern, replacement in _SECRET_IN_TEXT:
        text = pattern.sub(replacement, text)
    return text


def _blanked(key: str, value: Any, depth: int) -> Any:
    if _SECRET_NAME.search(key) and value is not None:
        return BLANK
    if isinstance(value, str):
        return redacted_text(value)
    if isinstance(value, bytes | bytearray):
        return redacted_text(value.decode(errors="replace"))
    if isinstance(value, int | float | None):
        return value
    if depth == 0:
        return BLANK
    if isinstance(value, Mapping):
        return {name: _blanked(str(name), inner, depth - 1) for name, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_blanked("", inner, depth - 1) for inner in value]
    return redacted_text(str(value))
