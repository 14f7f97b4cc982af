"""One archiver a lane: a file lock in the folder, a key in Redis, and what both allow.

The file lock is the system's: it ends with its process, however that ends. The key covers other folders and machines;
it lives a minute beyond its last renewal. Whatever the holder changes in Redis is checked against the key in the same
step, so that an archiver that stalled past its time changes nothing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from cancelq.contract import Lane
from cancelq_worker.scripts import script_source

LOCK = ".lock"
LEASE_MS = 60_000
_ACTS = script_source("archived")
# A token of the same folder whose process is gone (the file lock is ours) is replaced, if it still stands there.
_TAKE_OVER = """#!lua flags=allow-oom
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""
_LEAVE = """#!lua flags=allow-oom
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


class LaneBusy(Exception):
    """Another archiver has this lane just now. Let it end; one that died lets go within a minute."""


class MarkerChanged(Exception):
    """What the lane says of its archive was changed meanwhile: by another archiver, or by hand."""


@dataclass(frozen=True, slots=True)
class Trimmed:
    """`kept` is the first entry that was to be kept; `group` the consumer group that kept it, "" if none."""

    count: int
    kept: str
    group: str


def marker_key(lane: Lane) -> str:
    """The key that tells workers what is verified: they trim results by age, but never past it."""
    return lane.key("archived")


class Fence:
    """The right to archive a lane, held. RedisError; LaneBusy, MarkerChanged."""

    def __init__(self, client: redis.Redis, lane: Lane, token: str) -> None:
        self._client = client
        self._keys = (marker_key(lane), lane.key("archiver"), lane.results)
        self._token = token

    def renew(self) -> None:
        """To be called more often than once a minute. LaneBusy if the lane was lost."""
        take_over = self._client.register_script(_TAKE_OVER)
        if not take_over(keys=[self._keys[1]], args=[self._token, self._token, LEASE_MS]):
            raise LaneBusy("the lane was lost to another archiver, as this one stalled for a minute")

    def marker(self) -> str:
        """What the lane says is verified; "" if it has no archive."""
        held: Any = self._client.get(self._keys[0])
        return held.decode() if held else ""

    def mark(self, expected: str, new: str) -> None:
        """Tells what is verified now."""
        self._act("mark", expected, new)

    def trim(self, expected: str, keep_from: str, *, ignore_groups: bool) -> Trimmed:
        """Trims results before an entry, never past the marker; with consumer groups, only what they are done with."""
        _, count, kept, group = self._act("trim", expected, keep_from, "1" if ignore_groups else "0")
        return Trimmed(count, kept.decode(), group.decode(errors="backslashreplace"))

    def _act(self, *words: str) -> Any:
        reply: Any = self._client.register_script(_ACTS)(keys=self._keys, args=[self._token, *words])
        if reply[0] == b"lost":
            raise LaneBusy("the lane was lost to another archiver, as this one stalled for a minute")
        if reply[0] == b"changed":
            raise MarkerChanged(f"the lane's marker holds {reply[1].decode()!r} instead of {words[1]!r}")
        return reply


@contextmanager
def held(client: redis.Redis, lane: Lane, folder: Path) -> Iterator[Fence]:
    """Holds a lane for as long as the block runs. LaneBusy at once if somebody else does."""
    with (folder / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            raise LaneBusy(f"another archiver works in {folder}") from None
        known = os.fstat(file.fileno())
        place = f"{socket.gethostname()}|{known.st_dev}:{known.st_ino}|"
        token = f"{place}{secrets.token_hex(8)}"
        key = lane.key("archiver")
        _take(client, key, place, token)
        try:
            yield Fence(client, lane, token)
        finally:
            client.register_script(_LEAVE)(keys=[key], args=[token])


def _take(client: redis.Redis, key: str, place: str, token: str) -> None:
    if client.set(key, token, nx=True, px=LEASE_MS):
        return
    other: Any = client.get(key)
    gone = other is not None and other.decode(errors="replace").startswith(place)
    if gone and client.register_script(_TAKE_OVER)(keys=[key], args=[other, token, LEASE_MS]):
        return
    host = other.decode(errors="replace").partition("|")[0] if other else "another machine"
    raise LaneBusy(f"an archiver on {host} has this lane; one that died lets go within {LEASE_MS // 1000} s")
