"""`submit`, `feed` and `results` against a real server, answered by a small worker of the test's own."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from redis import Redis

from cancelq import Lane
from cancelq.client import Client
from cancelq.contract import Accepted, read_entry
from cancelq.errors import BatchIncomplete
from cancelq_worker import cli
from cancelq_worker.cli import feeding
from tests.ha import until
from tests.servers import RedisServer

pytestmark = pytest.mark.one_server

MAIN = Lane("bitget", "main")
OTHER = Lane("bybit", "desk")
ROOT = Path(__file__).parents[2]
PATIENCE_S = 15.0

Run = Callable[..., tuple[int, str, str]]


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
        code = cli.run(args, {"CANCELQ_REDIS_URL": redis_url})
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def answering(client: Redis, redis_url: str) -> Iterator[None]:
    """Settles every intent of both lanes: as cancelled, or as filled if its order id ends with 9."""
    ended = threading.Event()
    thread = threading.Thread(target=_answer, args=(redis_url, ended))
    thread.start()
    yield
    ended.set()
    thread.join(PATIENCE_S)


def inbox(client: Redis, lane: Lane = MAIN) -> list[dict[str, str]]:
    entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", client.xrange(lane.inbox))
    return [{name.decode(): value.decode() for name, value in fields.items()} for _, fields in entries]


class TestSubmit:
    def test_it_queues_what_was_asked_for(self, client: Redis, run: Run) -> None:
        code, out, err = run(
            "submit",
            "bitget:main",
            *("--scope", "symbol", "--symbol", "BTCUSDT", "--id", "a-1", "--priority", "urgent"),
            *("--kinds", "order,tpsl", "--older-than-ms", "1763690000000", "--client-prefix", "mm-"),
            *("--not-before-ms", "1763690000001", "--expires-at-ms", "1763690000002"),
            *("--strategy", "grid", "--reason", "drill"),
        )
        assert (code, out, err) == (0, "queued a-1 on bitget:main\n", "")
        assert inbox(client) == [
            {
                "id": "a-1",
                "scope": "symbol",
                "symbol": "BTCUSDT",
                "priority": "urgent",
                "kinds": "order,tpsl",
                "older_than_ms": "1763690000000",
                "client_prefix": "mm-",
                "not_before_ms": "1763690000001",
                "expires_at_ms": "1763690000002",
                "strategy": "grid",
                "reason": "drill",
            }
        ]

    def test_json_tells_id_and_entry(self, client: Redis, run: Run) -> None:
        code, out, _ = run("submit", "bitget:main", "--symbol", "A", "--client-order-id", "c", "--json")
        told = json.loads(out)
        assert code == 0
        assert told["lane"] == "bitget:main"
        assert client.xrange(MAIN.inbox, told["entry_id"], told["entry_id"])
        assert inbox(client)[0]["id"] == told["id"]

    def test_a_bad_field_exits_65_and_queues_nothing(self, client: Redis, run: Run) -> None:
        code, out, err = run("submit", "bitget:main", "--scope", "ordr", "--symbol", "A", "--order-id", "1")
        assert (code, out) == (65, "")
        assert "error: scope: 'ordr' is not known, did you mean \"order\"?" in err
        assert inbox(client) == []

    def test_an_unknown_lane_exits_1_and_is_not_created(self, client: Redis, run: Run) -> None:
        code, _, err = run("submit", "bitget:mian", "--symbol", "A", "--order-id", "1")
        assert code == 1
        assert err.startswith("error: bitget:mian: nothing was queued")
        assert "remedy: " in err
        assert not client.exists(Lane("bitget", "mian").inbox)

    @pytest.mark.usefixtures("answering")
    @pytest.mark.parametrize(("order_id", "status", "code"), [("10", "cancelled", 0), ("19", "filled", 1)])
    def test_waiting_tells_the_outcome_and_only_the_one_asked_for_is_0(
        self, run: Run, order_id: str, status: str, code: int
    ) -> None:
        got, out, err = run("submit", "bitget:main", "--symbol", "A", "--order-id", order_id, "--wait", "--json")
        assert got == code
        assert json.loads(out)["status"] == status
        assert "waiting for its outcome" in err

    @pytest.mark.usefixtures("client")
    def test_no_outcome_in_time_exits_1_and_says_how_to_go_on(self, run: Run) -> None:
        code, _, err = run(
            "submit", "bitget:main", "--symbol", "A", "--order-id", "1", "--id", "a", "--wait", "--timeout", "0.05"
        )
        assert code == 1
        assert "error: no final event within 0.05 s for a" in err
        assert "cancelq results --id a" in err


class TestFeed:
    @pytest.mark.usefixtures("answering")
    def test_a_file_with_lanes_of_its_own_is_fed_and_waited_for(self, run: Run, tmp_path: Path) -> None:
        file = tmp_path / "a.csv"
        file.write_text("lane,symbol,order_id\n" + "".join(f"bybit:desk,A,{n}0\n" for n in range(1200)) + ",A,5\n")
        code, out, err = run("feed", str(file), "--lane", "bitget:main", "--wait")
        assert (code, out, err) == (0, "1201 queued, 1201 cancelled\n", "")

    @pytest.mark.usefixtures("answering")
    def test_an_outcome_that_was_not_asked_for_exits_1(self, run: Run, tmp_path: Path) -> None:
        file = tmp_path / "a.jsonl"
        file.write_text('{"symbol": "A", "order_id": "8"}\n{"symbol": "A", "order_id": "9"}\n')
        code, out, err = run("feed", str(file), "--lane", "bitget:main", "--wait", "--json")
        assert code == 1
        assert [json.loads(line)["status"] for line in out.splitlines()] == ["cancelled", "filled"]
        assert err == "2 queued, 1 cancelled, 1 filled\n"

    def test_bad_lines_are_told_and_good_ones_sent(self, client: Redis, run: Run, tmp_path: Path) -> None:
        file = tmp_path / "a.jsonl"
        file.write_text(
            '{"symbol": "A", "order_id": "1"}\n{"symbol": "A"}\n{"symbol": "A", "order_id": "2", "lane": "x:y"}\n'
            '{"symbol": "A", "order_id": "3"}\n'
        )
        code, out, err = run("feed", str(file), "--lane", "bitget:main")
        assert (code, out) == (65, "2 queued, 2 bad lines not sent\n")
        told = err.splitlines()
        assert len(told) == 2
        assert told[0].startswith(f"{file}:2: order_id: missing")
        assert told[1].startswith(f"{file}:3: lane: unknown venue")
        assert [fields["order_id"] for fields in inbox(client)] == ["1", "3"]

    @pytest.mark.usefixtures("client")
    def test_the_hundredth_line_is_told_by_its_number(self, run: Run, tmp_path: Path) -> None:
        """`:100:` is the name of a picture to what writes on the terminal."""
        file = tmp_path / "a.jsonl"
        file.write_text('{"symbol": "A", "order_id": "1"}\n' * 99 + '{"symbol": "A"}\n')
        code, _, err = run("feed", str(file), "--lane", "bitget:main")
        assert code == 65
        assert err.startswith(f"{file}:100: order_id: missing")

    def test_receipts_as_json(self, client: Redis, run: Run, tmp_path: Path) -> None:
        file = tmp_path / "a.jsonl"
        file.write_text('{"symbol": "A", "order_id": "1", "id": "x-1"}\n')
        code, out, err = run("feed", str(file), "--lane", "bitget:main", "--json")
        assert (code, err) == (0, "1 queued\n")
        assert json.loads(out)["id"] == "x-1"
        assert len(inbox(client)) == 1

    @pytest.mark.usefixtures("client")
    def test_outcomes_that_do_not_come_exit_1(self, run: Run, tmp_path: Path) -> None:
        file = tmp_path / "a.jsonl"
        file.write_text('{"symbol": "A", "order_id": "1", "id": "x-1"}\n')
        code, out, err = run("feed", str(file), "--lane", "bitget:main", "--wait", "--timeout", "0.05")
        assert (code, out) == (1, "1 queued\n")
        assert "1 without an outcome after 0.05 s, not given up: x-1" in err

    @pytest.mark.usefixtures("client")
    @pytest.mark.parametrize("text", ["", "\n\n", "symbol,order_id\n"])
    def test_an_empty_file_is_nothing_to_do(self, run: Run, tmp_path: Path, text: str) -> None:
        file = tmp_path / "empty"
        file.write_text(text)
        assert run("feed", str(file), "--lane", "bitget:main") == (0, "0 queued\n", "")

    def test_a_file_that_is_not_there_exits_65(self, run: Run, tmp_path: Path) -> None:
        code, _, err = run("feed", str(tmp_path / "none"), "--lane", "bitget:main")
        assert code == 65
        assert "cannot be read: No such file or directory" in err

    def test_standard_input_is_sent_as_it_comes(self, client: Redis, redis_url: str) -> None:
        """A producer that writes a line and then nothing for a while must not wait for its batch to fill."""
        with _cancelq(redis_url, "feed", "-", "--lane", "bitget:main", "--json", stdin=subprocess.PIPE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            for number in range(3):
                process.stdin.write(f'{{"symbol": "A", "order_id": "{number}"}}\n')
                process.stdin.flush()
                json.loads(process.stdout.readline())
                assert len(inbox(client)) == number + 1
            process.stdin.close()
            assert process.wait(PATIENCE_S) == 0

    def test_a_server_that_comes_back_in_time_gets_everything_once(
        self,
        redis_server: RedisServer,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(feeding, "AGAIN_AFTER_S", (0.2,) * 100)  # a busy machine starts a server slowly
        with redis_server.client() as client:
            client.xgroup_create(MAIN.inbox, "g", mkstream=True)
        redis_server.kill9()
        file = tmp_path / "a.jsonl"
        file.write_text('{"symbol": "A", "order_id": "1"}\n{"symbol": "A", "order_id": "2"}\n')
        back = threading.Thread(target=redis_server.start)
        back.start()
        code = cli.run(["feed", str(file), "--lane", "bitget:main"], {"CANCELQ_REDIS_URL": redis_server.url})
        back.join(PATIENCE_S)
        assert (code, capsys.readouterr().out) == (0, "2 queued\n")
        with redis_server.client() as client:
            assert [fields["order_id"] for fields in inbox(client)] == ["1", "2"]

    def test_what_was_uncertain_is_sent_again_under_its_ids(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(feeding, "AGAIN_AFTER_S", (0.0,) * 2)
        client = LosesReplies()
        asked = [{"id": str(n), "symbol": "A", "order_id": str(n)} for n in range(3)]
        tickets: list[object] = [*feeding._submit(cast("Client", client), MAIN, asked, durable=False)]
        assert tickets == ["ticket of 0", "ticket of 1", "ticket of 2"]
        assert client.asked == [["0", "1", "2"], ["1", "2"]]


class LosesReplies:
    """A client whose server loses one reply, and refuses one entry, the first time it is asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def submit_many(self, lane: Lane, intents: list[dict[str, str]], *, durable: bool) -> list[str]:
        self.asked.append([fields["id"] for fields in intents])
        if len(self.asked) > 1:
            return [f"ticket of {fields['id']}" for fields in intents]
        raise BatchIncomplete(
            str(lane), queued=["ticket of 0"], uncertain=intents[1:2], not_queued=intents[2:], cause=None
        )


class TestResults:
    @pytest.fixture(autouse=True)
    def _events(self, client: Redis) -> None:
        for number in range(1, 151):
            _settle(client, MAIN, f"a-{number}", "accepted", f"{number}-1", final=False)
            _settle(client, MAIN, f"a-{number}", "cancelled", f"{number}-2")
        _settle(client, OTHER, "b-1", "filled", "149-5")

    def test_the_newest_of_all_lanes_in_their_order(self, run: Run) -> None:
        code, out, _ = run("results", "--limit", "4", "--json")
        assert code == 0
        assert [json.loads(line)["entry_id"] for line in out.splitlines()] == ["149-2", "149-5", "150-1", "150-2"]

    def test_a_hundred_of_one_lane_if_nothing_else_is_said(self, run: Run) -> None:
        _, out, _ = run("results", "bitget:main", "--final")
        lines = out.splitlines()
        assert lines[0].split()[:2] == ["time", "(UTC)"]
        assert len(lines) == 101
        assert "a-51 " in lines[1] + " "
        assert "a-150 " in lines[100] + " "

    def test_all_after_an_entry(self, run: Run) -> None:
        _, out, _ = run("results", "bitget:main", "--from", "148-2", "--json")
        assert [json.loads(line)["entry_id"] for line in out.splitlines()] == ["149-1", "149-2", "150-1", "150-2"]
        _, out, _ = run("results", "--from", "0", "--json")
        assert len(out.splitlines()) == 301

    def test_one_intent(self, run: Run) -> None:
        _, out, _ = run("results", "--id", "a-7", "--json")
        assert [json.loads(line)["status"] for line in out.splitlines()] == ["accepted", "cancelled"]
        code, out, err = run("results", "--id", "nobody")
        assert (code, out) == (1, "")
        assert "no event of nobody in the results of bitget:main, bybit:desk" in err

    def test_an_unknown_lane_exits_1(self, run: Run) -> None:
        code, _, err = run("results", "bitget:mian")
        assert code == 1
        assert "bitget:mian has no inbox" in err

    def test_a_lane_without_results_shows_none(self, client: Redis, run: Run) -> None:
        client.delete(OTHER.results)
        assert run("results", "bybit:desk") == (0, "", "")

    def test_an_entry_that_is_no_event_is_told_and_passed_over(self, client: Redis, run: Run) -> None:
        client.xadd(MAIN.results, {"id": "x", "status": "new-word", "final": "1"}, "151-1")
        _settle(client, MAIN, "a-152", "cancelled", "152-1")
        for how in (["--limit", "1"], ["--from", "150-2"]):
            code, out, err = run("results", "bitget:main", "--json", *how)
            assert code == 0
            assert json.loads(out)["id"] == "a-152"
            assert "warning: event 151-1: status" in err or how == ["--limit", "1"]

    def test_following_shows_what_comes_and_ends_quietly(self, client: Redis, redis_url: str) -> None:
        with _cancelq(redis_url, "results", "--follow", "--json", "--limit", "1") as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert json.loads(process.stdout.readline())["entry_id"] == "150-2"
            for lane in (OTHER, MAIN, OTHER):
                _settle(client, lane, f"new-{lane}", "cancelled", "*")
                assert json.loads(process.stdout.readline())["id"] == f"new-{lane}"
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_S) == 130
            assert process.stderr.read() == ""

    def test_an_outage_is_waited_for_and_nothing_of_it_is_missed(self, redis_server: RedisServer) -> None:
        """Given a server that goes and comes back, I expect one word of it, and every event once."""
        with redis_server.client() as client:
            _settle(client, MAIN, "before", "cancelled", "*")
            client.xadd(MAIN.inbox, {"a": "b"})
        with _cancelq(redis_server.url, "results", "bitget:main", "--follow", "--json", "--from", "$") as process:
            assert process.stdout is not None
            assert process.stderr is not None
            with redis_server.client() as client:
                until(lambda: cast("Any", client.info("clients"))["blocked_clients"] == 1, "a follower that waits")
                _settle(client, MAIN, "first", "cancelled", "*")
            assert json.loads(process.stdout.readline())["id"] == "first"
            redis_server.kill9()
            told = process.stderr.readline()
            assert told.startswith("warning: Redis cannot be reached: ")
            assert told.endswith("; waiting for it, and going on from there\n")
            redis_server.restart()
            with redis_server.client() as client:
                for id_ in ("second", "third"):
                    _settle(client, MAIN, id_, "cancelled", "*")
            assert [json.loads(process.stdout.readline())["id"] for _ in range(2)] == ["second", "third"]
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_S) == 130
            assert process.stderr.read() == ""

    def test_a_reader_that_goes_away_is_no_error(self, redis_url: str) -> None:
        with _cancelq(redis_url, "results", "--from", "0") as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            process.stdout.close()
            process.wait(PATIENCE_S)
            assert process.stderr.read() == ""


def _cancelq(redis_url: str, *args: str, stdin: int = subprocess.DEVNULL) -> "subprocess.Popen[str]":
    program = "import sys; from cancelq_worker.cli import main; sys.argv[0] = 'cancelq'; main()"
    env = {name: value for name, value in os.environ.items() if not name.upper().startswith("CANCELQ_")}
    return subprocess.Popen(
        [sys.executable, "-c", program, *args],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**env, "CANCELQ_REDIS_URL": redis_url},
        process_group=0,
    )


def _answer(redis_url: str, ended: threading.Event) -> None:
    position = {lane.inbox: "0" for lane in (MAIN, OTHER)}
    lanes = {lane.inbox: lane for lane in (MAIN, OTHER)}
    with Redis.from_url(redis_url, protocol=2) as client:
        while not ended.is_set():
            reply = cast("list[Any]", client.xread(cast("Any", position), block=50))
            for stream, entries in reply:
                lane = lanes[stream.decode()]
                for entry_id, fields in entries:
                    position[lane.inbox] = entry_id.decode()
                    entry = read_entry(entry_id.decode(), fields)
                    assert isinstance(entry, Accepted)
                    late = entry.fields["order_id"].endswith("9")
                    _settle(client, lane, entry.id, "filled" if late else "cancelled", "*")


def _settle(client: Redis, lane: Lane, id: str, status: str, entry_id: str, *, final: bool = True) -> None:
    fields = {"id": id, "status": status, "final": str(int(final)), "venue": lane.venue, "account": lane.account}
    fields |= {"scope": "order", "order_id": "1"}
    client.xadd(lane.results, cast("Any", fields), entry_id)
