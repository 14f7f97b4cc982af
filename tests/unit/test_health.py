"""Health, and the thread that tells it: over real sockets, beside a loop that is really stuck."""

from __future__ import annotations

import asyncio
import http.client
import queue
import socket
import threading
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from cancelq_worker.health import HEARTBEAT_OLD_S, LANES_TOLD, LOOP_STUCK_S, Health
from cancelq_worker.health_http import CALLERS_MOST, HEAD_MOST, HealthServer
from cancelq_worker.observing import beat
from cancelq_worker.settings import SettingsError

PATIENCE_S = 10.0


class Clock:
    """A monotonic clock that is moved by hand."""

    def __init__(self) -> None:
        self.ns = 1_000_000_000

    def __call__(self) -> int:
        return self.ns

    def forward(self, seconds: float) -> None:
        self.ns += int(seconds * 1e9)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(asyncio.Event(), clock)


@pytest.fixture
def server(health: Health) -> Iterator[HealthServer]:
    registry = CollectorRegistry()
    Counter("t_things", "Things.", registry=registry).inc()
    server = HealthServer("127.0.0.1:0", health, registry)
    server.start()
    yield server
    server.close()


def ask(place: str, path: str, method: str = "GET", **headers: str) -> tuple[int, str, dict[str, str]]:
    """Status, body and headers (lower-case names)."""
    host, _, port = place.rpartition(":")
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=PATIENCE_S)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()


def connect(server: HealthServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.server_address[1]), PATIENCE_S)


# -- what is well --------------------------------------------------------------------------------------------


def test_a_worker_is_ready_once_redis_took_its_heartbeat_and_its_lanes_are_open(health: Health) -> None:
    assert health.not_live() == []
    assert health.not_ready() == ["no heartbeat yet: starting"]
    health.heartbeat(1, 2, ["bitget:main"])
    assert health.not_ready() == ["lane not open: bitget:main"]
    health.heartbeat(1, 2, [])
    assert health.not_ready() == []


def test_a_loop_that_does_not_run_is_neither_live_nor_ready(health: Health, clock: Clock) -> None:
    health.heartbeat(1, 1, [])
    clock.forward(LOOP_STUCK_S)
    assert health.not_live() == []
    clock.forward(0.5)
    assert health.not_live() == ["the event loop has not run for 5.5 s"]
    assert health.not_ready() == ["the event loop has not run for 5.5 s", "no heartbeat for 5.5 s"]
    health.looped()
    assert health.not_live() == []


def test_a_redis_that_is_away_is_named_and_does_not_end_the_process(health: Health, clock: Clock) -> None:
    health.heartbeat(1, 1, [])
    health.redis_away(ConnectionError("redis://user:canary@host is gone"))
    assert health.not_ready() == ["Redis cannot be reached: ConnectionError"]
    assert health.not_live() == []
    health.heartbeat(1, 1, [])
    clock.forward(HEARTBEAT_OLD_S + 0.1)
    assert health.not_ready() == ["no heartbeat for 3.1 s"]


def test_many_lanes_that_are_not_open_are_counted(health: Health) -> None:
    health.heartbeat(1, 100, [f"bitget:a{n}" for n in range(100)])
    told = health.not_ready()
    assert (len(told), told[-1]) == (LANES_TOLD + 1, f"lanes not open: {100 - LANES_TOLD} more")


def test_draining_is_not_ready_at_once_and_still_live(clock: Clock) -> None:
    stop = asyncio.Event()
    health = Health(stop, clock)
    health.heartbeat(1, 1, [])
    stop.set()
    assert health.not_ready() == ["draining: nothing new is taken"]
    assert health.not_live() == []


# -- how it is told ------------------------------------------------------------------------------------------


def test_the_pages(server: HealthServer, health: Health) -> None:
    assert ask(server.place, "/livez")[:2] == (200, "live\n")
    assert ask(server.place, "/readyz?verbose")[:2] == (503, "no heartbeat yet: starting\n")
    health.heartbeat(1, 1, ["bitget:a", "bybit:b"])
    assert ask(server.place, "/readyz")[:2] == (503, "lane not open: bitget:a\nlane not open: bybit:b\n")
    health.heartbeat(1, 1, [])
    assert ask(server.place, "/readyz")[:2] == (200, "ready\n")
    status, body, headers = ask(server.place, "/metrics")
    assert (status, "t_things_total 1.0" in body) == (200, True)
    assert headers["content-type"].startswith("text/plain; version=")


def test_openmetrics_when_it_is_asked_for(server: HealthServer) -> None:
    status, body, headers = ask(server.place, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert status == 200
    assert headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    (family,) = text_string_to_metric_families(body)  # type: ignore[no-untyped-call]  # the library leaves it so
    assert family.name == "t_things"


def test_head_is_a_get_without_its_body(server: HealthServer) -> None:
    status, body, headers = ask(server.place, "/livez", "HEAD")
    assert (status, body, headers["content-length"]) == (200, "", "5")


@pytest.mark.parametrize("path", ["/", "/livez/", "/metrics/x", "/debug"])
def test_an_unknown_path_is_404(server: HealthServer, path: str) -> None:
    assert ask(server.place, path)[:2] == (404, "there is /livez, /readyz, /metrics\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_405(server: HealthServer, method: str) -> None:
    status, _, headers = ask(server.place, "/metrics", method)
    assert (status, headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("said", [b"NONSENSE\r\n\r\n", b"BREW /livez HTTP/1.1\r\n\r\n", b"GET /livez HTTP/9.9\r\n\r\n"])
def test_nonsense_is_refused_and_harms_nobody(server: HealthServer, said: bytes) -> None:
    with connect(server) as caller:
        caller.sendall(said)
        assert b"200 OK" not in caller.recv(4096)
    assert ask(server.place, "/livez")[0] == 200


def test_a_request_that_is_too_long_is_cut_off(server: HealthServer) -> None:
    with connect(server) as caller:
        caller.sendall(b"GET /livez HTTP/1.1\r\nX: " + b"a" * (HEAD_MOST - 24))
        assert caller.recv(4096) == b""


def test_a_caller_that_says_nothing_is_not_waited_for(server: HealthServer) -> None:
    server.request_s = 0.05
    with connect(server) as caller:
        caller.sendall(b"GET /livez HT")
        assert caller.recv(4096) == b""


def test_callers_are_few_and_room_is_given_back(server: HealthServer) -> None:
    callers = [connect(server) for _ in range(CALLERS_MOST)]
    with connect(server) as one_more:
        assert one_more.recv(4096) == b""
    for caller in callers:
        caller.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        assert caller.makefile("rb").read().startswith(b"HTTP/1.1 200 OK")
        caller.close()
    assert ask(server.place, "/livez")[0] == 200


def test_room_is_given_back_where_no_thread_could_be_started(
    server: HealthServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as short:
        short.setattr(threading.Thread, "start", none_left)
        for _ in range(CALLERS_MOST):
            with connect(server) as caller:
                assert caller.recv(1) == b""
    assert ask(server.place, "/livez")[0] == 200


def test_it_listens_on_ipv6(health: Health) -> None:
    try:
        server = HealthServer("[::1]:0", health, CollectorRegistry())
    except SettingsError:
        pytest.skip("no IPv6 on this machine")
    server.start()
    try:
        assert ask(server.place, "/livez")[0] == 200
    finally:
        server.close()


def test_a_port_in_use_names_the_setting_and_the_remedy(server: HealthServer, health: Health) -> None:
    with pytest.raises(SettingsError) as caught:
        HealthServer(server.place, health, CollectorRegistry())
    (problem,) = caught.value.problems
    assert f"http: cannot listen on {server.place}: Address already in use" in problem
    assert "--http or CANCELQ_HTTP" in problem


def test_an_address_of_another_machine_is_refused(health: Health) -> None:
    with pytest.raises(SettingsError, match=r"cannot listen on 192\.0\.2\.1:9464"):
        HealthServer("192.0.2.1:9464", health, CollectorRegistry())


def test_a_closed_one_is_gone_and_its_port_free(health: Health) -> None:
    first = HealthServer("127.0.0.1:0", health, CollectorRegistry())
    first.start()
    place = first.place
    first.close()
    with pytest.raises(ConnectionRefusedError):
        ask(place, "/livez")
    HealthServer(place, health, CollectorRegistry()).close()


def test_a_stuck_loop_is_told_and_not_hidden(clock: Clock) -> None:
    places: queue.Queue[str] = queue.Queue()
    stuck, go_on, beaten, end = (threading.Event() for _ in range(4))

    async def program() -> None:
        health = Health(asyncio.Event(), clock)
        server = HealthServer("127.0.0.1:0", health, CollectorRegistry())
        server.start()
        beating = asyncio.ensure_future(beat(health, lambda _: beaten.set()))
        await asyncio.sleep(0)
        places.put(server.place)
        stuck.set()
        go_on.wait(PATIENCE_S)  # the loop stands still
        await asyncio.to_thread(end.wait, PATIENCE_S)
        beating.cancel()
        server.close()

    running = threading.Thread(target=asyncio.run, args=(program(),))
    running.start()
    place = places.get(timeout=PATIENCE_S)
    assert stuck.wait(PATIENCE_S)
    assert ask(place, "/livez")[0] == 200
    clock.forward(LOOP_STUCK_S + 2)
    assert ask(place, "/livez")[:2] == (503, "the event loop has not run for 7.0 s\n")
    go_on.set()
    # The beat that was due is told late before the next one shows that the loop runs.
    for _ in range(2):
        assert beaten.wait(PATIENCE_S)
        beaten.clear()
    assert ask(place, "/livez")[:2] == (200, "live\n")
    end.set()
    running.join(PATIENCE_S)


def test_as_many_lanes_as_are_named_leave_none_to_count(health: Health) -> None:
    health.heartbeat(1, LANES_TOLD, [f"bitget:a{n}" for n in range(LANES_TOLD)])
    assert health.not_ready() == [f"lane not open: bitget:a{n}" for n in range(LANES_TOLD)]
