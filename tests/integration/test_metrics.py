"""A real worker's pages: its numbers against what was asked and what the venue saw, its text against promtool, its
metrics against their page, and a real Prometheus that scrapes it."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from cancelq.contract import Status
from cancelq_worker.embedded import free_port
from cancelq_worker.trips import command
from cancelq_worker.venues.bitget.adapter import ADDRESS, ADDRESS_BUCKETS
from tests.integration.observed_worker import (
    PATIENCE_S,
    ROOT,
    ObservedWorker,
    Samples,
    find,
    get,
    observed_worker,
    until_asked,
)
from tests.integration.rig import Rig, desk

pytestmark = [pytest.mark.one_server, pytest.mark.timeout(90)]

HTTP = ("--http", "127.0.0.1:0")
AT = {"venue": "bitget", "account": "main"}
PAGE = ROOT / "docs" / "METRICS.md"
RULES = ROOT / "ops" / "prometheus"
CANARIES = ("sim-secret", "sim-pass", "sim-key", "redis://")

needs_promtool = pytest.mark.skipif(
    find("promtool") is None, reason="no promtool here; Debian: apt-get install prometheus"
)
needs_prometheus = pytest.mark.skipif(
    find("prometheus") is None, reason="no prometheus here; Debian: apt-get install prometheus"
)


@asynccontextmanager
async def watched_desk(redis_url: str, *args: str) -> AsyncIterator[tuple[Rig, ObservedWorker]]:
    """A desk whose one worker is a process that listens."""
    async with desk(redis_url, workers=0) as rig, observed_worker(rig.environment(), *(args or HTTP)) as worker:
        await worker.listening()
        yield rig, worker


async def some_cancels(rig: Rig) -> None:
    """Twenty orders cancelled, one entry repeated, one that can never work."""
    entries = [{"symbol": "BTCUSDT", "order_id": rig.order(), "id": f"c{n}"} for n in range(20)]
    ids = await rig.send_all([*entries, {"symbol": "BTCUSDT", "id": "bad", "scope": "nonsense"}])
    assert len(ids) == 21
    finals = await rig.finals([*(f"c{n}" for n in range(20)), "bad"])
    assert [finals[f"c{n}"].status for n in range(20)] == [Status.cancelled] * 20
    await rig.send_all([entries[0]])
    while not any(event.status is Status.duplicate for event in await rig.events()):
        await command(rig.client, "XREAD", "BLOCK", 20, "STREAMS", rig.lane.results, "$")


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset({**AT, **labels}.items())]


async def until_shown(rig: Rig, worker: ObservedWorker, line: str) -> None:
    """Until the page has a line that begins so."""
    await until_asked(rig, lambda: f"\n{line}" in get(f"http://{worker.place}/metrics")[1])


# -- numbers -------------------------------------------------------------------------------------------------


async def test_a_worker_counts_what_was_asked_and_what_the_venue_saw(redis_url: str) -> None:
    async with watched_desk(redis_url) as (rig, worker):
        await some_cancels(rig)
        await until_shown(rig, worker, 'cancelq_lane_inbox_length{account="main",venue="bitget"} 22.0')
        samples = await worker.samples()
        assert value(samples, "cancelq_intents_admitted_total") == 20
        assert value(samples, "cancelq_outcomes_total", status="cancelled") == 20
        assert value(samples, "cancelq_outcomes_total", status="rejected") == 1
        assert value(samples, "cancelq_outcomes_total", status="unresolved") == 0
        assert value(samples, "cancelq_duplicates_total") == 1
        assert value(samples, "cancelq_events_total", status="duplicate") == 1
        assert value(samples, "cancelq_orders_sent_total") == 20
        by_venue = {"venue": "bitget", "priority": "normal"}
        assert samples["cancelq_queued_to_settled_seconds_count", frozenset(by_venue.items())] == 20
        called: dict[str, float] = {}
        for (name, labels), count in samples.items():
            if name == "cancelq_venue_calls_total":
                endpoint = dict(labels)["endpoint"].rpartition("/")[2]
                called[endpoint] = called.get(endpoint, 0) + count
        assert called == Counter(str(call["endpoint"]) for call in rig.simulator.calls().entries)
        assert value(samples, "cancelq_lane_queued") == value(samples, "cancelq_lane_not_admitted") == 0
        assert value(samples, "cancelq_lane_inbox_length") == 22
        assert value(samples, "cancelq_lane_budget_limit", bucket="batch-cancel-order") == 10
        assert value(samples, "cancelq_lane_unconfirmed_age_seconds") == 0
        addresses = [dict(labels) for name, labels in samples if name == "cancelq_address_used"]
        assert {address["bucket"] for address in addresses} == {bucket.name for bucket in ADDRESS_BUCKETS}
        assert len({address["egress"] for address in addresses}) == 1
        (limit,) = (
            count
            for (name, labels), count in samples.items()
            if name == "cancelq_address_limit" and dict(labels)["bucket"] == ADDRESS.name
        )
        assert limit == ADDRESS.units
        assert samples["cancelq_ready", frozenset()] == samples["cancelq_workers", frozenset()] == 1
        assert await worker.end() == 0


async def test_no_secret_no_id_and_no_pair_is_on_the_page(redis_url: str) -> None:
    async with watched_desk(redis_url) as (rig, worker):
        await some_cancels(rig)
        _, text = await worker.get("/metrics")
        for word in (*CANARIES, "BTCUSDT", "c7", "?", str(rig.simulator.calls().entries[0].get("order_id") or "sim-")):
            assert word not in re.sub("^# .*$", "", text, flags=re.MULTILINE), word


async def test_holds_are_shown_with_their_reason_and_their_end(redis_url: str) -> None:
    async with watched_desk(redis_url) as (rig, worker):
        await rig.final(await rig.send(symbol="BTCUSDT", order_id=rig.order()))
        hold = rig.lane.key("hold")
        steady_us = int((await command(rig.client, "GET", rig.lane.key("clock"))).split()[1])
        rate = f"{steady_us + 3_600_000_000} why"
        await command(rig.client, "HSET", hold, "*|paused", "-1 paused by me", "batch-cancel-order|rate", rate)
        where = 'account="main",bucket="all",reason="paused",venue="bitget"'
        await until_shown(rig, worker, f"cancelq_lane_hold{{{where}}} 1.0")
        samples = await worker.samples()
        assert value(samples, "cancelq_lane_hold", bucket="batch-cancel-order", reason="rate") == 1
        assert 3_000 < value(samples, "cancelq_lane_hold_seconds", bucket="batch-cancel-order", reason="rate") < 3_601
        ends = {dict(labels)["reason"] for name, labels in samples if name == "cancelq_lane_hold_seconds"}
        assert ends == {"rate"}
        assert (await worker.get("/readyz"))[0] == 200


async def test_a_guard_is_shown_and_when_it_fired(redis_url: str) -> None:
    async with watched_desk(redis_url) as (rig, worker):
        await rig.ready()
        await rig.final(await rig.send(symbol="BTCUSDT", order_id=rig.order()))
        await command(rig.client, "SET", rig.lane.guard, "1", "PX", 60_000)
        await until_shown(rig, worker, 'cancelq_lane_guard{account="main",state="armed",venue="bitget"} 1.0')
        before_s = int((await command(rig.client, "TIME"))[0])
        await command(rig.client, "PEXPIRE", rig.lane.guard, 1)
        await until_shown(rig, worker, "cancelq_lane_guard_fired_timestamp_seconds{")
        fired_s = value(await worker.samples(), "cancelq_lane_guard_fired_timestamp_seconds")
        assert before_s <= fired_s <= before_s + PATIENCE_S


async def test_an_address_that_the_venue_closed_is_shown_at_its_lanes(redis_url: str) -> None:
    async with watched_desk(redis_url) as (rig, worker):
        await rig.ready()
        rig.fault("http:403", endpoint="cancel-order", count=None)
        await rig.send(symbol="BTCUSDT", order_id=rig.order())
        where = 'account="main",bucket="all",reason="address",venue="bitget"'
        await until_shown(rig, worker, f"cancelq_lane_hold{{{where}}} 1.0")
        assert value(await worker.samples(), "cancelq_lane_hold_seconds", bucket="all", reason="address") > 100


# -- text ----------------------------------------------------------------------------------------------------


@needs_promtool
async def test_promtool_finds_nothing_wrong_with_a_real_scrape(redis_url: str) -> None:
    async with watched_desk(redis_url) as (rig, worker):
        await some_cancels(rig)
        await until_shown(rig, worker, "cancelq_lane_queued{")
        _, text = await worker.get("/metrics")
        checked = await asyncio.to_thread(
            subprocess.run, [str(find("promtool")), "check", "metrics"], input=text, capture_output=True, text=True
        )
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@needs_promtool
@pytest.mark.parametrize(
    "what", ["check config prometheus.yml", "check rules alerts.yml", "test rules alerts_test.yml"]
)
def test_promtool_takes_the_rules_and_the_example(what: str) -> None:
    done = subprocess.run([str(find("promtool")), *what.split()], cwd=RULES, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_every_alert_is_played() -> None:
    alerts = set(re.findall(r"- alert: (\w+)", (RULES / "alerts.yml").read_text()))
    assert alerts == set(re.findall(r"alertname: (\w+)", (RULES / "alerts_test.yml").read_text()))


# -- the page ------------------------------------------------------------------------------------------------


def page() -> dict[str, tuple[str, tuple[str, ...]]]:
    """What docs/METRICS.md says: name → type and labels."""
    rows = re.findall(r"^\| `(cancelq_\w+)` \| (\w+) \| ([\w, ]*?) ?\| ", PAGE.read_text(), re.MULTILINE)
    return {name: (kind, tuple(sorted(labels.split(", "))) if labels else ()) for name, kind, labels in rows}


def shown(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else str(family.name)


async def test_the_page_and_the_worker_agree(redis_url: str) -> None:
    async with watched_desk(redis_url) as (rig, worker):
        await some_cancels(rig)
        await command(rig.client, "HSET", rig.lane.key("hold"), "*|paused", "-1 paused by me")
        await until_shown(rig, worker, "cancelq_lane_hold{")
        _, text = await worker.get("/metrics")
    told = page()
    families = list(text_string_to_metric_families(text))
    ours = {shown(family): family for family in families if family.name.startswith("cancelq_")}
    assert set(told) == set(ours)
    assert {name: kind for name, (kind, _) in told.items()} == {name: family.type for name, family in ours.items()}
    for name, family in ours.items():
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(told[name][1]), name
    others = {family.name.split("_")[0] for family in families if family.name not in {f.name for f in ours.values()}}
    assert others == {"process", "python"}


def test_the_alerts_ask_only_for_metrics_that_there_are() -> None:
    asked = set(re.findall(r"\bcancelq_\w+", (RULES / "alerts.yml").read_text()))
    names = {f"{name}_bucket" if kind == "histogram" else name for name, (kind, _) in page().items()}
    assert asked <= names


async def test_openmetrics_says_the_same(redis_url: str) -> None:
    async with watched_desk(redis_url) as (_, worker):
        request = urllib.request.Request(
            f"http://{worker.place}/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
        )

        def ask() -> str:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                return str(answer.read().decode())

        text = await asyncio.to_thread(ask)
        names = {family.name for family in read_openmetrics(text)}  # type: ignore[no-untyped-call]  # as above
        assert {"cancelq_up", "cancelq_outcomes", "cancelq_loop_lag_seconds"} <= names


# -- a process' life -----------------------------------------------------------------------------------------


async def test_term_ends_readiness_at_once_and_not_life(redis_url: str) -> None:
    async with watched_desk(redis_url) as (rig, worker):
        await rig.ready()
        await until_asked(rig, lambda: get(f"http://{worker.place}/readyz")[0] == 200)
        rig.fault("hang", endpoint="cancel-order batch-cancel-order")
        await rig.send(symbol="BTCUSDT", order_id=rig.order())
        await rig.calls("cancel-order")
        worker.process.send_signal(signal.SIGTERM)
        await worker.expect("draining: nothing new is taken")
        status, text = await worker.get("/readyz")
        assert (status, text.splitlines()[0]) == (503, "draining: nothing new is taken")
        assert await worker.get("/livez") == (200, "live\n")
        assert (await worker.samples())["cancelq_draining", frozenset()] == 1
        assert await worker.process.wait() == 0
        with pytest.raises(ConnectionRefusedError), socket.create_connection(_address(worker)):
            pass


async def test_hup_leaves_the_port_as_it_is(redis_url: str) -> None:
    port = free_port()
    async with watched_desk(redis_url, "--http", f"127.0.0.1:{port}") as (rig, worker):
        await rig.ready()
        pid = worker.process.pid
        await worker.expect('"watching lane"')
        worker.process.send_signal(signal.SIGHUP)
        await worker.expect('"the settings were read again"')
        assert worker.place == f"127.0.0.1:{port}"
        assert (await worker.get("/livez"), worker.process.pid) == ((200, "live\n"), pid)
        assert await worker.end() == 0


async def test_a_redis_that_goes_away_is_told_and_its_lanes_are_absent(redis_server: Any) -> None:
    async with watched_desk(redis_server.url) as (rig, worker):
        await rig.ready()
        await until_shown(rig, worker, "cancelq_lane_queued{")
        redis_server.kill9()
        async with asyncio.timeout(PATIENCE_S):
            while "Redis cannot be reached" not in (await worker.get("/readyz"))[1]:
                pass
            assert await worker.get("/livez") == (200, "live\n")
            while any(name == "cancelq_lane_queued" for name, _ in await worker.samples()):
                pass
        redis_server.start()
        await until_asked(rig, lambda: get(f"http://{worker.place}/readyz") == (200, "ready\n"))
        await until_shown(rig, worker, "cancelq_lane_queued{")


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ("9464", "--http must be HOST:PORT, such as 127.0.0.1:9464"),
        ("127.0.0.1:http", "--http must be HOST:PORT"),
        ("192.0.2.1:9464", "http: cannot listen on 192.0.2.1:9464"),
    ],
)
async def test_a_bad_address_exits_78_with_a_remedy(redis_url: str, place: str, problem: str) -> None:
    async with desk(redis_url, workers=0) as rig, observed_worker(rig.environment(), "--http", place) as worker:
        await worker.expect(re.escape(problem))
        await worker.expect("remedy: ")
        assert await worker.process.wait() == 78
        assert "Traceback" not in worker.seen


async def test_a_port_in_use_exits_78_and_names_the_setting(redis_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        async with (
            desk(redis_url, workers=0) as rig,
            observed_worker(rig.environment(CANCELQ_HTTP=place)) as worker,
        ):
            await worker.expect(f"error: http: cannot listen on {place}: Address already in use")
            assert "--http or CANCELQ_HTTP" in worker.seen
            assert await worker.process.wait() == 78


# -- a real Prometheus ---------------------------------------------------------------------------------------


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[str]:
    """A server that scrapes `target` every second under the project's own rules; its address. A scrape may take all of
    that: one that is cut off leaves the worker down, and its series at an end, until the next."""
    place = f"127.0.0.1:{free_port()}"
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "200ms"},
        "rule_files": [str(RULES / "alerts.yml")],
        "scrape_configs": [{"job_name": "cancelq", "static_configs": [{"targets": [target]}]}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    log = (folder / "log").open("wb")
    process = subprocess.Popen(
        [
            str(find("prometheus")), f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={place}", "--log.level=warn",
        ],
        stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, process_group=0,
    )  # fmt: skip
    try:
        yield f"http://{place}"
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
        log.close()


def query(server: str, expression: str) -> list[tuple[dict[str, str], str]]:
    """An instant query's labels and values; empty while the server is not there yet."""
    try:
        status, body = get(f"{server}/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
    except OSError:
        return []
    found = json.loads(body)["data"]["result"] if status == 200 else []
    return [(row["metric"], row["value"][1]) for row in found]


def pending(server: str) -> set[str]:
    """The alerts whose rule holds, for less than the rule asks."""
    return {labels["alertname"] for labels, _ in query(server, 'ALERTS{alertstate="pending"}')}


def lagging(server: str) -> set[str]:
    """The alert of the loop's lag where the worker itself tells of that much."""
    lag = "histogram_quantile(0.99, sum by (le) (rate(cancelq_loop_lag_seconds_bucket[5m])))"
    return {"CancelqLoopLag"} if any(float(value) > 0.1 for _, value in query(server, lag)) else set()


@needs_prometheus
async def test_a_real_prometheus_scrapes_a_worker_and_answers_with_the_right_numbers(
    redis_url: str, tmp_path: Path
) -> None:
    async with watched_desk(redis_url) as (rig, worker):
        await some_cancels(rig)
        with prometheus(tmp_path, worker.place) as server:
            outcomes = 'sum by (venue, account, status) (cancelq_outcomes_total{status="cancelled"})'
            told = [({**AT, "status": "cancelled"}, "20")]
            await until_asked(rig, lambda: query(server, outcomes) == told)
            await until_asked(rig, lambda: query(server, "max(cancelq_lane_inbox_length)") == [({}, "22")])
            await until_asked(rig, lambda: [value for _, value in query(server, 'up{job="cancelq"}')] == ["1"])
            late = "histogram_quantile(0.5, sum by (le) (cancelq_queued_to_settled_seconds_bucket))"
            await until_asked(rig, lambda: [0 < float(value) <= 60 for _, value in query(server, late)] == [True])
            await until_asked(rig, lambda: query(server, "count(cancelq_build_info)") == [({}, "1")])
            for n in range(5):
                await rig.final(await rig.send(symbol="BTCUSDT", order_id=rig.order(), id=f"more{n}"))
            await until_asked(rig, lambda: query(server, outcomes) == [({**AT, "status": "cancelled"}, "25")])
            # The rules are evaluated, and nothing is wrong but that one worker is alone, for less than ten minutes, and
            # that its loop lags, if this machine has so much else to do that it does.
            await until_asked(rig, lambda: pending(server) == {"CancelqOneWorker", *lagging(server)})
            assert query(server, 'ALERTS{alertstate="firing"}') == []


def _address(worker: ObservedWorker) -> tuple[str, int]:
    host, _, port = worker.place.rpartition(":")
    return host, int(port)
