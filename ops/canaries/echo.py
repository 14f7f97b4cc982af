"""A way to the venues that repeats what it hears: it notes the signatures that pass, and answers some calls itself with
the whole request in its words, as firewalls and careless servers do."""

from __future__ import annotations

import asyncio
import contextlib
import html
import json
import random
import re
from collections import Counter
from collections.abc import Callable

SIGNED = re.compile(
    rb"(?:ACCESS-SIGN|X-BAPI-SIGN): *([^\r\n]+)|[?&]signature=([0-9a-fA-F]+)|[?&]listenKey=([^& \r\n]+)", re.IGNORECASE
)
SIGN_OF_LOGIN = re.compile(rb'"sign":"([^"]+)"|"op":"auth","args":\["[^"]*",\d+,"([^"]+)"')


class Echo:
    """Listens on a port of its own. `share` of the calls are answered here, in the way `how` says, the others by the
    venue behind it."""

    def __init__(self, upstream: int, rng: random.Random) -> None:
        self.port = 0
        self.share = 0.0
        self.how: tuple[str, ...] = tuple(_UNCLEAR)
        self.signatures: set[str] = set()
        self.echoed: Counter[str] = Counter()
        self._upstream = upstream
        self._rng = rng

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0, limit=1 << 20)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._server.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        back = asyncio.ensure_future(_pump(up_reader, writer))
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(_length_of(head))
                self._note(SIGNED, head)
                if b"upgrade: websocket" in head.lower():
                    up_writer.write(head)
                    await self._listen(reader, up_writer)
                    return
                if self._rng.random() < self.share:
                    how = self._rng.choice(self.how)
                    self.echoed[how] += 1
                    writer.write(_ANSWERS[how]((head + body).decode("latin-1")))
                else:
                    up_writer.write(head + body)
                    await up_writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass  # either side went away
        finally:
            back.cancel()
            up_writer.transport.abort()
            writer.transport.abort()

    async def _listen(self, reader: asyncio.StreamReader, up_writer: asyncio.StreamWriter) -> None:
        """Passes a client's frames on and looks into them for its login."""
        while True:
            head = await reader.readexactly(2)
            size = head[1] & 127
            if size >= 126:
                longer = await reader.readexactly(2 if size == 126 else 8)
                head, size = head + longer, int.from_bytes(longer, "big")
            mask, masked = await reader.readexactly(4), await reader.readexactly(size)
            self._note(SIGN_OF_LOGIN, bytes(byte ^ mask[at % 4] for at, byte in enumerate(masked)))
            up_writer.write(head + mask + masked)
            await up_writer.drain()

    def _note(self, pattern: re.Pattern[bytes], text: bytes) -> None:
        for groups in pattern.findall(text):
            self.signatures.update(group.decode() for group in groups if group)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(65_536):
            writer.write(piece)
            await writer.drain()
    writer.transport.abort()


def _length_of(head: bytes) -> int:
    found = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
    return int(found[1]) if found else 0


def _answer(status: str, content_type: str, text: str) -> bytes:
    body = text.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _page(status: str) -> Callable[[str], bytes]:
    return lambda heard: _answer(
        status, "text/html", f"<html><h1>{status}</h1><pre>You sent:\n{html.escape(heard)}</pre></html>"
    )


def _said(code: int) -> Callable[[str], bytes]:
    """In the words of all three venues at once: each reads its own names."""

    def answer(heard: str) -> bytes:
        # The first words are short of what a message may hold, so that the secrets behind are not cut off.
        line = " ".join(reversed(heard.split()))
        words = {"code": code, "retCode": code, "msg": line, "retMsg": line, "message": line, "data": None}
        return _answer("200 OK", "application/json", json.dumps(words))

    return answer


def _secrets_only(code: int, status: str = "200 OK") -> Callable[[str], bytes]:
    """A short message that quotes what is secret and nothing else."""

    def answer(heard: str) -> bytes:
        quoted = re.findall(r"(?:key|sign|passphrase): *(\S+)|signature=(\w+)", heard, re.IGNORECASE)
        line = "invalid " + " ".join(one for pair in quoted for one in pair if one)
        words = {"code": str(code), "retCode": code, "msg": line, "retMsg": line, "data": None}
        return _answer(status, "application/json", json.dumps(words))

    return answer


def _refusal(heard: str) -> int:
    """The code with which the venue that was asked refuses a key."""
    return 40_006 if "ACCESS-KEY" in heard else 10_003 if "X-BAPI-API-KEY" in heard else 100_413


#: Answers after which the lane looks up what became of the orders.
_UNCLEAR: dict[str, Callable[[str], bytes]] = {
    "a 502 page": _page("502 Bad Gateway"),
    "a 500 message": _secrets_only(88_888, "500 Internal Server Error"),
    "a page under 200": _page("200 OK"),
    "an unknown code": _said(99_999),
    "an unknown code, quoting": _secrets_only(99_999),
}
#: Answers that close the lane: to be given when nothing else is to be seen any more.
CLOSING: dict[str, Callable[[str], bytes]] = {
    "a key refused": lambda heard: _secrets_only(_refusal(heard))(heard),
    "a key refused under 401": lambda heard: _secrets_only(_refusal(heard), "401 Unauthorized")(heard),
}
_ANSWERS = {**_UNCLEAR, **CLOSING}
