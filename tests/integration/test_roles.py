"""The users of `ops/redis`: each does its work with the real programs, and every other door is shut, one by one."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError
from rq import Queue
from rq.serializers import JSONSerializer

from cancelq import AsyncClient, Client, Guard
from cancelq.contract import Event, Status
from cancelq.errors import GroupMissing
from cancelq.results import ResultsReader
from cancelq_worker import cli
from cancelq_worker.embedded import free_port
from tests.integration.doors import (
    MAIN,
    OTHER,
    PATIENCE_S,
    Doors,
    Venue,
    accounts,
    doors,
    start,
)
from tests.integration.jobs_rig import ended, rq
from tests.integration.rights import (
    AUDITOR,
    DESK,
    EVERYONE,
    JOBS,
    METRICS,
    OPERATIONS,
    OPERATOR,
    PRODUCER,
    STRANGER,
    WORKER,
    Operation,
)
from tests.integration.test_rq_worker import Child
from tests.servers import KINDS, ServerMissing

# The only thing a worker tries that its role does not allow: CONFIG GET would show passwords, too.
ASKED_IN_VAIN = {"worker: config|get"}

Run = Callable[..., "tuple[int, str, str]"]


@dataclass
class Desk:
    """The server with its users, a venue, a worker and a jobs process."""

    doors: Doors
    venue: Venue
    worker: Child
    jobs: Child
    http: str
    archive: Path

    def submit(self, **fields: str) -> Event:
        """One intent as the producer's own client asks for it, and what became of it."""
        with Client(self.doors.url(PRODUCER)) as client:
            return client.submit(MAIN, {"symbol": "BTCUSDT", **fields}).wait(PATIENCE_S)


@pytest.fixture(scope="module", params=list(KINDS))
def desk(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("doors")
    children: list[Child] = []
    try:
        with doors(request.param, folder) as made, _venue() as venue:
            try:
                yield _started(made, venue, children, folder / "archive")
            finally:
                for child in children:
                    child.close()
    except ServerMissing as missing:
        pytest.skip(str(missing))


@contextmanager
def _venue() -> Iterator[Venue]:
    venue = Venue()
    try:
        yield venue
    finally:
        venue.close()


def _started(made: Doors, venue: Venue, children: list[Child], archive: Path) -> Desk:
    one_try = {"CANCELQ_MAX_ATTEMPTS": "1", "CANCELQ_LOOKUP_BUDGET_MS": "1000"}
    place = f"127.0.0.1:{free_port()}"
    env = {"CANCELQ_REDIS_URL": made.url(WORKER), "CANCELQ_HTTP": place, **one_try, **accounts(venue.base_url)}
    worker = start(children, ["worker"], env)
    worker.expect("watching lane")
    periods = {
        "CANCELQ_JOBS__RECONCILE__BITGET__MAIN__EVERY": "1h",
        "CANCELQ_JOBS__SWEEP__BITGET__MAIN__EVERY": "1h",
        "CANCELQ_JOBS__SWEEP__BITGET__MAIN__OLDER_THAN": "10d",
        "CANCELQ_ARCHIVE_DIR": str(archive),
        "CANCELQ_ACCOUNTS__BITGET__MAIN__DEMO": "false",
    }
    with made.client("admin") as client:
        # A second lane, that nobody serves.
        client.xgroup_create(OTHER.inbox, "g", mkstream=True)
        client.xgroup_create(OTHER.results, "g", mkstream=True)
        client.script_load("return 1")
    jobs = start(children, ["jobs"], {"CANCELQ_REDIS_URL": made.url(JOBS), **periods})
    jobs.expect("Listening on")
    assert made.refused() <= ASKED_IN_VAIN
    return Desk(made, venue, worker, jobs, f"http://{place}", archive)


@pytest.fixture
def run(desk: Desk, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line, as one of the users."""
    desk.doors.refused()

    def run(user: str, *words: str) -> tuple[int, str, str]:
        code = cli.run(words, {"CANCELQ_REDIS_URL": desk.doors.url(user)})
        out, err = capsys.readouterr()
        return code, out, err

    return run


# -- what each does with the real programs ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "line", "code"),
    [
        (PRODUCER, "submit bitget:main --symbol BTCUSDT --order-id {order} --wait", 0),
        (PRODUCER, "results bitget:main --json", 0),
        (PRODUCER, "guard bitget:main --ttl 60s --once", 0),
        (PRODUCER, "guard bitget:main --off", 0),
        (OPERATOR, "status --json", 1),  # of the lane that nobody serves
        (OPERATOR, "top --once --json", 0),
        (OPERATOR, "top bitget:main --once", 0),
        (OPERATOR, "pause bitget:main", 0),
        (OPERATOR, "resume bitget:main", 0),
        (OPERATOR, "submit bitget:main --symbol BTCUSDT --order-id {order} --wait", 0),
        (OPERATOR, "kill bitget:main --yes", 0),
        (OPERATOR, "guard bitget:main --ttl 60s --once", 0),
        (OPERATOR, "guard bitget:main --json", 0),
        (OPERATOR, "guard bitget:main --off", 0),
        (OPERATOR, "results --json", 0),
        (OPERATOR, "trace {settled}", 0),
        (OPERATOR, "trace 1-1", 1),
        (OPERATOR, "audit bitget:main --json", 0),
        (OPERATOR, "redrive bitget:main --yes", 0),
        (AUDITOR, "results --json", 0),
        (AUDITOR, "results bitget:main", 0),
        (AUDITOR, "trace {settled} --json", 0),
        (AUDITOR, "trace 1-1", 1),
        (AUDITOR, "audit bitget:main --json", 0),
        (METRICS, "status --json", 1),
        (METRICS, "top --once --json", 0),
        (JOBS, "archive bitget:main --to {archive} --keep 0s --leave 0s --json", 0),
    ],
)
def test_the_commands_of_a_role_are_carried_out(desk: Desk, run: Run, user: str, line: str, code: int) -> None:
    shows = "{settled}" in line or line.startswith("results")  # what may be empty shows one at least
    settled = desk.submit(order_id=desk.venue.order()).id if shows else ""
    words = line.format(order=desk.venue.order(), settled=settled, archive=desk.archive).split()
    done, out, err = run(user, *words)
    assert (done, "refused" in err) == (code, False), err
    # A guard's event is the only thing that is left out where a producer may not tell it.
    untold = {f"{PRODUCER}: {MAIN.results}"} if user == PRODUCER and words[0] == "guard" else set()
    assert desk.doors.refused() == untold
    assert out or err


def test_a_producer_follows_its_intents_alone_and_in_a_group(desk: Desk) -> None:
    desk.doors.refused()
    with desk.doors.client(OPERATOR) as operator:
        operator.xgroup_create(MAIN.results, "strategy", id="$")
    with Client(desk.doors.url(PRODUCER)) as client:
        tickets = client.submit_many(MAIN, [{"symbol": "BTCUSDT", "order_id": desk.venue.order()} for _ in range(3)])
        events = client.wait_all(tickets, PATIENCE_S)
        assert {event.status for event in events} == {Status.cancelled}
        assert client.revoke(MAIN, tickets[0].id).wait(PATIENCE_S).status is Status.rejected
        assert events[-1].id in {event.id for event in client.events(MAIN)}
    with ResultsReader(desk.doors.url(PRODUCER), [MAIN], group="strategy", consumer="s-1") as reader:
        seen = reader.read()
        reader.ack(seen)
    assert events[0].id in {delivery.event.id for delivery in seen}
    assert desk.doors.refused() == set()


async def test_an_asynchronous_producer_does_as_well(desk: Desk) -> None:
    desk.doors.refused()
    async with AsyncClient(desk.doors.url(PRODUCER)) as client:
        ticket = await client.submit(MAIN, symbol="BTCUSDT", order_id=desk.venue.order())
        assert (await ticket.outcome(PATIENCE_S)).status is Status.cancelled
    assert await asyncio.to_thread(desk.doors.refused) == set()


def test_a_strategy_keeps_its_guard_and_ends_it_without_a_word(desk: Desk) -> None:
    order = desk.venue.order()
    with Guard(desk.doors.url(PRODUCER), MAIN, ttl_s=60) as guard:
        assert guard.beat()
    desk.submit(order_id=desk.venue.order())
    with desk.doors.client(AUDITOR) as auditor:
        assert not auditor.exists(MAIN.guard, MAIN.key("armed"))
    assert desk.venue.state(order) == "live"


def test_an_auditor_reads_in_a_group_that_an_operator_has_made(desk: Desk) -> None:
    url = desk.doors.url(AUDITOR)
    desk.doors.refused()
    with (
        pytest.raises(GroupMissing) as missing,
        ResultsReader(url, [MAIN], group="books", consumer="b-1") as reader,
    ):
        reader.read()
    assert "XGROUP CREATE" in missing.value.command
    assert desk.doors.refused() == {"auditor: xgroup|create"}
    with desk.doors.client(OPERATOR) as operator:
        operator.xgroup_create(MAIN.results, "books", id="0")
    event = desk.submit(order_id=desk.venue.order())
    with ResultsReader(url, [MAIN], group="books", consumer="b-1") as reader:
        seen: set[str] = set()
        while found := reader.read(wait_s=0.1):
            seen |= {delivery.event.id for delivery in found}
            reader.ack(found)
    assert event.id in seen
    assert desk.doors.refused() == set()


def test_what_ended_unresolved_is_sent_again(desk: Desk, run: Run) -> None:
    stuck, later = desk.venue.order(), desk.venue.order()
    desk.venue.stick(stuck, later)
    assert {desk.submit(order_id=order).status for order in (stuck, later)} == {Status.unresolved}
    with desk.doors.client(DESK) as client:
        queue = Queue("cancelq", connection=client, serializer=JSONSerializer)
        # A look back, which the jobs leave in the lane, and then both anew.
        assert ended(queue.enqueue("cancelq.jobs.reconcile", "bitget:main", 0)) == "finished"
        desk.venue.stick()
        assert run(OPERATOR, "redrive", "bitget:main", "--yes")[0] == 0
        assert ended(queue.enqueue("cancelq.jobs.redrive", "bitget:main")) == "finished"
    assert desk.doors.refused() == set()


def test_jobs_of_every_kind_are_done_under_their_own_user(desk: Desk) -> None:
    desk.doors.refused()
    with desk.doors.client(DESK) as client:
        queue = Queue("cancelq", connection=client, serializer=JSONSerializer)
        asked = {"symbol": "BTCUSDT", "order_id": desk.venue.order()}
        for job in (
            queue.enqueue("cancelq.rq.submit", "bitget:main", asked),
            queue.enqueue("cancelq.jobs.sweep", "bitget:main", 864_000_000),
            queue.enqueue("cancelq.jobs.flatten", "bitget:main"),
            queue.enqueue("cancelq.jobs.archive", "bitget:main"),
        ):
            assert ended(job) == "finished", job.latest_result()
        assert ended(queue.enqueue("os.system", "true")) == "failed"
    assert desk.doors.refused() == set()


def test_an_operator_holds_and_releases_by_rq_and_a_job_on_a_lanes_queue_is_failed(desk: Desk) -> None:
    desk.doors.refused()
    url = desk.doors.url(OPERATOR)
    assert "lane:bitget:main" in rq(url, "info", "--raw")
    rq(url, "suspend")
    desk.worker.expect("suspended by RQ")
    rq(url, "resume")
    desk.worker.expect("resumed by RQ")
    with desk.doors.client(OPERATOR) as client:
        misplaced = Queue("lane:bitget:main", connection=client, serializer=JSONSerializer).enqueue("os.system", "true")
        assert ended(misplaced) == "failed"
    # RQ's own command line tells the server its name, which old servers do not know.
    assert {line for line in desk.doors.refused() if "setinfo" not in line} == set()


def test_a_monitor_is_refused_nothing_of_a_lane_at_work(desk: Desk, run: Run) -> None:
    desk.doors.refused()
    with desk.doors.client("admin") as admin:
        admin.zadd(MAIN.key("leases"), {"somebody's": 10**16})
        try:
            assert run(METRICS, "top", "--once", "--json")[0] == 0
        finally:
            admin.zrem(MAIN.key("leases"), "somebody's")
    assert desk.doors.refused() == set()


def test_a_monitor_reads_a_workers_page_and_the_worker_its_gauges(desk: Desk) -> None:
    desk.doors.refused()
    page = ""
    for _ in range(int(PATIENCE_S / 0.2)):
        with urllib.request.urlopen(f"{desk.http}/metrics", timeout=5) as answer:
            page = answer.read().decode()
        if "cancelq_lane" in page and "lane_queued{" in page:
            break
        desk.submit(order_id=desk.venue.order())
    assert "cancelq_ready 1.0" in page
    assert desk.doors.refused() == set()


def test_a_worker_loads_its_scripts_again_and_a_monitor_may_not(desk: Desk, run: Run) -> None:
    desk.doors.refused()
    with desk.doors.client("admin") as admin:
        admin.script_flush()
        admin.script_load("return 1")
    assert desk.submit(order_id=desk.venue.order()).status is Status.cancelled
    assert run(METRICS, "top", "--once", "--json")[0] == 0
    assert desk.doors.refused() == set()


def test_the_doctor_finds_nothing_wrong_with_them(desk: Desk, run: Run) -> None:
    _, out, _ = run("admin", "doctor", "--json")
    about = [finding for finding in json.loads(out)["findings"] if finding["check"] == "doors.users"]
    told = {finding["facts"]["user"]: finding for finding in about}
    assert {WORKER, OPERATOR, AUDITOR, JOBS, METRICS, PRODUCER, STRANGER} <= set(told)
    assert {user: finding["told"] for user, finding in told.items() if finding["level"] != "ok"} == {}


# -- every door, tried ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_who_may(desk: Desk, operation: Operation) -> None:
    """Who may not is refused for real; of who may, the server says so without doing it."""
    for user in EVERYONE | {"admin"}:
        if user in operation.may or user == "admin":
            said = desk.doors.admin("ACL DRYRUN", user, *operation.words)
            assert said == b"OK", f"{user}: {said!r}"
            continue
        with desk.doors.client(user) as client, pytest.raises(ResponseError) as refused:
            client.execute_command(*operation.words)
        if not isinstance(refused.value, NoPermissionError):
            # Some commands are shut for everybody by the server's configuration, before it asks who comes.
            assert "not allowed" in str(refused.value)
            assert desk.doors.admin("ACL DRYRUN", user, *operation.words) != b"OK"


@pytest.mark.parametrize("user", [WORKER, JOBS])
def test_a_script_opens_no_door_that_is_shut(desk: Desk, user: str) -> None:
    """Whoever may load and run scripts is held to its own rights in them, command by command."""
    unheld = "'XADD', KEYS[1], '*', 'symbol', 'X'" if user == WORKER else "'XTRIM', KEYS[1], 'MAXLEN', 0"
    for words in (unheld, "'XDEL', KEYS[1], '1-1'", "'DEL', KEYS[1]", "'SET', KEYS[1], 'x'"):
        with desk.doors.client(user) as client:
            sha = client.script_load(f"return redis.call({words})")
            with pytest.raises(ResponseError, match=r"(?i)can't (access|run)|permission"):
                client.evalsha(sha, 1, MAIN.inbox)
    with desk.doors.client(AUDITOR) as auditor:
        assert auditor.type(MAIN.inbox) == b"stream"


def test_nobody_comes_in_without_a_user(desk: Desk) -> None:
    url = f"redis://127.0.0.1:{desk.doors.server.port}/0"
    with Redis.from_url(url, driver_info=None, protocol=2) as client, pytest.raises(AuthenticationError):
        client.ping()
