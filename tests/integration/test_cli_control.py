"""`status`, `pause` and `resume` against real servers."""

import json
import re
import time
from collections.abc import Callable, Iterator
from typing import cast

import pytest
from redis import Redis
from rq.suspension import suspend

from cancelq import Event, Lane
from cancelq_worker import cli, operate

MAIN = Lane("bitget", "main")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def client(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def lane(client: Redis) -> Lane:
    """A lane as a worker would have made it, with nobody serving it now."""
    for stream in (MAIN.inbox, MAIN.results):
        client.xgroup_create(stream, "g", mkstream=True)
        client.xgroup_destroy(stream, "g")
    return MAIN


@pytest.fixture
def run(redis_url: str, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*args: str, **env: str) -> tuple[int, str, str]:
        code = cli.run(args, {"CANCELQ_REDIS_URL": redis_url, **env})
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_a_lane_without_a_worker_is_unhealthy(lane: Lane, client: Redis, run: Run) -> None:
    client.xadd(lane.inbox, {"symbol": "A", "order_id": "1"})
    code, out, _ = run("status", "--json")
    (state,) = json.loads(out)
    assert code == 1
    assert state["lane"] == "bitget:main"
    assert state["healthy"] is False
    assert state["workers"] == []
    assert (state["not_admitted"], state["inbox_length"], state["queued"]) == (1, 1, 0)
    code, out, _ = run("status")
    assert code == 1
    assert "none alive" in out


def test_no_lane_yet_is_told(run: Run) -> None:
    code, out, err = run("status")
    assert (code, out) == (1, "")
    assert "no lane on this server yet" in err


@pytest.mark.usefixtures("lane")
def test_a_configured_lane_that_nobody_served_is_told(run: Run) -> None:
    code, out, _ = run("status", "--json", CANCELQ_ACCOUNTS__BYBIT__X__API_KEY="k")
    states = {state["lane"]: state for state in json.loads(out)}
    assert code == 1
    assert states["bybit:x"] == {"lane": "bybit:x", "healthy": False, "served": False}
    _, _, err = run("status", CANCELQ_ACCOUNTS__BYBIT__X__API_KEY="k")
    assert "bybit:x is configured, but no worker has ever served it here" in err


@pytest.mark.parametrize("what", ["inbox", "results", "hold", "limits"])
def test_a_lane_with_a_key_of_another_type_is_told_and_hides_no_other(
    what: str, lane: Lane, client: Redis, run: Run
) -> None:
    broken = Lane("bybit", "x")
    client.xadd(broken.inbox, {"symbol": "A", "order_id": "1"})
    client.xadd(lane.inbox, {"symbol": "A", "order_id": "1"})
    client.delete(broken.key(what))
    client.set(broken.key(what), "1")
    configured = {"CANCELQ_ACCOUNTS__BYBIT__X__API_KEY": "k"}
    code, out, err = run("status", **configured)
    assert code == 1
    assert "bitget:main" in out
    assert re.search(r"bybit:x cannot be looked at: .*wrong kind of value", err)
    rows = {row["lane"]: row for row in json.loads(run("status", "--json", **configured)[1])}
    assert rows["bitget:main"]["not_admitted"] == 1
    assert "wrong kind of value" in rows["bybit:x"]["broken"]
    code, out, _ = run("top", "--once", "--json", **configured)
    assert code == 0
    rows = {row["lane"]: row for row in json.loads(out)["lanes"]}
    assert rows["bitget:main"]["not_admitted"] == 1
    assert (rows["bybit:x"]["state"], rows["bybit:x"]["notes"][0]["level"]) == ("broken", "trouble")
    assert "cannot be looked at" in run("top", "--once", **configured)[1]


def test_pause_and_resume_are_seen_and_recorded(lane: Lane, client: Redis, run: Run) -> None:
    code, out, err = run("pause", "bitget:main")
    assert (code, err) == (0, "")
    assert out == "bitget:main is paused: normal cancels wait, urgent ones and look-ups go on\n"
    (state,) = json.loads(run("status", "--json")[1])
    assert state["paused"] is True
    assert [hold["reason"] for hold in state["holds"]] == ["paused"]
    assert "lane paused" in run("status")[1]
    code, out, _ = run("resume", "bitget:main")
    assert (code, out) == (0, "bitget:main: the pause is ended\n")
    assert json.loads(run("status", "--json")[1])[0]["paused"] is False
    entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", client.xrange(lane.results))
    assert [Event.read(entry_id.decode(), fields).act for entry_id, fields in entries] == ["pause", "resume"]
    _, out, _ = run("results", "bitget:main")
    assert "pause by" in out


def test_a_key_that_no_worker_tries_is_told(
    lane: Lane, client: Redis, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operate, "KEY_TRIED_S", 0.3)
    client.hset(lane.key("hold"), "*|auth", "-1 40014 no permission; mend it, then: cancelq resume bitget:main")
    code, out, err = run("resume", "bitget:main")
    assert code == 1
    assert "a worker tries the key" in out
    assert "bitget:main stays held: no worker has tried its key within" in err
    assert "remedy: start a worker that has this account" in err


@pytest.mark.usefixtures("lane")
def test_a_suspension_by_rq_is_shown_where_people_look_for_holds(client: Redis, run: Run) -> None:
    assert json.loads(run("status", "--json")[1])[0]["rq_suspended"] is False
    suspend(client)
    assert json.loads(run("status", "--json")[1])[0]["rq_suspended"] is True
    assert "suspended by `rq suspend`" in run("status")[2]
    elsewhere = {"CANCELQ_RQ_REDIS_URL": "redis://127.0.0.1:1"}
    assert json.loads(run("status", "--json", **elsewhere)[1])[0]["rq_suspended"] is None


@pytest.mark.parametrize("command", ["pause", "resume"])
def test_an_unknown_lane_exits_1_and_is_not_created(client: Redis, run: Run, command: str) -> None:
    code, out, err = run(command, "bitget:mian")
    assert (code, out) == (1, "")
    assert err.startswith("error: bitget:mian has no inbox on this server")
    assert "\nremedy: " in err
    assert client.dbsize() == 0


def test_a_narrow_terminal_leaves_nothing_out(
    lane: Lane, client: Redis, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [lane, Lane("bybit", "a_very_long_account_name_no_10"), Lane("bybit", "a_very_long_account_name_no_11")]
    for name in names:
        client.xadd(name.inbox, {"symbol": "A", "order_id": "1"}, id="1-1")
        client.xgroup_create(name.results, "g", mkstream=True)
    run("pause", str(lane))
    monkeypatch.setenv("FORCE_COLOR", "1")
    for width, lines in (("80", 4 + 3 + 3 + 2), ("300", 1 + 3 + 2)):
        monkeypatch.setenv("COLUMNS", width)
        _, out, _ = run("status")
        assert all(str(name) in out for name in names)
        assert "lane paused" in out
        assert len(out.splitlines()) == lines


def test_what_nobody_reads_is_as_old_as_it_is_and_has_no_worker(lane: Lane, client: Redis, run: Run) -> None:
    """Also where workers are alive that have other accounts."""
    client.xadd(lane.inbox, {"symbol": "A", "order_id": "1"}, id="1-1")
    client.zadd("cancelq:workers", {"w-1": 4e15})
    _, out, _ = run("status")
    (told,) = [line for line in out.splitlines() if line.startswith("bitget:main")]
    assert re.search(r" 0 +\d+\.\d h .* 1 +none serves it", told)


def test_an_act_is_told_by_the_servers_clock(
    lane: Lane, client: Redis, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as ahead:
        ahead.setattr(time, "time_ns", lambda: 4_000_000_000_000_000_000)
        assert run("pause", str(lane))[0] == run("resume", str(lane))[0] == 0
    entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", client.xrange(lane.results))
    assert len(entries) == 2
    for entry_id, fields in entries:
        told_ms, written_ms = int(fields[b"settled_us"]) // 1000, int(entry_id.partition(b"-")[0])
        assert abs(told_ms - written_ms) < 10_000
