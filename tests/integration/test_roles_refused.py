"""What somebody sees whom the server does not let in, or not that far; and a worker whose rights are taken away."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cancelq import AsyncClient, Client
from cancelq.contract import Status
from cancelq.errors import BrokerDown, BrokerRefused
from cancelq_worker.exits import Exit
from tests.integration.doors import MAIN, PATIENCE_S, Doors, Run, Venue, accounts, doors, run, start
from tests.integration.rights import AUDITOR, JOBS, METRICS, PRODUCER, STRANGER, WORKER
from tests.integration.test_rq_worker import Child, children
from tests.servers import KINDS, ServerMissing

__all__ = ["children", "run"]  # the fixtures

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


@pytest.fixture(scope="module", params=list(KINDS))
def shut(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    """A server with its users and a lane, which nobody serves."""
    try:
        with doors(request.param, tmp_path_factory.mktemp("doors")) as made:
            with made.client("admin") as admin:
                for stream in (MAIN.inbox, MAIN.results):
                    admin.xgroup_create(stream, "g", mkstream=True)
            yield made
    except ServerMissing as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize(
    ("user", "line"),
    [
        (STRANGER, "submit bitget:main --symbol BTCUSDT --order-id 1"),
        (STRANGER, "results bitget:main"),
        (STRANGER, "guard bitget:main --ttl 10s --once"),
        (STRANGER, "guard bitget:main --off"),
        (PRODUCER, "status"),
        (PRODUCER, "pause bitget:main"),
        (PRODUCER, "kill bitget:main --yes"),
        (PRODUCER, "audit bitget:main"),
        (PRODUCER, "trace 1-1"),
        (PRODUCER, "top --once"),
        (AUDITOR, "submit bitget:main --symbol BTCUSDT --order-id 1"),
        (AUDITOR, "pause bitget:main"),
        (AUDITOR, "resume bitget:main"),
        (AUDITOR, "kill bitget:main --yes"),
        (AUDITOR, "guard bitget:main --ttl 10s --once"),
        (AUDITOR, "archive bitget:main --to {folder}"),
        (METRICS, "submit bitget:main --symbol BTCUSDT --order-id 1"),
        (METRICS, "pause bitget:main"),
        (METRICS, "archive bitget:main --to {folder}"),
        (JOBS, "resume bitget:main"),
        (JOBS, "guard bitget:main --ttl 10s --once"),
        (WORKER, "submit bitget:main --symbol BTCUSDT --order-id 1"),
    ],
)
def test_a_command_beyond_the_role_names_the_user_and_the_way_out(
    shut: Doors, run: Run, tmp_path: Path, user: str, line: str
) -> None:
    code, out, err = run(shut.url(user), *line.format(folder=tmp_path).split())
    assert (code, out) == (Exit.CONFIGURATION, "")
    assert re.search(rf"^error: Redis refused user {user}: .*permission", err, re.MULTILINE), err
    assert "docs/SECURITY.md" in err
    assert "password-of" not in err
    assert shut.refused()


@pytest.mark.parametrize("line", ["status", "results", "submit bitget:main --symbol B --order-id 1", "audit", "top"])
def test_a_wrong_password_is_told_as_such(shut: Doors, run: Run, line: str) -> None:
    url = shut.url("operator").replace("password-of-operator", "canary-password")
    code, out, err = run(url, *line.split())
    assert (code, out) == (Exit.CONFIGURATION, "")
    assert "error: Redis refused user operator: invalid username-password pair" in err
    assert "put the right user and password into redis_url" in err
    assert "canary" not in err


async def test_what_a_producer_is_told_by_its_library(shut: Doors) -> None:
    with Client(shut.url(STRANGER)) as client, pytest.raises(BrokerRefused, match="lacks a permission") as refused:
        client.submit(MAIN, symbol="BTCUSDT", order_id="1")
    assert refused.value.code == "NOPERM"
    wrong = shut.url(PRODUCER).replace("password-of", "canary")
    with Client(wrong) as client, pytest.raises(BrokerDown, match="invalid username-password pair") as down:
        client.submit(MAIN, symbol="BTCUSDT", order_id="1")
    assert "canary" not in str(down.value)
    async with AsyncClient(wrong) as other:
        with pytest.raises(BrokerDown, match="invalid username-password pair"):
            await other.submit(MAIN, symbol="BTCUSDT", order_id="1")


@pytest.mark.parametrize("shut", ["redis7"], indirect=True)
@pytest.mark.parametrize(
    ("command", "user"), [("worker", AUDITOR), ("worker", METRICS), ("worker", "nobody"), ("jobs", METRICS)]
)
def test_a_process_under_a_user_that_is_not_its_own_ends_with_the_cause(
    shut: Doors, children: list[Child], command: str, user: str
) -> None:
    env = {"CANCELQ_REDIS_URL": shut.url(user), **accounts("http://127.0.0.1:1")}
    child = start(children, [command], env)
    child.expect(f"Redis refused user {user}")
    assert child.code() == Exit.CONFIGURATION
    told = "".join(child.seen)
    assert "Traceback" not in told
    assert "password-of" not in told


@pytest.mark.parametrize("shut", ["redis7"], indirect=True)
def test_a_worker_that_is_shut_out_waits_and_goes_on_when_it_is_let_in(shut: Doors, children: list[Child]) -> None:
    venue = Venue()
    try:
        env = {"CANCELQ_REDIS_URL": shut.url(WORKER), **accounts(venue.base_url)}
        worker = start(children, ["worker"], env)
        worker.expect("watching lane")
        for taken, given in (
            (("ACL SETUSER", WORKER, "-evalsha", "clearselectors"), ("ACL LOAD",)),
            (("ACL SETUSER", WORKER, "off"), ("ACL LOAD",)),
        ):
            shut.admin(*taken)
            shut.admin("CLIENT KILL", "USER", WORKER)
            worker.expect("no heartbeat")
            before, lines, began_s = _cpu_s(worker), len(worker.seen), time.monotonic()
            _listen_for(worker, 2.0)
            passed_s = time.monotonic() - began_s
            assert _cpu_s(worker) - before < 0.3 * passed_s
            assert len(worker.seen) - lines < 20 * passed_s
            shut.admin(*given)
            with Client(shut.url(PRODUCER)) as client:
                ticket = client.submit(MAIN, symbol="BTCUSDT", order_id=venue.order())
                assert ticket.wait(PATIENCE_S).status is Status.cancelled
        assert "password-of" not in "".join(worker.seen)
    finally:
        venue.close()


def _listen_for(worker: Child, span_s: float) -> None:
    """Reads what a worker says that is shut out, for so long."""
    until_s = time.monotonic() + span_s
    while time.monotonic() < until_s:
        worker.expect("no heartbeat")


def _cpu_s(child: Child) -> float:
    """Processor time a process has used so far."""
    fields = Path(f"/proc/{child.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND
