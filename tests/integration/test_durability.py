"""Short samples of `make durability`: a torn file, a power cut, a full disk, a full memory.

Each part is `ops/durability/`, on real servers with a real worker; what is left is judged from keys alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from structlog.testing import capture_logs

from ops.durability import full, power, torn
from ops.durability.server import Missing
from ops.durability.trace import changes, unframed

pytestmark = pytest.mark.timeout(180)
Told = TypeVar("Told")


def test_a_file_torn_at_any_byte_holds_no_intent_that_is_half_settled(server_kind: str, tmp_path: Path) -> None:
    """The same cuts of a file without transactions do, so the judge is not blind."""
    resumed = int(server_kind == "valkey")
    told = _run(torn.run(server_kind, tmp_path, seed=5, cuts=20, resumed=resumed, intents=24))
    assert not told.broken, told.broken
    assert (told.cuts, told.halves, told.resumed) == (20, 0, resumed)
    assert min(told.settled, told.open) > 0
    assert told.unframed_halves == told.unframed_cuts > 0


def test_what_was_told_survives_a_power_cut(server_kind: str, tmp_path: Path) -> None:
    told = _run(power.run(server_kind, tmp_path, "always", seed=5, seconds=1.5, moments=3))
    assert not told.broken, told.broken
    assert (told.lost, told.most_lost, told.loaded) == (0, 0, 3)
    assert told.told > 20


@pytest.mark.one_server
def test_a_sync_every_second_loses_what_was_told(server_kind: str, tmp_path: Path) -> None:
    """Which is why the shipped configuration has `always`, and the worker warns of anything else."""
    told = _run(power.run(server_kind, tmp_path, "everysec", seed=5, seconds=1.5, moments=1))
    assert told.most_lost > 0


@pytest.mark.one_server
def test_a_full_disk_ends_the_server_before_anything_unrecorded_is_sent(server_kind: str, tmp_path: Path) -> None:
    told = _run(full.disk(server_kind, tmp_path, "always", seed=5))
    assert not told.broken, told.broken
    assert (told.calls, told.unrecorded, told.ended, told.refused) == (0, 0, True, "BrokerDown")
    assert told.outcomes >= told.queued > 0


@pytest.mark.one_server("redis7")
def test_a_full_disk_closes_the_intake_of_a_server_that_goes_on(server_kind: str, tmp_path: Path) -> None:
    told = _run(full.disk(server_kind, tmp_path, "everysec", seed=5))
    assert not told.broken, told.broken
    assert (told.calls, told.unrecorded, told.ended, told.refused) == (0, 0, False, "BrokerRefused")
    assert "cannot write to its disk" in told.remedy
    assert told.outcomes >= told.queued > 0


def test_a_full_memory_closes_the_intake_and_nothing_else(server_kind: str, tmp_path: Path) -> None:
    told = _run(full.memory(server_kind, tmp_path, seed=5, waiting=200))
    assert not told.broken, told.broken
    assert told.settle_refused == 0
    assert "memory is full" in told.remedy
    assert "raise its maxmemory" in told.remedy
    assert told.outcomes == told.queued > 200


def test_changes_of_a_file_count_from_the_end_of_their_transaction() -> None:
    framed = b"".join(map(_command, ("MULTI", "SET a 1", "XADD s 1-0 f v", "EXEC", "SET b 2")))
    whole = list(changes(framed))
    after = len(framed) - len(_command("SET b 2"))
    assert [(one.words[0], one.end) for one in whole] == [(b"SET", after), (b"XADD", after), (b"SET", len(framed))]
    assert list(changes(framed[: after - 1])) == []
    assert unframed(framed) == b"".join(map(_command, ("SET a 1", "XADD s 1-0 f v", "SET b 2")))


def _command(text: str) -> bytes:
    words = text.encode().split()
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def _run(part: Coroutine[Any, Any, Told]) -> Told:
    """A part, without what its workers say; skipped where this machine lacks what it needs."""
    try:
        with capture_logs():
            return asyncio.run(part)
    except Missing as missing:
        pytest.skip(str(missing))
