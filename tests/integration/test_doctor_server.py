"""`doctor` finds each fault of a server, made on a real one, and says what to do about it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from cancelq.contract import Lane
from cancelq_worker.doctor import certificates, durability, memory, server
from cancelq_worker.doctor.findings import About, Level
from cancelq_worker.doctor.patient import on_this_machine
from cancelq_worker.exits import Exit
from cancelq_worker.growth import Growth
from cancelq_worker.scripts import SCRIPTS
from ops.durability.full import small_disk
from ops.durability.server import Missing
from tests.ha import until
from tests.integration.tls_rig import Papers, TlsServer
from tests.integration.ward import at, changed, empty_lane, examined, the
from tests.servers import RedisDebian

pytestmark = pytest.mark.one_server("redis7")


@pytest.fixture(scope="module")
def well(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisDebian]:
    """A server with nothing wrong, shared: a test that changes it changes it back."""
    config = {"maxmemory": "256mb", "repl-diskless-sync-delay": "0"}
    made = RedisDebian(tmp_path_factory.mktemp("well"), durable=True, config=config)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def client(well: RedisDebian) -> Iterator[Redis]:
    with well.client() as client:
        yield client
        client.flushall()


async def test_a_server_with_nothing_wrong(well: RedisDebian) -> None:
    report = await examined(well.url)
    assert {one.check: one.told for one in report.findings if one.level is not Level.ok} == {}
    assert report.exit is Exit.OK


FAULTS: dict[str, tuple[Mapping[str, str], Level, str, str]] = {
    "durability.aof": ({"appendonly": "no"}, Level.fail, "a restart of the server loses", "appendonly yes"),
    "durability.fsync": ({"appendfsync": "everysec"}, Level.warn, "a power cut loses", "appendfsync always"),
    "durability.fsync/no": ({"appendfsync": "no"}, Level.fail, "a power cut loses", "appendfsync always"),
    "durability.fsync/rewrite": ({"no_appendfsync_on_rewrite": "yes"}, Level.warn, "rewritten", "on-rewrite no"),
    "memory.eviction": ({"maxmemory_policy": "allkeys-lru"}, Level.fail, "drops accepted intents", "noeviction"),
    "memory.headroom": ({"maxmemory": "0"}, Level.warn, "no maxmemory", "set maxmemory"),
    "memory.headroom/full": ({"maxmemory": "1000000"}, Level.fail, "new intents are refused", "raise maxmemory"),
    "server.replicas": ({"min_replicas_to_write": "1"}, Level.fail, "writes are refused", "bring the replicas back"),
}


@pytest.mark.parametrize("case", FAULTS)
async def test_a_setting_that_is_wrong_is_found_with_its_remedy(well: RedisDebian, client: Redis, case: str) -> None:
    config, level, told, remedy = FAULTS[case]
    check = case.partition("/")[0]
    with changed(client, **config):
        report = await examined(well.url)
    found = the(report, check)
    assert (found.level, told in found.told, remedy in found.remedy) == (level, True, True), found
    assert report.exit is (Exit.UNHEALTHY if level is Level.fail else Exit.OK)
    assert set(at(report, level)) == {check}, "nothing else is blamed"


async def test_a_snapshot_that_fails_is_found(well: RedisDebian, client: Redis) -> None:
    (well.folder / "dump.rdb").mkdir()  # what is to be renamed to it cannot be
    with changed(client, save="3600 1"):
        client.bgsave()
        until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", "a snapshot that failed", 5.0)
        found = the(await examined(well.url), "durability.snapshots")
        (well.folder / "dump.rdb").rmdir()
        client.bgsave()
        until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "ok", "a snapshot that went well", 5.0)
    assert found.level is Level.fail
    assert "MISCONF" in found.told
    assert the(await examined(well.url), "durability.snapshots").level is Level.ok


async def test_a_file_that_was_cut_off_when_it_was_loaded_is_found(redis_server: RedisDebian) -> None:
    with redis_server.client() as client:
        client.set("accepted", "x" * 100)
    redis_server.kill9()
    (file,) = (redis_server.folder / "appendonlydir").glob("*.incr.aof")
    os.truncate(file, file.stat().st_size - 20)
    redis_server.start()
    found = the(await examined(redis_server.url), "durability.truncated")
    assert found.level is Level.warn
    assert "cancelq audit" in found.remedy
    redis_server.restart()
    assert the(await examined(redis_server.url), "durability.truncated").level is Level.ok, "mended by then"


async def test_a_full_disk_is_found_by_what_it_does_and_by_itself(tmp_path: Path) -> None:
    """With `always` the server ends at once; with `everysec` it lives on and refuses every write."""
    with contextlib.ExitStack() as stack:
        try:
            place = stack.enter_context(small_disk(tmp_path / "disk"))
        except Missing as missing:
            pytest.skip(str(missing))
        (place / "data").mkdir()
        server = RedisDebian(place / "data", durable=True, config={"appendfsync": "everysec", "maxmemory": "100mb"})
        server.start()
        stack.callback(server.stop)
        with server.client() as client:
            assert the(await examined(server.url), "durability.writes").level is Level.ok
            with pytest.raises(RedisError, match="MISCONF"):
                fill(client)
            report = await examined(server.url)
    assert "MISCONF" in the(report, "durability.writes").told
    assert "make room" in the(report, "durability.writes").remedy
    assert set(at(report, Level.fail)) == {"durability.writes"}, "its folder is not to be seen under that name"
    assert report.exit is Exit.UNHEALTHY


async def test_a_replica_is_found_from_both_sides(well: RedisDebian, redis_server: RedisDebian, client: Redis) -> None:
    with redis_server.client() as replica:
        replica.replicaof("127.0.0.1", str(well.port))
        until(lambda: replica.info("replication")["master_link_status"] == "up", "the replica is linked", 5.0)
        until(lambda: client.info("replication")["slave0"]["state"] == "online", "the replica is online", 5.0)
        seen = the(await examined(redis_server.url), "server.role")
        assert seen.level is Level.fail
        assert "READONLY" in seen.told
        assert f"127.0.0.1:{well.port}" in seen.remedy
        report = await examined(well.url)
        assert the(report, "server.replica").level is Level.ok
        assert the(report, "server.replicas").level is Level.warn
        assert "min-replicas-to-write 1" in the(report, "server.replicas").remedy
        with changed(client, min_replicas_to_write="1"):
            assert the(await examined(well.url), "server.replicas").level is Level.ok
        missing = the(await examined(well.url, {"CANCELQ_DURABLE_REPLICAS": "2"}), "server.replicas")
        assert missing.level is Level.fail
        assert "workers send nothing" in missing.told
        replica.replicaof("NO", "ONE")
    until(lambda: client.info("replication")["connected_slaves"] == 0, "the replica is gone", 5.0)


async def test_scripts_that_live_workers_should_have_loaded(well: RedisDebian, client: Redis) -> None:
    await examined(well.url)
    assert the(await examined(well.url), "scripts.loaded").told.startswith("all ")
    client.zadd("cancelq:workers", {"other-version": int(time.time() * 1000)})
    client.script_flush()
    report = await examined(well.url)
    assert the(report, "scripts.loaded").level is Level.warn
    assert the(report, "scripts.loaded").facts["missing"] == list(SCRIPTS.sha)


async def test_a_server_that_is_away_is_one_finding_with_69() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        report = await examined(f"redis://user:canary@127.0.0.1:{taken.getsockname()[1]}/0")
    found = the(report, "server.reachable")
    assert (found.level, report.exit) == (Level.fail, Exit.UNREACHABLE)
    assert "redis_url" in found.remedy
    assert "canary" not in str(report)
    assert not [one for one in report.findings if one.group in ("durability", "memory", "doors", "scripts")]


async def test_a_server_that_stands_still_costs_no_more_than_the_deadline(redis_server: RedisDebian) -> None:
    os.kill(redis_server.pid, signal.SIGSTOP)
    begun = time.monotonic()
    report = await examined(redis_server.url)
    took_s = time.monotonic() - begun
    os.kill(redis_server.pid, signal.SIGCONT)
    assert report.exit is Exit.UNREACHABLE
    assert took_s < 15


async def test_a_wrong_password_is_told_as_such(well: RedisDebian, client: Redis) -> None:
    report = await examined(well.url.replace("//", "//nobody:canary@"))
    assert "refuses this user" in the(report, "server.reachable").told
    assert report.exit is Exit.CONFIGURATION
    assert "canary" not in str(report)


async def test_a_right_that_is_missing_makes_its_checks_unknown_and_is_named(well: RedisDebian, client: Redis) -> None:
    empty_lane(client, Lane("bitget", "main"))
    client.execute_command("ACL", "SETUSER", "few", "on", ">pw", "~*", "+ping", "+get", "+time")  # type: ignore[no-untyped-call]
    report = await examined(well.url.replace("//", "//few:pw@"))
    client.execute_command("ACL", "DELUSER", "few")  # type: ignore[no-untyped-call]
    assert the(report, "durability.fsync").level is Level.unknown
    assert "+info" in the(report, "durability.fsync").told
    assert "+acl|whoami" in the(report, "doors.rights").told
    assert not at(report, Level.fail)
    assert report.exit is Exit.OK


async def test_tls_is_told_and_how_long_the_certificate_is_good_for(tmp_path: Path) -> None:
    papers = Papers(tmp_path)
    server = TlsServer(tmp_path / "server", papers)
    server.start()
    try:
        report = await examined(server.url)
        assert the(report, "doors.tls").told == "the connection is encrypted (TLS)"
        assert the(report, "doors.certificate").level is Level.ok
        assert the(report, "doors.certificate").facts["days"] > 1000
        blind = await examined(f"{server.url}&ssl_cert_reqs=none")
        assert the(blind, "doors.certificate").level is Level.unknown
        stranger = await examined(server.url_with(papers.query("stranger")))
        assert (the(stranger, "server.reachable").level, stranger.exit) == (Level.fail, Exit.UNREACHABLE)
    finally:
        server.stop()
    about = About("doors.certificate", "server")
    assert certificates.judge_end(about, 5 * 86_400).told.startswith("the server's certificate ends in 5 days")
    assert certificates.judge_end(about, 5 * 86_400).level is Level.warn


def test_versions_below_the_floor_are_refused() -> None:
    for info in ({"redis_version": "6.2.14"}, {"redis_version": "7.0.0", "valkey_version": "7.0.9"}):
        found = server.judge_version(info)
        assert found.level is Level.fail
        assert "Redis 7.0 or newer, or Valkey 7.2" in found.remedy
    for info in (
        {"redis_version": "7.0.15"},
        {"redis_version": "7.2.4", "valkey_version": "9.1.2"},
        {"redis_version": "8.0"},
    ):
        assert server.judge_version(info).level is Level.ok


def test_a_server_that_is_nearly_full_of_clients_is_told() -> None:
    assert server.judge_clients({"connected_clients": 90, "maxclients": 100}).level is Level.warn
    assert server.judge_clients({"connected_clients": 70, "maxclients": 100}).level is Level.ok


def test_writes_that_failed_are_told() -> None:
    assert durability.judge_writes({"aof_last_write_status": "err"}).level is Level.fail
    assert durability.judge_rewrites({"aof_last_bgrewrite_status": "err"}).level is Level.warn


@pytest.mark.parametrize(
    ("free_mib", "size_mib", "kept_mib", "level"),
    [
        (50, 100, 1, Level.fail),
        (900, 10_000, 1, Level.warn),
        (2_000, 10_000, 1_500, Level.warn),
        (5_000, 10_000, 1_500, Level.ok),
    ],
)
def test_room_on_the_disk(free_mib: int, size_mib: int, kept_mib: int, level: Level) -> None:
    assert durability.judge_disk("/data", free_mib << 20, size_mib << 20, kept_mib << 20).level is level


@pytest.mark.parametrize(
    ("hours", "level"), [(None, Level.ok), (1.0, Level.fail), (30.0, Level.warn), (200.0, Level.ok), (5000.0, Level.ok)]
)
def test_when_memory_will_be_full(hours: float | None, level: Level) -> None:
    assert memory.judge_forecast(Growth([], 1, 2, hours), 30).level is level


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("redis://127.0.0.1:6379/0", True),
        ("redis://user:pw@localhost:6379", True),
        ("redis://[::1]:6379", True),
        ("unix:///run/redis.sock", True),
        ("redis://10.1.2.3:6379", False),
        ("redis://[fd00::1]:6379", False),
        ("redis://no.such.host.invalid:6379", False),
    ],
)
def test_what_leaves_this_machine(url: str, here: bool) -> None:
    assert on_this_machine(url) is here


def fill(client: Redis) -> None:
    """Writes until the server refuses."""
    for n in range(50_000):
        client.set(f"k{n}", "x" * 4_000)
