"""The demo as a newcomer runs it: a command that starts everything, judges it and leaves nothing behind."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cancelq_worker.demo.scenario import KINDS

ENTRIES = 300
LIMITS = (
    r"batch-cancel-order +\d+ +\d+ +10",
    r"cancel-batch \(orders\) +\d+ +\d+ +20",
    r"cancelOrders +\d+ +\d+ +2",
)
CANCELQ = [sys.executable, "-c", "from cancelq_worker.cli import main; main()"]


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """A machine on which somebody has set cancelq up for real; the demo must not come near that."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    return {
        **os.environ,
        "TMPDIR": str(temporary),
        "CANCELQ_CONFIG": str(tmp_path / "nowhere.toml"),
        "CANCELQ_REDIS_URL": "redis://127.0.0.1:1/0",
        "CANCELQ_ACCOUNTS__BINGX__REAL__API_KEY": "a-real-key",
    }


def test_all_agrees(env: dict[str, str]) -> None:
    done = subprocess.run(
        [*CANCELQ, "demo", "--orders", str(ENTRIES)], env=env, capture_output=True, text=True, timeout=110
    )
    told = done.stdout
    assert done.returncode == 0, told + done.stderr
    rows = {
        kind: row for kind in KINDS if (row := re.search(rf"^{re.escape(kind)} +(\w+ +[-\d].*)$", told, re.MULTILINE))
    }
    assert set(rows) == set(KINDS)
    for kind, row in rows.items():
        _, *sent, agree, wrong = row.group(1).split()
        assert sum(int(count) for count in sent if count != "-") == int(agree), (kind, told)
        assert wrong == "0", (kind, told)
    assert re.search(rf"^all +\d+ +\d+ +\d+ +{ENTRIES} +0$", told, re.MULTILINE)
    assert re.search(r"^(missing|doubled) +0 +0 +0 +0$", told, re.MULTILINE)
    assert re.search(r"^the order stream +\d+ +\d+ ", told, re.MULTILINE)
    for limit in LIMITS:
        assert re.search(rf"{limit} / s +0$", told, re.MULTILINE), (limit, told)
    assert "no venue refused a call" in " ".join(told.split())
    assert max(map(len, told.partition("Audit")[2].splitlines())) <= 80
    assert not list(Path(env["TMPDIR"]).iterdir())


def test_an_interrupt_ends_everything(env: dict[str, str]) -> None:
    with _running_demo(env) as (demo, children):
        demo.send_signal(signal.SIGINT)
        told = demo.stdout.read() if demo.stdout else ""
        assert demo.wait(30) == 130
    assert "Interrupted" in told
    assert not [pid for pid in children if _lives(pid)]
    assert not list(Path(env["TMPDIR"]).iterdir())


def test_a_worker_that_dies_is_told_with_its_log(env: dict[str, str]) -> None:
    with _running_demo(env) as (demo, children):
        (worker, *_) = (pid for pid, command in children.items() if command.endswith(" worker"))
        os.kill(worker, signal.SIGKILL)
        told = demo.stdout.read() if demo.stdout else ""
        assert demo.wait(30) == 1
    assert re.search(r"The demo failed: worker-\d was ended by SIGKILL", told)
    kept = Path(told.rpartition("are kept in ")[2].strip())
    assert kept.parent == Path(env["TMPDIR"])
    assert {"simulator.log", "worker-1.log"} <= {file.name for file in kept.iterdir()}
    assert not [pid for pid in children if _lives(pid)]


def test_a_number_it_cannot_do_is_refused(env: dict[str, str]) -> None:
    done = subprocess.run([*CANCELQ, "demo", "--orders", "3"], env=env, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert "cancelq demo --orders" in done.stderr


@contextmanager
def _running_demo(env: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], dict[int, str]]]:
    """A demo that has begun to settle, and its children: process id to command."""
    demo = subprocess.Popen(
        [*CANCELQ, "demo", "--orders", "2000"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert demo.stdout
        for line in demo.stdout:
            if " settled: " in line:
                break
        children = _children(demo.pid)
        assert len(children) == 5, children
        yield demo, children
    finally:
        if demo.poll() is None:
            demo.terminate()
        demo.wait(30)
        if demo.stdout:
            demo.stdout.close()


def _children(parent: int) -> dict[int, str]:
    listed = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True, timeout=10
    ).stdout
    rows = (line.split(None, 2) for line in listed.splitlines())
    return {int(pid): command for pid, ppid, command in rows if int(ppid) == parent and not command.startswith("ps ")}


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
