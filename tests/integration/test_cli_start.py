"""`worker` and `simulate` as processes: what they print, how they end."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from cancelq_worker.embedded import free_port

pytestmark = pytest.mark.one_server

ROOT = Path(__file__).parents[2]
PATIENCE_S = 15.0
PROGRAM = "import sys; from cancelq_worker.cli import main; sys.argv[0] = 'cancelq'; main()"
KEYS = {
    "CANCELQ_ACCOUNTS__BITGET__MAIN__API_KEY": "canary-key",
    "CANCELQ_ACCOUNTS__BITGET__MAIN__API_SECRET": "canary-secret",
    "CANCELQ_ACCOUNTS__BITGET__MAIN__PASSPHRASE": "canary-pass",
    # Nothing listens there: whatever the worker asks of the venue fails at once.
    "CANCELQ_ACCOUNTS__BITGET__MAIN__BASE_URL": "http://127.0.0.1:1",
}


class Started:
    """A command under way; its stderr is read line by line, or its stdout where that is what it prints to."""

    def __init__(self, *args: str, env: dict[str, str]) -> None:
        mine = {name: value for name, value in os.environ.items() if not name.upper().startswith("CANCELQ_")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env={**mine, **env},
            process_group=0,
        )
        self.seen = ""

    def expect(self, part: str) -> None:
        """Reads on to a line with `part`; the end of the output is an error."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.seen += line
            if part in line:
                return
        raise AssertionError(f"no line with {part!r} in:\n{self.seen}")

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=PATIENCE_S)
        self.seen += out
        return self.process.returncode


@pytest.fixture
def started() -> Iterator[list[Started]]:
    commands: list[Started] = []
    yield commands
    for command in commands:
        if command.process.poll() is None:
            command.process.kill()
        command.process.communicate(timeout=PATIENCE_S)


def test_a_worker_serves_until_term_and_exits_0(started: list[Started], redis_url: str) -> None:
    worker = Started("worker", env={**KEYS, "CANCELQ_REDIS_URL": redis_url})
    started.append(worker)
    worker.expect('"watching lane"')
    assert worker.end(signal.SIGTERM) == 0
    assert "Traceback" not in worker.seen
    assert "canary" not in worker.seen


def test_hup_starts_the_same_process_again_for_settings_of_all_of_it(
    started: list[Started], redis_url: str, tmp_path: Path
) -> None:
    config = tmp_path / "cancelq.toml"
    config.touch(mode=0o600)
    worker = Started("--config", str(config), "worker", env={**KEYS, "CANCELQ_REDIS_URL": redis_url})
    started.append(worker)
    worker.expect('"watching lane"')
    config.write_text(
        "egress = 'elsewhere'\n"
        "[accounts.bitget.second]\napi_key = 'b'\napi_secret = 'c'\npassphrase = 'd'\nbase_url = 'http://127.0.0.1:1'\n"
    )
    worker.process.send_signal(signal.SIGHUP)
    worker.expect('"lanes": ["bitget:second", "bitget:main"]')
    with Redis.from_url(redis_url) as client:
        (key,) = client.smembers("rq:workers")
        assert client.hget(key, "pid") == str(worker.process.pid).encode()
        assert client.hget(key, "queues") == b"lane:bitget:second,lane:bitget:main"
    assert worker.end(signal.SIGTERM) == 0


def test_a_worker_without_its_server_exits_69(started: list[Started]) -> None:
    worker = Started("worker", env={**KEYS, "CANCELQ_REDIS_URL": "redis://u:canary@127.0.0.1:1/0"})
    started.append(worker)
    worker.expect("error: Redis cannot be reached")
    worker.expect("remedy: ")
    assert worker.process.wait(PATIENCE_S) == 69
    assert "canary" not in worker.seen


def test_a_worker_starts_without_rq_s_server_if_that_is_another(started: list[Started], redis_url: str) -> None:
    env = {**KEYS, "CANCELQ_REDIS_URL": redis_url, "CANCELQ_RQ_REDIS_URL": "redis://u:canary@127.0.0.1:1/0"}
    worker = Started("worker", env=env)
    started.append(worker)
    worker.expect("RQ's server cannot be reached")
    worker.expect('"watching lane"')
    assert worker.end(signal.SIGTERM) == 0
    assert "canary" not in worker.seen


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_simulator_serves_until_it_is_ended(started: list[Started], number: signal.Signals) -> None:
    port = free_port()
    simulator = Started("simulate", "--port", str(port), env={})
    started.append(simulator)
    simulator.expect(f"on http://127.0.0.1:{port}")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v2/public/time", timeout=5) as answer:
        assert answer.status == 200
    assert simulator.end(number) == 0


def test_a_port_that_is_taken_exits_1_with_a_remedy(started: list[Started]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        simulator = Started("simulate", "--port", str(taken.getsockname()[1]), env={})
        started.append(simulator)
        simulator.expect("error: cannot listen on 127.0.0.1:")
        simulator.expect("remedy: choose another --port")
        assert simulator.process.wait(PATIENCE_S) == 1
