"""The archive: what it holds is what was there, whatever interrupts it; and nothing is trimmed that is not in it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as parquet  # type: ignore[import-untyped]
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from cancelq_worker import wiring
from cancelq_worker.archive import manifest, segments, stream
from cancelq_worker.archive.archiver import Archiver, Options
from cancelq_worker.archive.canonical import line
from cancelq_worker.archive.compare import ArchiveFlawed
from cancelq_worker.archive.fence import LaneBusy, held, marker_key
from cancelq_worker.archive.repair import OtherArchive
from cancelq_worker.scripts import SCRIPTS
from cancelq_worker.trips import command
from tests.integration.rig import desk
from tests.integration.told import MAIN, archived, audited, entry_id, event, fill, named
from tests.servers import RedisServer

ROOT = Path(__file__).parents[2]
#: The first intent that was queued within the last twelve hours.
HALF_A_DAY_AGO = 13 * 12 * 360_000
STEPS = [(step, nth) for step in ("written", "compared", "renamed", "listed", "marked") for nth in (1, 2)]
STEPS += [("locked", 1), ("repaired", 1), ("checked", 1), ("checked", 2), ("trimmed", 1), ("trimmed", 2)]


@pytest.fixture
def client(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url, protocol=2) as client:
        yield client


def folder_of(archive: Path) -> Path:
    return manifest.folder_of(archive, MAIN)


def everything(client: Redis, archive: Path) -> list[bytes]:
    """The canonical lines of all segments in their order, then of what the stream holds beyond them."""
    chain = manifest.read(folder_of(archive), MAIN)
    assert not chain.flaws
    kept = [line(entry) for segment in chain.segments for entry in segments.read(folder_of(archive) / segment.file)]
    rest = stream.entries(stream.raw_reader(client), MAIN.results, stream.after(chain.last), "+")
    return [*kept, *(line(entry) for entry in rest)]


class TestWhatIsKept:
    def test_segments_hold_what_the_stream_held_and_then_it_is_trimmed(self, client: Redis, tmp_path: Path) -> None:
        fill(client, 25)
        before = everything(client, tmp_path)
        done = archived(client, tmp_path, trim=True)
        assert (done.segments, done.events, done.trimmed, client.xlen(MAIN.results)) == (3, 25, 25, 0)
        assert everything(client, tmp_path) == before
        assert archived(client, tmp_path, trim=True).events == 0

    def test_younger_than_keep_stays_and_younger_than_leave_is_for_the_next_run(
        self, client: Redis, tmp_path: Path
    ) -> None:
        fill(client, 5)
        client.xadd(MAIN.results, event(5))
        done = Archiver(client, MAIN, tmp_path, Options(leave_ms=60_000)).run()
        assert (done.events, done.trimmed, client.xlen(MAIN.results)) == (5, 5, 1)
        done = Archiver(client, MAIN, tmp_path, Options(leave_ms=0)).run()
        assert (done.events, done.trimmed, client.xlen(MAIN.results)) == (1, 0, 1)

    def test_the_chain_can_be_followed_by_hand(self, client: Redis, tmp_path: Path) -> None:
        """With json and hashlib alone, as docs/AUDIT.md tells it."""
        fill(client, 25)
        archived(client, tmp_path)
        previous = "0" * 64
        for text in (folder_of(tmp_path) / "manifest.ndjson").read_bytes().splitlines():
            told = json.loads(text)
            assert told["previous"] == previous
            path = folder_of(tmp_path) / told["file"]
            assert hashlib.sha256(path.read_bytes()).hexdigest() == told["sha256"]
            digest = hashlib.sha256()
            for entry in segments.read(path):
                plain = json.dumps(
                    [entry.entry_id, entry.fields], sort_keys=True, ensure_ascii=False, separators=(",", ":")
                )
                digest.update(plain.encode() + b"\n")
            assert digest.hexdigest() == told["events"]
            previous = hashlib.sha256(text).hexdigest()

    def test_times_are_typed_utc_microseconds(self, client: Redis, tmp_path: Path) -> None:
        fill(client, 1)
        archived(client, tmp_path)
        (path,) = folder_of(tmp_path).glob("*.parquet")
        table = parquet.read_table(path)
        assert str(table.schema.field("settled_at").type) == "timestamp[us, tz=UTC]"
        assert table["settled_at"].cast("int64").to_pylist() == [int(event(0)["settled_us"])]
        assert table["order_id"].to_pylist() == [str(10**18)]


NAMES = st.one_of(st.sampled_from(["id", "status", "queued_us", "x_a", "new"]), st.text(max_size=8)).map(str.encode)
VALUES = st.one_of(
    st.text(max_size=20).map(str.encode), st.binary(max_size=8), st.sampled_from([b"", b"1763690000000000", b"9" * 30])
)


@pytest.mark.one_server
class TestProperty:
    @settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(entries=st.lists(st.lists(st.tuples(NAMES, VALUES), min_size=1, max_size=6), min_size=1, max_size=12))
    def test_whatever_was_in_the_stream_is_in_the_archive(
        self, client: Redis, tmp_path_factory: pytest.TempPathFactory, entries: list[list[tuple[bytes, bytes]]]
    ) -> None:
        archive = tmp_path_factory.mktemp("archive")
        client.flushall()
        for number, fields in enumerate(entries, start=1):
            client.execute_command("XADD", MAIN.results, f"{number}-0", *(word for pair in fields for word in pair))  # type: ignore[no-untyped-call]
        before = everything(client, archive)
        done = archived(client, archive, rows=5, trim=True)
        assert (done.events, client.xlen(MAIN.results)) == (len(entries), 0)
        assert everything(client, archive) == before


class TestCrashes:
    @pytest.mark.one_server
    @pytest.mark.parametrize(("step", "nth"), STEPS)
    def test_killed_at_any_step_nothing_is_lost_and_the_next_run_repairs(
        self, client: Redis, redis_url: str, tmp_path: Path, step: str, nth: int
    ) -> None:
        fill(client, 25)
        before = everything(client, tmp_path)
        child = [sys.executable, "-m", "tests.integration.archive_child", redis_url, str(tmp_path), step, str(nth)]
        assert subprocess.run(child, cwd=ROOT, timeout=60).returncode == -signal.SIGKILL
        assert self.kept(client, tmp_path) == before
        archived(client, tmp_path, trim=True)
        assert everything(client, tmp_path) == before
        assert client.xlen(MAIN.results) == 0
        assert named(audited(client, tmp_path)) == []
        assert [p.name for p in folder_of(tmp_path).iterdir() if p.name.startswith(".")] == [".lock"]

    def kept(self, client: Redis, archive: Path) -> list[bytes]:
        """What would be left if the archiver never ran again: by the manifest, and in the stream."""
        chain = manifest.read(folder_of(archive), MAIN)
        rows = {line(e) for s in chain.segments for e in segments.read(folder_of(archive) / s.file)}
        rows |= {line(e) for e in stream.entries(stream.raw_reader(client), MAIN.results, "-", "+")}
        return sorted(rows)

    @pytest.mark.parametrize("left", [1, 50, -1])
    def test_a_line_torn_in_the_middle_is_written_anew(self, client: Redis, tmp_path: Path, left: int) -> None:
        """The state in which a crash leaves it: the file is there, its line is not whole, the lane knows of neither."""
        fill(client, 25)
        before = everything(client, tmp_path)
        archived(client, tmp_path)
        path = folder_of(tmp_path) / manifest.NAME
        one, two, three = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(one + two + three[:left])
        second = json.loads(two)
        client.set(marker_key(MAIN), f"{second['last']} 2 {hashlib.sha256(two[:-1]).hexdigest()}")
        archived(client, tmp_path, trim=True)
        assert everything(client, tmp_path) == before
        assert named(audited(client, tmp_path)) == []

    def test_a_file_that_is_not_what_follows_is_set_aside_and_kept(self, client: Redis, tmp_path: Path) -> None:
        fill(client, 5)
        archived(client, tmp_path)
        stray = folder_of(tmp_path) / "00000002_1-0_2-0.parquet"
        stray.write_bytes(b"no segment")
        done = archived(client, tmp_path)
        assert stray.with_name(f"{stray.name}.aside").read_bytes() == b"no segment"
        assert any(stray.name in note for note in done.notes)


class TestNeverTrimmed:
    def test_a_spoilt_segment_is_no_reason_to_trim(self, client: Redis, tmp_path: Path) -> None:
        fill(client, 25)
        archived(client, tmp_path)
        path = sorted(folder_of(tmp_path).glob("*.parquet"))[0]
        content = bytearray(path.read_bytes())
        content[300] ^= 1
        path.write_bytes(content)
        with pytest.raises(ArchiveFlawed, match=path.name):
            archived(client, tmp_path, trim=True)
        assert client.xlen(MAIN.results) == 25

    def test_what_a_group_has_not_read_or_acknowledged_stays(self, client: Redis, tmp_path: Path) -> None:
        fill(client, 25)
        client.xgroup_create(MAIN.results, "desk", id="0")
        assert archived(client, tmp_path, trim=True).kept_by == "desk"
        assert client.xlen(MAIN.results) == 25
        client.xreadgroup("desk", "a", {MAIN.results: ">"}, count=20)
        client.xack(MAIN.results, "desk", *(entry_id(n) for n in range(25) if n != 7))
        archived(client, tmp_path, trim=True)
        assert stream.facts(client, MAIN.results).first == entry_id(7)  # type: ignore[union-attr]
        client.xack(MAIN.results, "desk", entry_id(7))
        archived(client, tmp_path, trim=True)
        assert stream.facts(client, MAIN.results).first == entry_id(19)  # type: ignore[union-attr]
        Archiver(client, MAIN, tmp_path, Options(leave_ms=0, ignore_groups=True)).run()
        assert client.xlen(MAIN.results) == 0

    def test_two_archivers_of_a_lane_keep_apart(self, client: Redis, tmp_path: Path) -> None:
        fill(client, 5)
        folder_of(tmp_path).mkdir(parents=True)
        with held(client, MAIN, folder_of(tmp_path)) as fence:
            with pytest.raises(LaneBusy):
                archived(client, tmp_path)
            with pytest.raises(LaneBusy):
                archived(client, tmp_path / "elsewhere")
            # One that stalled until another had the lane can neither mark nor trim.
            client.set(MAIN.key("archiver"), "another")
            with pytest.raises(LaneBusy):
                fence.mark("", "9-0 1 x")
            with pytest.raises(LaneBusy):
                fence.trim("", entry_id(5), ignore_groups=True)
            with pytest.raises(LaneBusy):
                fence.renew()
        assert client.xlen(MAIN.results) == 5
        assert client.get(MAIN.key("archiver")) == b"another"

    def test_a_folder_that_is_not_the_lanes_archive_is_refused(self, client: Redis, tmp_path: Path) -> None:
        fill(client, 5)
        archived(client, tmp_path / "one")
        with pytest.raises(OtherArchive, match="empty"):
            archived(client, tmp_path / "other")


class TestWorkersTrim:
    def trim(self, client: Redis) -> None:
        """As a worker does, an hour's results kept."""
        args = [3_600_000, 24, time.time_ns() // 1_000_000]
        client.eval(SCRIPTS.source["trim"], 1, MAIN.key("clock"), *args)

    def test_by_age_as_ever_without_an_archive(self, client: Redis) -> None:
        fill(client, 1000)
        self.trim(client)
        assert client.xlen(MAIN.results) < 200

    def test_with_one_never_past_what_is_verified(self, client: Redis, tmp_path: Path) -> None:
        fill(client, 600)
        archived(client, tmp_path, rows=1000)
        fill(client, 400, begin=600)
        self.trim(client)
        facts = stream.facts(client, MAIN.results)
        assert facts is not None
        assert 400 < facts.length < 700
        client.set(marker_key(MAIN), manifest.NOTHING_ARCHIVED)
        self.trim(client)
        assert client.xlen(MAIN.results) == facts.length

    async def test_a_worker_keeps_results_for_as_many_days_as_it_is_told(
        self, client: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(wiring, "TRIM_EVERY_S", 0.0)
        fill(client, 600)
        fill(client, 400, begin=HALF_A_DAY_AGO)
        client.delete(MAIN.inbox)
        async with desk(redis_url, workers=0) as rig:
            rig.start(CANCELQ_RESULTS_KEEP_DAYS="1")
            async with asyncio.timeout(15):
                while (left := await rig.client.xlen(MAIN.results)) >= 1000:
                    await command(rig.client, "XREAD", "BLOCK", 10, "STREAMS", MAIN.inbox, "$")
            assert 400 <= left < 700

    async def test_a_worker_that_knows_an_archive_keeps_all_results_until_its_first_run(
        self, client: Redis, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(wiring, "TRIM_EVERY_S", 0.0)
        fill(client, 1000)
        client.delete(MAIN.inbox)
        async with desk(redis_url, workers=0) as rig:
            rig.start(CANCELQ_RESULTS_KEEP_DAYS="1", CANCELQ_ARCHIVE_DIR=str(tmp_path))
            async with asyncio.timeout(15):
                while (marker := await rig.client.get(marker_key(MAIN))) is None:
                    assert await rig.client.xlen(MAIN.results) == 1000
                    await command(rig.client, "XREAD", "BLOCK", 10, "STREAMS", MAIN.inbox, "$")
            assert marker == manifest.NOTHING_ARCHIVED.encode()
            await rig.stop()
        assert client.xlen(MAIN.results) == 1000


async def test_a_worker_that_knows_an_archive_trims_while_memory_is_full(
    redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is how there is room again."""
    monkeypatch.setattr(wiring, "TRIM_EVERY_S", 0.0)
    with redis_server.client() as client:
        fill(client, 1000)
        client.delete(MAIN.inbox)
        client.set(marker_key(MAIN), manifest.NOTHING_ARCHIVED)
        async with desk(redis_server.url, workers=0) as rig:
            rig.start(CANCELQ_RESULTS_KEEP_DAYS="1", CANCELQ_ARCHIVE_DIR=str(tmp_path))
            await rig.ready()
            with client.pipeline() as at_once:
                at_once.set(marker_key(MAIN), f"{entry_id(999)} 1000 of-a-test")
                at_once.config_set("maxmemory", 1)
                at_once.execute()
            async with asyncio.timeout(15):
                while await rig.client.xlen(MAIN.results) == 1000:
                    await command(rig.client, "XREAD", "BLOCK", 10, "STREAMS", MAIN.inbox, "$")


def test_a_segment_that_holds_old_and_young_is_trimmed_up_to_the_young(client: Redis, tmp_path: Path) -> None:
    fill(client, 5)
    young = [client.xadd(MAIN.results, event(n)) for n in (5, 6)]
    done = archived(client, tmp_path, trim=True)
    assert (done.segments, done.events, done.trimmed) == (1, 7, 5)
    assert [id_ for id_, _ in stream.raw_entries(client, MAIN.results, "-", "+")] == young


@pytest.mark.parametrize(
    ("more", "says"), [(False, "is not what the stream holds"), (True, "lacks an event of the stream")]
)
def test_a_stream_that_is_not_as_it_was_archived_is_not_trimmed(
    client: Redis, tmp_path: Path, more: bool, says: str
) -> None:
    fill(client, 20)
    archived(client, tmp_path)
    rows = list(stream.raw_entries(stream.raw_reader(client), MAIN.results, "-", "+"))
    client.delete(MAIN.results)
    for id_, flat in rows:
        changed = [b"filled" if id_.decode() == entry_id(7) and word == b"cancelled" else word for word in flat]
        client.execute_command("XADD", MAIN.results, id_, *(flat if more else changed))  # type: ignore[no-untyped-call]
        if more and id_.decode() == entry_id(7):
            client.xadd(MAIN.results, event(7), f"{entry_id(7)[:-2]}-1")
    with pytest.raises(ArchiveFlawed, match=says):
        archived(client, tmp_path, trim=True)
    assert client.xlen(MAIN.results) == 20 + more


def test_a_server_whose_clock_is_hours_off_is_not_trimmed(
    client: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(client, 5)
    truly = stream.now_ms
    monkeypatch.setattr(stream, "now_ms", lambda server: truly(server) + 2 * 3_600_000)
    done = archived(client, tmp_path, trim=True)
    assert (done.events, done.trimmed, client.xlen(MAIN.results)) == (5, 0, 5)
    assert any("nothing was trimmed" in note for note in done.notes)
