"""The roster of live workers, and which of them watches which lane."""

from __future__ import annotations

import hashlib
from typing import Final

ROSTER: Final = "cancelq:workers"
FRESH_MS: Final = 1_600  # how old a heartbeat may be


def rank(lane: str, worker: str, alive: list[str]) -> int:
    """A worker's place for a lane by rendezvous hashing: 0 watches first, 1 second, others not at all."""

    def weight(name: str) -> bytes:
        return hashlib.blake2b(f"{lane}|{name}".encode(), digest_size=8).digest()

    return sorted({*alive, worker}, key=weight, reverse=True).index(worker)
