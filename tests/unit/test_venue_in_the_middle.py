"""Whoever stands between a worker and a venue gets neither a key nor a word in: only the venue's own certificate opens
the door, and no variable of the environment leads past it."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from websockets.asyncio.client import connect

from cancelq_worker.clocks import in_s
from cancelq_worker.http import Door, NotSent
from cancelq_worker.streaming import LaneStream
from cancelq_worker.venues.port import Request, Signed
from tests.unit.test_streaming import PARTS

LONG_AGO = datetime(2019, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC)
KEYED = Signed(Request("POST", "/cancel", body=b"{}"), {"ACCESS-KEY": "canary"})


class Middle:
    """Someone who listens where the venue should be; `heard` is what reached him in the clear."""

    def __init__(self) -> None:
        self.heard = b""
        self.port = 0

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heard += await reader.read(65_536)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()


@asynccontextmanager
async def standing(certificate: trustme.LeafCert | None) -> AsyncIterator[Middle]:
    middle, context = Middle(), None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
    server = await asyncio.start_server(middle.carry, "127.0.0.1", 0, ssl=context)
    middle.port = int(server.sockets[0].getsockname()[1])
    try:
        yield middle
    finally:
        server.close()


async def call(port: int, context: ssl.SSLContext) -> None:
    door = Door(f"https://127.0.0.1:{port}", verify=context)
    try:
        await door.call(KEYED, send_by_ns=in_s(10), total_s=10)
    finally:
        await door.close()


def as_workers_have_it(trusted: trustme.CA) -> ssl.SSLContext:
    """The context that `wiring` makes, which would trust this CA beside those of the world."""
    context = httpx.create_ssl_context(trust_env=False)
    trusted.configure_trust(context)
    return context


OURS, THEIRS = trustme.CA(), trustme.CA()


async def test_the_venue_itself_is_spoken_to() -> None:
    async with standing(OURS.issue_cert("127.0.0.1")) as venue:
        await call(venue.port, as_workers_have_it(OURS))
        assert b"canary" in venue.heard


IMPOSTORS = {
    "of another CA": THEIRS.issue_cert("127.0.0.1"),
    "of another host": OURS.issue_cert("api.venue.example"),
    "expired": OURS.issue_cert("127.0.0.1", not_before=LONG_AGO[0], not_after=LONG_AGO[1]),
    "no TLS at all": None,
}


@pytest.mark.parametrize("impostor", IMPOSTORS)
async def test_nobody_else_hears_a_key(impostor: str) -> None:
    async with standing(IMPOSTORS[impostor]) as middle:
        with pytest.raises(NotSent):
            await call(middle.port, as_workers_have_it(OURS))
        address = f"wss://127.0.0.1:{middle.port}/canary"
        with pytest.raises((OSError, EOFError, TimeoutError)):
            async with connect(address, ssl=as_workers_have_it(OURS), proxy=None, open_timeout=10):
                pass
        assert b"canary" not in middle.heard


async def test_no_variable_of_the_environment_changes_whom_a_worker_trusts_or_calls(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    THEIRS.cert_pem.write_to_path(str(tmp_path / "theirs.pem"))
    async with standing(THEIRS.issue_cert("127.0.0.1")) as middle, standing(None) as proxy:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "theirs.pem"))
        for name in ("HTTPS_PROXY", "ALL_PROXY", "HTTP_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(NotSent):
            await call(middle.port, as_workers_have_it(OURS))
        assert middle.heard == proxy.heard == b""


async def listen(port: int, context: ssl.SSLContext) -> None:
    """Opens an order stream there, once."""

    def once(*args: Any, **options: Any) -> connect:
        stream.stop()
        return connect(*args, **options)

    stream = LaneStream(replace(PARTS, ws_url=f"wss://127.0.0.1:{port}/canary", tls=context, open_socket=once))
    await stream.serve()


async def test_an_order_stream_is_opened_to_whom_a_worker_trusts_and_not_to_whom_the_environment_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    THEIRS.cert_pem.write_to_path(str(tmp_path / "theirs.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "theirs.pem"))
    async with standing(OURS.issue_cert("127.0.0.1")) as venue, standing(THEIRS.issue_cert("127.0.0.1")) as middle:
        await listen(middle.port, as_workers_have_it(OURS))
        assert middle.heard == b""
        await listen(venue.port, as_workers_have_it(OURS))
        assert b"canary" in venue.heard
