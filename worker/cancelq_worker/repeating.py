"""Answers that repeat what they were asked with.

A venue, or a proxy in front of it, may quote the request: a page that lists its headers, a message with the key or the
signature in it. A venue's words go into events, holds and logs, where secrets must not; so the words of such an answer
are left out. Nothing else of it is: a short passphrase may well be part of an innocent id.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote

import orjson

from cancelq_worker.venues.port import Answer, Reply, Signed

#: Stands for the words of an answer that quotes secrets.
LEFT_OUT: Final = "the venue's words are left out: they repeat what the call was signed with"
#: Characters. No venue gives out shorter secrets, and shorter ones would be found everywhere.
SHORTEST: Final = 6

_SECRET_HEADER = re.compile(r"key|sign|passphrase", re.IGNORECASE)
_SECRET_PARAMETER = re.compile(r"(?:^|&)(?:signature|listenKey)=([^&]+)")


def discreet(reply: Reply, answer: Answer) -> Reply:
    """The reply, without the venue's words where its answer quotes secrets; our own stay."""
    return replace(reply, text=LEFT_OUT) if answer.quotes and reply.text and not reply.ours else reply


def repeats(answer: bytes, secrets: Iterable[str]) -> bool:
    """Whether one of the secrets is in an answer, however a page or a JSON text would spell it."""
    return any(spelling in answer for secret in secrets for spelling in _spellings(secret))


def secrets_of_call(signed: Signed) -> list[str]:
    """What of a call nobody else may see: the values of its key, signature and passphrase headers, and of its query."""
    values = [value for name, value in signed.headers.items() if _SECRET_HEADER.search(name)]
    if signed.request.query:
        values += _SECRET_PARAMETER.findall(signed.request.query)
    return [value for value in values if len(value) >= SHORTEST]


def secrets_of_login(texts: Iterable[str]) -> list[str]:
    """The same of the texts that open a stream: each text value in them, those too that are no secret."""
    return [value for text in texts for value in _leaves(_object(text)) if len(value) >= SHORTEST]


def _spellings(secret: str) -> Iterator[bytes]:
    plain = secret.encode()
    yield plain
    if not secret.isalnum():
        quoted, in_json = quote(secret, safe="").encode(), orjson.dumps(secret)[1:-1]
        yield from (quoted, quoted.lower(), in_json, in_json.replace(b"/", b"\\/"), html.escape(secret).encode())


def _object(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def _leaves(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for inner in value.values():
                yield from _leaves(inner)
        case list():
            for inner in value:
                yield from _leaves(inner)
        case _:
            pass
