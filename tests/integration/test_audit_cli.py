"""`cancelq archive` and `cancelq audit` as they are typed, the export, the report in a real browser."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from cancelq_worker import cli
from cancelq_worker.archive.fence import marker_key
from tests.integration.told import MAIN, entry_id, event, fill

Run = Callable[..., tuple[int, str, str]]
BROWSER = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--enable-logging=stderr",
)  # fmt: skip


@pytest.fixture
def client(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url, protocol=2) as client:
        fill(client, 40)
        yield client


@pytest.fixture
def run(client: Redis, redis_url: str, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*args: str, **env: str) -> tuple[int, str, str]:
        code = cli.run(args, {"CANCELQ_REDIS_URL": redis_url, **env})
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_archive_then_audit_then_off(run: Run, client: Redis, tmp_path: Path) -> None:
    env = {"CANCELQ_ARCHIVE_DIR": str(tmp_path)}
    code, out, _ = run("archive", **env)
    assert (code, client.xlen(MAIN.results)) == (0, 0)
    assert "bitget:main: 40 events in 1 segments" in out
    code, out, _ = run("audit", **env)
    assert code == 0
    assert "bitget:main: proven: 40 of 40 intents have their one outcome" in out
    assert "queued → settled" in out
    code, out, err = run("archive", "--off", **env)
    assert code == 0
    assert not client.exists(marker_key(MAIN))
    assert "archive_dir is still set" in err


def test_what_is_wrong_is_told_with_a_remedy_and_exits_1(run: Run, client: Redis) -> None:
    client.xdel(MAIN.results, entry_id(1))
    code, out, err = run("audit", "bitget:main")
    assert code == 1
    assert "THINGS ARE WRONG" in out
    assert "id i-1: it has no final event" in out
    assert "remedy: intent:" in err
    code, out, _ = run("audit", "--json")
    told = json.loads(out)
    assert (code, told["proven"], told["lanes"][0]["findings_count"]) == (1, False, 2)


def test_a_span_of_time_is_audited_alone(run: Run) -> None:
    code, out, _ = run("audit", "--from", "8d", "--json")
    assert (code, json.loads(out)["lanes"][0]["intents"]) == (0, 40)
    code, out, _ = run("audit", "--from", "6d", "--json")
    assert (code, json.loads(out)["lanes"][0]["intents"]) == (0, 0)
    assert run("audit", "--from", "soon")[0] == 2


@pytest.mark.parametrize(("args", "code"), [(["archive"], 78), (["archive", "bybit:none", "--to", "."], 1)])
def test_a_folder_and_a_lane_are_needed(run: Run, args: list[str], code: int) -> None:
    assert run(*args)[0] == code


def test_exports_keep_ids_as_text_and_run_no_formula(run: Run, client: Redis, tmp_path: Path) -> None:
    client.xadd(
        MAIN.inbox,
        {"id": "i-40", "symbol": "BTCUSDT", "order_id": str(10**18 + 40)},
        f"{event(40)['queued_us'][:-3]}-0",
    )
    client.xadd(MAIN.results, event(40, detail="=1+1", x_desk="@home"))
    table, lines = tmp_path / "out.csv", tmp_path / "out.ndjson"
    assert run("audit", "--export", str(table))[0] in (0, 1)
    assert run("audit", "--export", str(lines))[0] in (0, 1)
    rows = list(csv.DictReader(table.open(newline="")))
    assert rows[40]["detail"] == "'=1+1"
    assert rows[40]["order_id"] == f"'{10**18 + 40}"
    assert json.loads(rows[40]["more"]) == {"x_desk": "@home"}
    told = [json.loads(line) for line in lines.read_text().splitlines()]
    assert (len(told), told[40]["detail"], told[40]["order_id"]) == (41, "=1+1", str(10**18 + 40))
    assert run("audit", "--export", str(tmp_path / "out.xls"))[0] == 2


@pytest.mark.one_server
def test_without_pyarrow_it_is_said_how_to_get_it(redis_url: str, client: Redis, tmp_path: Path) -> None:
    """In a process of its own, in which the module cannot be imported."""
    program = (
        "import sys; sys.modules['pyarrow'] = None; from cancelq_worker.cli import run; sys.exit(run({}, {}))".format(
            ["archive", "--to", str(tmp_path)], {"CANCELQ_REDIS_URL": redis_url}
        )
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 78
    assert "pip install 'cancelq[archive]'" in done.stderr


@pytest.mark.one_server
def test_the_report_opens_in_a_browser_from_the_disk(run: Run, client: Redis, tmp_path: Path) -> None:
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("no chromium on this machine; Debian: apt-get install chromium")
    client.xadd(MAIN.results, event(7, detail="<script>alert(1)</script>", status="unresolved"))
    page = tmp_path / "report.html"
    assert run("audit", "--report", str(page))[0] == 1
    text = page.read_text()
    assert not re.search(r"(src|href)=\"(?!#)|url\((?!#)|https?://|<script", text)
    command = [browser, *BROWSER, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert "CONSOLE" not in shown.stderr
    assert re.search(r'id="verdict">1 things are wrong', shown.stdout)
    assert shown.stdout.count("<svg ") == 3
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown.stdout
    for title in ("Latency", "Outcomes over time", "Calls and refusals over time", "Unresolved: a person must look"):
        assert f"<h2>{title}</h2>" in shown.stdout
