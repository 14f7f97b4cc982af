"""`cancelq doctor` as it is typed: what it prints, in which shape, and how it exits."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from cancelq.contract import Lane
from cancelq_worker import cli
from cancelq_worker.cli.doctoring import TITLES
from cancelq_worker.doctor.checkup import GROUPS
from tests.integration.ward import empty_lane
from tests.servers import RedisDebian

pytestmark = pytest.mark.one_server("redis7")

GOLDEN = Path(__file__).parents[1] / "wire" / "golden" / "doctor-v1.json"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with one fault: it syncs once a second; and a lane that nobody serves."""
    config = {"maxmemory": "256mb", "appendfsync": "everysec"}
    server = RedisDebian(tmp_path_factory.mktemp("server"), durable=True, config=config)
    server.start()
    with server.client() as client:
        empty_lane(client, Lane("bitget", "main"))
    yield server.url
    server.stop()


def run(capsys: pytest.CaptureFixture[str], url: str, *args: str, **env: str) -> tuple[int, str, str]:
    code = cli.run(["doctor", *args], {"CANCELQ_REDIS_URL": url, **env})
    return code, *capsys.readouterr()


def test_json_has_the_documented_shape(capsys: pytest.CaptureFixture[str], url: str) -> None:
    """Names of checks and fields stay: programs read them. What is told may be worded anew."""
    code, out, err = run(capsys, url, "--json")
    report = json.loads(out)
    assert (code, err) == (1, "")
    golden = json.loads(GOLDEN.read_text())
    assert shape(report) == golden["shape"]
    assert [one["check"] for one in report["findings"]] == golden["checks"]
    assert report["level"] == "fail"
    assert report["exit"] == code
    assert sum(report["counts"].values()) == len(report["findings"])
    fsync = next(one for one in report["findings"] if one["check"] == "durability.fsync")
    assert fsync["level"] == "warn"
    assert fsync["facts"] == {"appendfsync": "everysec"}


def shape(value: Any) -> Any:
    """The names of the fields and the types of their values; of a list, those of all its items."""
    if isinstance(value, dict):
        return {name: {} if name == "facts" else shape(one) for name, one in value.items()}
    if isinstance(value, list):
        return [dict(sorted({name: kind for one in value for name, kind in shape(one).items() if one[name]}.items()))]
    return type(value).__name__


def test_lines_that_are_piped_are_one_for_each_finding(capsys: pytest.CaptureFixture[str], url: str) -> None:
    code, out, err = run(capsys, url)
    lines = [line for line in out.splitlines() if line]
    assert (code, err) == (1, "")
    assert "\x1b" not in out
    assert [line for line in lines if line in TITLES.values()] == [
        TITLES[group] for group in GROUPS if TITLES[group] in out
    ]
    (fsync,) = [line for line in lines if "everysec" in line]
    assert fsync.startswith("warn  appendfsync everysec: a power cut loses")
    assert " — set it: redis-cli CONFIG SET appendfsync always" in fsync
    assert "FAIL  bitget:main: no live worker — start a worker" in out
    assert re.fullmatch(r"1 failure, 1 warning, 0 unknown, [0-9]+ ok, in [0-9.]+ s", lines[-1])


@pytest.mark.parametrize("width", [80, 160])
def test_a_terminal_of_any_width_is_filled_and_not_passed(url: str, width: int) -> None:
    out = on_terminal(width, url)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in out.splitlines()]
    assert "\x1b[" in out, "coloured"
    assert max(len(line) for line in lines) <= width
    assert any(len(line) > width - 20 for line in lines)
    at = next(n for n, line in enumerate(lines) if line.startswith("warn  appendfsync everysec"))
    assert lines[at + 1].startswith("      "), "wrapped below its own words"
    assert len([line for line in lines if line.startswith("ok    bitget:main: ")]) == 2, "one for a lane and a group"


def on_terminal(width: int, url: str) -> str:
    main, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    command = [sys.executable, "-c", "from cancelq_worker.cli import main; main()", "doctor"]
    env = {"PATH": os.environ["PATH"], "TERM": "xterm", "CANCELQ_REDIS_URL": url}
    process = subprocess.Popen(command, stdin=other, stdout=other, stderr=other, env=env, close_fds=True)
    os.close(other)
    read = b""
    while True:
        try:
            some = os.read(main, 65_536)
        except OSError:  # the other end is closed
            break
        if not some:
            break
        read += some
    os.close(main)
    assert process.wait(30) == 1
    return read.decode()


def test_settings_that_cannot_be_used_are_findings_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = tmp_path / "cancelq.toml"
    config.write_text('redis_ulr = "x"\nlease_ms = 1\n')
    code = cli.run(["--config", str(config), "doctor", "--json"], {})
    report = json.loads(capsys.readouterr().out)
    assert (code, report["exit"]) == (78, 78)
    assert [one["check"] for one in report["findings"]] == ["settings.valid", "settings.valid"]
    assert any("did you mean" in f"{one['told']} {one['remedy']}" for one in report["findings"])


def test_a_server_that_is_away_exits_69(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "redis://user:canary@127.0.0.1:1/0")
    assert (code, err) == (69, "")
    assert "FAIL  redis://127.0.0.1:1/0 does not answer" in out
    assert "canary" not in out


def test_a_lane_that_is_none_is_a_mistake_in_the_use(capsys: pytest.CaptureFixture[str], url: str) -> None:
    code, out, err = run(capsys, url, "--lane", "bitgett:main")
    assert (code, out) == (2, "")
    assert "did you mean" in err


def test_of_the_lanes_only_those_that_were_asked_for(capsys: pytest.CaptureFixture[str], url: str) -> None:
    with Redis.from_url(url) as client:
        empty_lane(client, Lane("bybit", "other"))
        _, out, _ = run(capsys, url, "--lane", "bybit:other")
        client.delete("cancelq:{bybit:other}:inbox", "cancelq:{bybit:other}:results")
    assert "bybit:other" in out
    assert "bitget:main" not in out


def test_a_lane_is_spelt_as_it_is_whatever_its_account_is_called(capsys: pytest.CaptureFixture[str], url: str) -> None:
    """`:a:`, `:x:`, `:key:` and some thousand others are names of pictures to what writes on the terminal."""
    lane = Lane("bitget", "a")
    with Redis.from_url(url) as client:
        empty_lane(client, lane)
        _, out, _ = run(capsys, url, "--lane", str(lane))
        client.delete(lane.inbox, lane.results)
    assert "bitget:a: no live worker" in out
