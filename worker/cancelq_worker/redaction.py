"""Blanks what looks like a secret, and what is known to be one. A last defence: nothing may rely on that.

Apart from the logs, as commands that log nothing would wait a tenth of a second for what these load.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

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
# Deep enough for any line of ours; what lies deeper is blanked rather than walked.
_DEPTH = 6


class _Known:
    """Values that are secrets by themselves, found by how they begin: a worker with a thousand lanes has three thousand
    of them, and each line that was looked through for one after the other kept its loop for most of a millisecond."""

    def __init__(self) -> None:
        self._all: set[str] = set()
        self._length = 1
        self._by_start: dict[str, list[str]] = {}

    def add(self, secrets: Iterable[str]) -> None:
        self._all |= {secret for secret in secrets if secret}
        self._length = min((len(secret) for secret in self._all), default=1)
        self._by_start = {}
        for secret in self._all:
            self._by_start.setdefault(secret[: self._length], []).append(secret)

    def blanked(self, text: str) -> str:
        """`text` without any of them; the longest goes first, as one may be the beginning of another."""
        length = self._length
        found = self._by_start.keys() & {text[at : at + length] for at in range(len(text) - length + 1)}
        for secret in sorted((secret for start in found for secret in self._by_start[start]), key=len, reverse=True):
            text = text.replace(secret, BLANK)
        return text


_known = _Known()


def conceal(secrets: Iterable[str]) -> None:
    """From now on every line of this process is without these values, and without those concealed before."""
    _known.add(secrets)


def redact(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: blanks values under names of secrets, and keys and signatures inside texts."""
    for key, value in event.items():
        event[key] = _blanked(key, value, _DEPTH)
    return event


def redacted_text(text: str) -> str:
    """`text` without user parts of URLs, values of key and signature parameters, and what `conceal` was told."""
    text = _known.blanked(text)
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
