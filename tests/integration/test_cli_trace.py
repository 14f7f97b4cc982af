"""`cancelq trace` against real servers, with a real worker where one is needed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from redis import Redis

from cancelq import Lane
from cancelq_worker import cli
from cancelq_worker.trips import command
from tests.integration.rig import desk

pytestmark = pytest.mark.one_server

MAIN = Lane("bitget", "main")
OTHER = Lane("bybit", "desk")

Run = Callable[..., tuple[int, str, str]]
MS = 1763690000000
US = MS * 1000


@pytest.fixture
def client(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        for lane in (MAIN, OTHER):
            client.xgroup_create(lane.inbox, "g", mkstream=True)
            client.xgroup_destroy(lane.inbox, "g")
        yield client


@pytest.fixture
def run(redis_url: str, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*args: str) -> tuple[int, str, str]:
        code = cli.run(["trace", *args], {"CANCELQ_REDIS_URL": redis_url})
        out, err = capsys.readouterr()
        return code, out, err

    return run


def add(client: Redis, stream: str, at_ms: int, fields: Mapping[Any, Any], *, number: int = 0) -> str:
    return str(client.xadd(stream, dict(fields), f"{at_ms}-{number}").decode())  # type: ignore[union-attr] # not async


def event(lane: Lane, id_: str, status: str, *, final: bool = True, **fields: str) -> dict[str, str]:
    head = {"v": "1", "id": id_, "status": status, "final": str(int(final))}
    return {**head, "venue": lane.venue, "account": lane.account, "scope": "order", **fields}


def steps(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def words(out: str) -> list[tuple[str, str]]:
    return [(step["id"], step["event"]["status"] if "event" in step else step["step"]) for step in steps(out)]


@pytest.fixture
def story(client: Redis) -> None:
    """An intent that was unresolved, revoked too late, and redriven; another that names the same order."""
    order = {"symbol": "BTCUSDT", "order_id": "121211212122"}
    add(client, MAIN.inbox, MS, {"id": "a-1", **order, "strategy": "grid", "x_desk": "7"})
    add(client, MAIN.inbox, MS + 20, {"id": "r-1", "scope": "revoke", "target": "a-1"})
    add(client, MAIN.inbox, MS + 500, {"id": "a-2", **order, "origin": "a-1"})
    add(client, MAIN.inbox, MS + 600, {"id": "b-1", **order, "priority": "urgent"})
    add(client, MAIN.inbox, MS + 700, {"id": "z-1", "symbol": "BTCUSDT", "order_id": "9"})
    call = {"endpoint": "/api/v2/cancel", "batch_id": "b1", "batch_size": "50", "attempt": "1", "worker": "w1"}
    call |= {
        "queued_us": str(US),
        "taken_us": str(US + 1000),
        "sent_us": str(US + 2000),
        "answered_us": str(US + 30000),
    }
    told = [
        ("a-1", "accepted", False, {**call, "evidence": "reply", "settled_us": str(US + 31000)}),
        ("r-1", "rejected", True, {"detail": "already sent", "queued_us": str(US + 20000)}),
        ("a-1", "unresolved", True, {**call, "evidence": "query", "settled_us": str(US + 400000), "code": "40034"}),
        ("a-2", "cancelled", True, {"origin": "a-1", "settled_us": str(US + 550000), "queued_us": str(US + 500000)}),
        ("b-1", "filled", True, {"filled": "0.5", "settled_us": str(US + 650000), "queued_us": str(US + 600000)}),
        ("z-1", "cancelled", True, {}),
    ]
    for number, (id_, status, final, fields) in enumerate(told):
        named = {} if id_ == "r-1" else {**order, "order_id": "9" if id_ == "z-1" else order["order_id"]}
        at_ms = int(fields.get("settled_us", US + 800000)) // 1000 if id_ != "r-1" else MS + 40
        add(client, MAIN.results, at_ms, event(MAIN, id_, status, final=final, **named, **fields), number=number)
    client.set(MAIN.key("cursor"), f"{MS + 700}-0")


STORY = [
    ("a-1", "queued"),
    ("a-1", "taken"),
    ("a-1", "sent"),
    ("r-1", "queued"),
    ("a-1", "answered"),
    ("a-1", "accepted"),
    ("r-1", "rejected"),
    ("a-1", "unresolved"),
    ("a-2", "queued"),
    ("a-2", "cancelled"),
    ("b-1", "queued"),
    ("b-1", "filled"),
]


@pytest.mark.usefixtures("story")
class TestOneStory:
    @pytest.mark.parametrize("word", ["a-1", "a-2", "b-1", "r-1", "121211212122", f"{MS}-0", f"{MS + 20}-0"])
    def test_every_id_of_it_tells_all_of_it_in_order(self, run: Run, word: str) -> None:
        code, out, err = run(word, "--json")
        assert (code, err) == (0, "")
        assert words(out) == STORY

    def test_a_step_as_json(self, run: Run) -> None:
        told = steps(run("a-1", "--json")[1])
        assert told[0] == {
            "step": "queued",
            "at_us": US,
            "at": "2025-11-21T01:53:20.000000Z",
            "elapsed_us": 0,
            "lane": "bitget:main",
            "id": "a-1",
            "found_by": "id",
            "entry_id": f"{MS}-0",
            "intent": {
                "id": "a-1",
                "symbol": "BTCUSDT",
                "order_id": "121211212122",
                "strategy": "grid",
                "x_desk": "7",
            },
        }
        assert told[1]["call"] == {"endpoint": "/api/v2/cancel", "batch_id": "b1", "batch_size": 50, "attempt": 1}
        assert (told[4]["step"], told[4]["elapsed_us"]) == ("answered", 30000)
        assert told[7]["event"]["code"] == "40034"
        found_by = {step["id"]: step["found_by"] for step in told}
        assert found_by == {"a-1": "id", "r-1": "target", "a-2": "origin", "b-1": "order_id"}

    def test_for_people_it_is_one_step_a_line_off_the_terminal(self, run: Run) -> None:
        _, out, _ = run("a-1")
        head, table = out.split("\n\n")
        assert [line.split()[:3] for line in head.splitlines()] == [
            ["A", "bitget:main", "a-1"],
            ["B", "bitget:main", "r-1"],
            ["C", "bitget:main", "a-2"],
            ["D", "bitget:main", "b-1"],
        ]
        assert "unresolved after 400.0 ms" in head
        assert "revokes a-1" in head
        assert "(stands for a-1)" in head
        lines = table.splitlines()
        assert len(lines) == 1 + len(STORY)
        assert re.fullmatch(
            r"A  2025-11-21 01:53:20\.001000 +1\.0 ms  taken +/api/v2/cancel; batch b1 of 50; .*", lines[2]
        )
        assert "code 40034; evidence query; by w1" in lines[8]
        assert "\x1b" not in out
        assert not any(line.endswith(" ") for line in out.splitlines())

    def test_another_lane_does_not_know_it(self, run: Run) -> None:
        assert run("a-1", "--lane", "bitget:main")[0] == 0
        code, out, err = run("a-1", "--lane", "bybit:desk")
        assert (code, out) == (1, "")
        assert "bybit:desk inbox: empty" in err
        assert "bitget" not in err

    def test_an_unknown_id_is_told_with_where_was_looked_and_how_far_back(self, run: Run) -> None:
        code, out, err = run("nobody")
        assert (code, out) == (1, "")
        assert err.splitlines() == [
            "error: nothing is known of nobody; looked in:",
            "error:   bitget:main inbox: 5 entries, back to 2025-11-21 01:53:20.000000 UTC",
            "error:   bitget:main results: 6 entries, back to 2025-11-21 01:53:20.031000 UTC",
            "error:   bybit:desk inbox: empty",
            "error:   bybit:desk results: empty",
            "remedy: check the id; what is older was trimmed, or is in the archive if there is one",
        ]
        _, _, err = run("a-1", "--since", "1h")
        assert "nothing is known of a-1; looked in, in entries younger than 1h:" in err


def test_an_id_in_two_lanes_is_two_intents(client: Redis, run: Run) -> None:
    for lane, order_id, at_ms in ((MAIN, "7", MS), (OTHER, "8", MS + 1)):
        add(client, lane.inbox, at_ms, {"id": "a", "symbol": "X", "order_id": order_id})
        add(client, lane.results, at_ms + 10, event(lane, "a", "cancelled", symbol="X", order_id=order_id))
        client.set(lane.key("cursor"), f"{at_ms}-0")
    # The order of one lane's intent is another order in another lane.
    add(client, OTHER.results, MS + 20, event(OTHER, "b", "cancelled", symbol="X", order_id="7"))
    code, out, _ = run("a", "--json")
    assert code == 0
    assert [(step["lane"], step["step"]) for step in steps(out)] == [
        ("bitget:main", "queued"),
        ("bybit:desk", "queued"),
        ("bitget:main", "event"),
        ("bybit:desk", "event"),
    ]
    _, out, _ = run("a")
    assert [line.split()[1:3] for line in out.splitlines()[:2]] == [["bitget:main", "a"], ["bybit:desk", "a"]]


def test_hostile_entries_harm_neither_the_terminal_nor_the_trace(client: Redis, run: Run) -> None:
    evil = "\x1b[2J\x1b]0;pwned\x07\r\nbitget:main  forged \u202e\x9b"
    add(
        client,
        MAIN.inbox,
        MS,
        {"id": "a", "symbol": evil, "order_id": "7", "reason": b"\xff\xfe", evil: "x", "y": "z" * 9000},
    )
    twice = ("id", "a", "id", "a", "order_id", "7")
    client.execute_command("XADD", MAIN.inbox, f"{MS + 1}-0", *twice)  # type: ignore[no-untyped-call] # redis-py left it so
    add(client, MAIN.inbox, 2**64 - 1, {"order_id": "7"})
    add(client, MAIN.results, MS + 2, event(MAIN, "a", "rejected", detail=evil, worker=evil, settled_us="9" * 30))
    add(client, MAIN.results, MS + 3, {"id": evil, "order_id": "7", "status": evil})
    add(client, MAIN.results, MS + 4, {"order_id": "7"})
    code, out, err = run("7")
    assert (code, err) == (0, "")
    assert all(line.isprintable() for line in out.splitlines())
    assert not any(line.startswith("bitget:main") for line in out.splitlines())
    told = steps(run("7", "--json")[1])
    assert {step["step"] for step in told} == {"queued", "event", "unreadable", "open"}
    raw, repeated = (step["intent"] for step in told if step.get("entry_id") in (f"{MS}-0", f"{MS + 1}-0"))
    assert raw["symbol"] == evil
    assert raw["reason"] == "\\xff\\xfe"
    assert raw["y"].endswith("z… (9000 bytes)")
    assert repeated["id"] == ["a", "a"]
    assert run(evil)[0] == 0
    code, _, err = run(f"{evil}?")
    assert code == 1
    assert all(line.isprintable() for line in err.splitlines())


def test_an_intent_still_waiting_tells_why(redis_url: str) -> None:
    async def paused() -> tuple[str, str, str]:
        async with desk(redis_url) as rig:
            rig.suspended = True
            order = rig.order()
            await rig.send(id="a", symbol="BTCUSDT", order_id=order)
            async with asyncio.timeout(10):
                while not await command(rig.client, "HEXISTS", MAIN.key("state"), "a"):
                    await command(rig.client, "XREAD", "BLOCK", 10, "STREAMS", MAIN.inbox, "$")
            waiting = await _trace(redis_url, order)
            rig.suspended = False
            await rig.final("a")
            return order, waiting, await _trace(redis_url, order)

    order, before, after = asyncio.run(paused())
    queued, still_open = steps(before)
    assert queued["intent"]["order_id"] == order
    assert still_open["step"] == "open"
    assert still_open["open"]["where"] == "queued"
    assert still_open["open"]["stage"] == "cancel"
    assert still_open["open"]["position"] == 1
    assert still_open["open"]["workers"] == ["w1"]
    assert words(after) == [("a", word) for word in ("queued", "taken", "sent", "answered", "accepted", "cancelled")]


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (["a", "--lane", "bitget:mian"], 1, "error: bitget:mian has no inbox on this server"),
        (["a", "--lane", "main"], 2, "error: 'main' is no lane"),
        (["a", "--lane", ""], 2, "error: '' is no lane"),
        (["a", "--since", "soon"], 2, "error: --since wants an age like 90s"),
        ([""], 2, "error: an empty id"),
        ([], 2, "error: Missing argument"),
    ],
)
def test_what_cannot_be_looked_for(run: Run, args: list[str], code: int, told: str) -> None:
    found, out, err = run(*args)
    assert (found, out) == (code, "")
    assert err.startswith(told)
    assert "\nremedy: " in err


@pytest.mark.usefixtures("redis_url")
def test_a_server_without_lanes(run: Run) -> None:
    code, _, err = run("a")
    assert code == 1
    assert err.startswith("error: nothing is known of a; there is no lane on this server yet\n")


def test_a_server_that_is_not_there() -> None:
    assert cli.run(["trace", "a"], {"CANCELQ_REDIS_URL": "redis://127.0.0.1:1/0"}) == 69


async def _trace(redis_url: str, word: str) -> str:
    """The JSON of a process of its own: the workers of a test write their log lines to this one's streams."""
    program = "import sys; from cancelq_worker.cli import main; sys.argv[0] = 'cancelq'; main()"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, "trace", word, "--json"),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "CANCELQ_REDIS_URL": redis_url},
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()
