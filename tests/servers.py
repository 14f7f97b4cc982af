"""Real Redis servers for tests: Valkey from the package index and the machine's own redis-server.

Each is a process on a free port of 127.0.0.1 with a folder of its own; only that process is ever ended.
"""

import contextlib
import os
import random
import re
import shutil
import socket
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from cancelq_worker.embedded import DURABLE, LOOPBACK, EmbeddedServer

READY_TRIES = 1000
READY_STEP_S = 0.01

OLDEST_MAJOR = 7
DEBIAN_REDIS = "/usr/bin/redis-server"


class ServerMissing(Exception):
    """The server is not installed on this machine; the message says how to get it."""


def quiet_port() -> int:
    """A free port of 127.0.0.1 below those that the system hands out to connections: one of these may be taken by a
    connection of another test before the server comes up, or while it is down."""
    handed_out = Path("/proc/sys/net/ipv4/ip_local_port_range")
    above = int(handed_out.read_text().split()[0]) if handed_out.exists() else 32_768
    while True:
        port = random.SystemRandom().randrange(10_000, above)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port


class RedisServer(ABC):
    """One running server: `url`, `pid`, and ways to harm it.

    `durable` servers (AOF, `appendfsync always`) still have their data after `restart()`; others are empty
    then. The port, and so the url, stays the same over a restart; the pid does not.
    """

    def __init__(self, folder: Path, *, durable: bool, config: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.port = quiet_port()
        self.durable = durable
        self.config = dict(config or {})

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    @abstractmethod
    def pid(self) -> int:
        """The running server's process id; an error if it does not run."""

    @abstractmethod
    def start(self) -> None:
        """Returns once the server answers and has loaded its data."""

    @abstractmethod
    def stop(self) -> None:
        """Ends the server in good order; nothing if it does not run."""

    @abstractmethod
    def kill9(self) -> None:
        """Ends the server without warning and returns when it is gone."""

    def restart(self) -> None:
        """Starts the server again on its port and data, stopping it first if it runs."""
        self.stop()
        self.start()

    def config_set(self, name: str, value: str) -> None:
        with self.client() as client:
            client.config_set(name, value)

    def flush(self) -> None:
        """Drops all data and all loaded scripts; what `config_set` changed stays changed."""
        with self.client() as client:
            client.flushall()
            client.script_flush()

    def client(self) -> Redis:
        """A client that asks once and reports what happens, so that no command is repeated behind a test."""
        return Redis.from_url(self.url, socket_timeout=5, retry=Retry(NoBackoff(), 0))


class ValkeyEmbedded(RedisServer):
    """The server that `cancelq demo` runs on."""

    _embedded: EmbeddedServer | None = None

    @property
    def pid(self) -> int:
        if self._embedded is None:
            raise AssertionError("the server is not running")
        return self._embedded.pid

    def start(self) -> None:
        embedded = EmbeddedServer(durable=self.durable, port=self.port, data_dir=self.folder, config=self.config)
        embedded.start()
        self._embedded = embedded

    def stop(self) -> None:
        if self._embedded is not None:
            self._embedded.stop()
            self._embedded = None

    def kill9(self) -> None:
        if self._embedded is not None:
            self._embedded.kill()
            self._embedded = None


class RedisDebian(RedisServer):
    """The distribution's redis-server: 7.0 is the oldest one supported."""

    _process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise AssertionError("the server is not running")
        return self._process.pid

    def start(self) -> None:
        # A group of its own: Ctrl-C on the test run must not end it before its finalizer does. But no session: where
        # the system shares its processors among sessions (Linux: autogroup), one that rests most of the time was seen
        # to wait five seconds for its turn, runnable, while the session of the tests was busy.
        self._process = subprocess.Popen(
            self._command(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.folder,
            process_group=0,
        )
        self._await_ready(self._process)

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            # A test may have left it stopped (SIGSTOP): only KILL ends it then.
            process.kill()
            process.wait(timeout=10)

    def kill9(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(timeout=10)

    def _command(self) -> list[str]:
        directives = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.folder),
            "logfile": str(self._log),
            "save": "",
            "maxmemory-policy": "noeviction",
            **(DURABLE if self.durable else {}),
            **self.config,
        }
        return [
            find_redis_server(),
            *(word for name, value in directives.items() for word in (f"--{name}", value)),
        ]

    @property
    def _log(self) -> Path:
        return self.folder / "redis.log"

    def _await_ready(self, process: subprocess.Popen[bytes]) -> None:
        for _ in range(READY_TRIES):
            if self._answers(process.pid):
                return
            try:
                # The pause between two looks ends at once if the process does.
                process.wait(READY_STEP_S)
            except subprocess.TimeoutExpired:
                continue
            break
        process.kill()
        process.wait(timeout=10)
        self._process = None
        told = self._log.read_text(errors="replace") if self._log.exists() else "(it wrote no log)"
        raise AssertionError(f"redis-server did not come up on port {self.port}:\n{told}")

    def _answers(self, pid: int) -> bool:
        try:
            with self.client() as client:
                # While it loads its data the server answers INFO, but refuses PING.
                return bool(client.ping()) and client.info("server")["process_id"] == pid
        except RedisError:
            return False


KINDS: dict[str, type[RedisServer]] = {"valkey": ValkeyEmbedded, "redis7": RedisDebian}


@cache
def find_redis_server() -> str:
    """The path of a redis-server of version 7.0 or newer, else `ServerMissing`."""
    found = shutil.which("redis-server") or (DEBIAN_REDIS if os.access(DEBIAN_REDIS, os.X_OK) else None)
    if found is None:
        raise ServerMissing("no redis-server on this machine; Debian: apt-get install redis-server")
    told = subprocess.run([found, "--version"], capture_output=True, text=True, check=True, timeout=10).stdout
    version = re.search(r"v=(\d+)\.(\d+)", told)
    if version is None or int(version[1]) < OLDEST_MAJOR:
        raise ServerMissing(f"{found} is older than {OLDEST_MAJOR}.0: {told.strip()}")
    return found


class ServerPool:
    """The servers shared by a test session, each started when a test first needs it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._servers: dict[str, RedisServer] = {}

    def get(self, kind: str) -> RedisServer:
        """The running server of this kind; `ServerMissing` if this machine has none."""
        if kind not in self._servers:
            folder = self._folder / kind
            folder.mkdir(exist_ok=True)
            server = KINDS[kind](folder, durable=False)
            server.start()
            self._servers[kind] = server
        return self._servers[kind]

    def stop(self) -> None:
        for server in self._servers.values():
            server.stop()
