"""A server with the users of `ops/redis`, the simulated venue, and a worker and a jobs process of their own users."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from cancelq import Lane
from cancelq_worker import cli
from cancelq_worker.simulator.app import serve as serve_simulator
from cancelq_worker.simulator.core import Entry
from cancelq_worker.simulator.orders import Kind
from cancelq_worker.simulator.simulator import DEMO_KEY, DEMO_PASSPHRASE, DEMO_SECRET, Simulator
from tests.integration.jobs_rig import PROGRAM
from tests.integration.test_rq_worker import Child
from tests.servers import KINDS, RedisServer

ROOT = Path(__file__).parents[2]
USERS_SH = ROOT / "ops" / "redis" / "users.sh"
MAIN, OTHER = Lane("bitget", "main"), Lane("bybit", "main")
USERS = (
    "admin", "worker", "operator", "auditor", "jobs", "metrics", "rq-desk", "replica", "sentinel",
    "producer-bitget-main", "producer-bybit-main",
)  # fmt: skip
PATIENCE_S = 20.0
OPEN_TO_ALL = "user default on nopass ~* &* +@all\n"

ResultT = TypeVar("ResultT")
Run = Callable[..., "tuple[int, str, str]"]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line against a server, in this process: exit code, output, errors."""

    def run(url: str, *words: str) -> tuple[int, str, str]:
        code = cli.run(words, {"CANCELQ_REDIS_URL": url})
        out, err = capsys.readouterr()
        return code, out, err

    return run


def password_of(user: str) -> str:
    return f"password-of-{user}"


def users_sh(folder: Path, *lanes: str) -> subprocess.CompletedProcess[str]:
    """What the script prints for these lanes, with the passwords in a folder."""
    return subprocess.run(
        [str(USERS_SH), str(folder), *lanes], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


def write_passwords(folder: Path, users: Sequence[str] = USERS) -> Path:
    passwords = folder / "passwords"
    passwords.mkdir(mode=0o700)
    for user in users:
        (passwords / user).write_text(password_of(user) + "\n")
    return passwords


class Venue:
    """The simulated venue, on a loop of its own thread."""

    def __init__(self) -> None:
        self.simulator = Simulator(rng=random.Random(7))
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        self._serving = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)
        self._thread.start()
        assert self._serving.wait(PATIENCE_S)

    def order(self, **more: Any) -> str:
        """A new order of the lane MAIN; its id."""
        entry = Entry("BTCUSDT", Kind("order"), created_ms=time.time_ns() // 1_000_000 - 1000, **more)
        return self.on_loop(lambda: str(self.simulator.add_order(entry, venue="bitget").order_id))

    def state(self, order_id: str) -> str:
        """What the venue holds an order to be."""
        (row,) = self.on_loop(lambda: self.simulator.truth_of([order_id], venue="bitget").entries)
        return str(row["state"])

    def stick(self, *order_ids: str) -> None:
        """These orders cannot be cancelled from now on, all others can."""
        self.on_loop(lambda: self.simulator.configure({"stuck_ids": list(order_ids)}))

    def on_loop(self, work: Callable[[], ResultT]) -> ResultT:
        async def done() -> ResultT:
            return work()

        return asyncio.run_coroutine_threadsafe(done(), self._loop).result(PATIENCE_S)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(PATIENCE_S)
        self._loop.close()

    async def _serve(self) -> None:
        async with serve_simulator(self.simulator) as served:
            self.base_url = served.base_url
            self._serving.set()
            await self._ended.wait()


class Doors:
    """A server whose users are those of `ops/redis`."""

    def __init__(self, server: RedisServer, acl_file: Path, passwords: Path) -> None:
        self.server = server
        self._admin = self.client("admin")
        with server.client() as client:  # still open to all
            acl_file.write_text(users_sh(passwords, str(MAIN), str(OTHER)).stdout)
            client.execute_command("ACL LOAD")

    def url(self, user: str) -> str:
        return f"redis://{user}:{password_of(user)}@127.0.0.1:{self.server.port}/0"

    def client(self, user: str) -> Redis:
        """A client that asks once, under that user's name."""
        return Redis.from_url(
            self.url(user), protocol=2, driver_info=None, socket_timeout=5, retry=Retry(NoBackoff(), 0)
        )

    def admin(self, *words: Any) -> Any:
        return self._admin.execute_command(*words)  # type: ignore[no-untyped-call]

    def refused(self) -> set[str]:
        """What the server has refused to whom since the last time this was asked: `user: command or key`."""
        log = cast("list[list[Any]]", self._raw("ACL LOG"))
        self.admin("ACL LOG RESET")
        entries = [dict(zip(entry[::2], entry[1::2], strict=True)) for entry in log]
        return {f"{e[b'username'].decode()}: {e[b'object'].decode()}" for e in entries}

    def _raw(self, *words: str) -> Any:
        with self.client("admin") as client:
            client.response_callbacks.clear()
            return client.execute_command(*words)

    def close(self) -> None:
        self._admin.close()


@contextmanager
def doors(kind: str, folder: Path, config: Mapping[str, str] | None = None) -> Iterator[Doors]:
    """A running server of that kind with these users. Raises ServerMissing."""
    acl_file = folder / "users.acl"
    # Open at first, so that a server can be waited for that has no users yet; then closed as an operator does it.
    acl_file.write_text(OPEN_TO_ALL)
    server = KINDS[kind](folder, durable=True, config={"aclfile": str(acl_file), **(config or {})})
    server.start()
    try:
        made = Doors(server, acl_file, write_passwords(folder))
        try:
            yield made
        finally:
            made.close()
    finally:
        server.stop()


def accounts(base_url: str) -> dict[str, str]:
    """The lane MAIN with the simulator's keys."""
    account = "CANCELQ_ACCOUNTS__BITGET__MAIN__"
    return {
        f"{account}BASE_URL": base_url,
        f"{account}API_KEY": DEMO_KEY,
        f"{account}API_SECRET": DEMO_SECRET,
        f"{account}PASSPHRASE": DEMO_PASSPHRASE,
    }


def start(children: list[Child], words: Sequence[str], env: Mapping[str, str]) -> Child:
    """A command of cancelq as a process."""
    child = Child([sys.executable, "-c", PROGRAM, *words], {"PATH": os.environ["PATH"], **env})
    children.append(child)
    return child
