"""`/livez`, `/readyz` and `/metrics` over HTTP, answered by threads beside the event loop.

Small on purpose: GET and HEAD, no keep-alive, a bounded number of callers, and each has a bounded time and number of
bytes to say what it wants. It needs no answer of the loop, of Redis or of a venue.
"""

from __future__ import annotations

import contextlib
import io
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Final
from urllib.parse import urlsplit

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from cancelq_worker.health import Health
from cancelq_worker.settings import SettingsError, listen_place

log = structlog.get_logger("cancelq.http")

HEAD_MOST = 8_192  # bytes of a request
REQUEST_S = 5.0  # in which a whole request must have come, and a whole answer gone
CALLERS_MOST = 16
PLAIN: Final = "text/plain; charset=utf-8"
PATHS: Final = ("/livez", "/readyz", "/metrics")


class HealthServer(socketserver.ThreadingMixIn, HTTPServer):
    """Listens from its making on, answers from `start` to `close`."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = CALLERS_MOST
    request_s = REQUEST_S

    def __init__(self, place: str, health: Health, registry: CollectorRegistry) -> None:
        """`place`: HOST:PORT, port 0 for a free one. Raises SettingsError, with a remedy, if it cannot listen there."""
        host, port = listen_place(place)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.health = health
        self.registry = registry
        self._room = threading.BoundedSemaphore(CALLERS_MOST)
        self._thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.2}, name="health-http", daemon=True
        )
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise SettingsError(
                [
                    f"http: cannot listen on {place}: {error.strerror or error}; name a free port of an address of "
                    f"this machine by --http or CANCELQ_HTTP (port 0: any free one); each worker needs its own"
                ]
            ) from error

    @property
    def place(self) -> str:
        """Where it listens: the port is the real one."""
        host, port = self.server_address[:2]
        shown = host.decode() if isinstance(host, bytes) else host
        return f"[{shown}]:{port}" if ":" in shown else f"{shown}:{port}"

    def start(self) -> None:
        self._thread.start()
        log.info("health and metrics over HTTP", http=self.place)

    def close(self) -> None:
        """Answers nobody any more. Blocks for up to a fifth of a second."""
        if self._thread.is_alive():
            self.shutdown()
            self._thread.join()
        self.server_close()

    def server_bind(self) -> None:
        """HTTPServer's own asks the name service for this host's name, which may take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "cancelq", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread could be started: the system has none left at this moment
            self._room.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that went away is none of our business; anything else is a fault of this program."""
        log.debug("a request over HTTP came to nothing", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: HealthServer
    protocol_version = "HTTP/1.1"
    server_version = "cancelq"
    sys_version = ""
    error_message_format = "%(code)d %(message)s\n"
    error_content_type = PLAIN

    def handle(self) -> None:
        self.close_connection = True
        head = _read_head(self.connection, self.server.request_s)
        if head is None:
            return
        self.rfile = io.BytesIO(head)
        self.connection.settimeout(self.server.request_s)
        self.handle_one_request()

    def do_GET(self) -> None:
        self.close_connection = True
        answers: dict[str, Callable[[], None]] = {
            "/livez": lambda: self._tell(self.server.health.not_live(), "live\n"),
            "/readyz": lambda: self._tell(self.server.health.not_ready(), "ready\n"),
            "/metrics": self._metrics,
        }
        answer = answers.get(urlsplit(self.path).path)
        if answer:
            answer()
        else:
            self._say(HTTPStatus.NOT_FOUND, PLAIN, f"there is {', '.join(PATHS)}\n".encode())

    do_HEAD = do_GET

    def _not_allowed(self) -> None:
        self.close_connection = True
        self._say(HTTPStatus.METHOD_NOT_ALLOWED, PLAIN, b"only GET and HEAD\n", Allow="GET, HEAD")

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_TRACE = do_CONNECT = _not_allowed

    def _tell(self, reasons: list[str], well: str) -> None:
        if reasons:
            self._say(HTTPStatus.SERVICE_UNAVAILABLE, PLAIN, "".join(f"{line}\n" for line in reasons).encode())
        else:
            self._say(HTTPStatus.OK, PLAIN, well.encode())

    def _metrics(self) -> None:
        encode, content_type = choose_encoder(self.headers.get("Accept", ""))
        self._say(HTTPStatus.OK, content_type, encode(self.server.registry))

    def _say(self, status: HTTPStatus, content_type: str, body: bytes, **headers: str) -> None:
        self.send_response(status)
        more = {"Content-Type": content_type, "Content-Length": str(len(body)), "Cache-Control": "no-store", **headers}
        for name, value in {**more, "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """No line a request: a scrape every few seconds would bury what matters."""


def _read_head(connection: socket.socket, within_s: float) -> bytes | None:
    """A request up to its empty line; None if that did not come whole, in time and within its size."""
    until_s, head = time.monotonic() + within_s, b""
    with contextlib.suppress(OSError):
        while (left_s := until_s - time.monotonic()) > 0 and len(head) < HEAD_MOST:
            connection.settimeout(left_s)
            piece = connection.recv(HEAD_MOST - len(head))
            head += piece
            if b"\r\n\r\n" in head or b"\n\n" in head:
                return head
            if not piece:
                return None
    return None
