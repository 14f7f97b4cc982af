"""What a peer's process writes down for the bench."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence


def note(codes: Mapping[str, str]) -> None:
    """One line `time in µs, order id, the venue's code` for each order that was answered."""
    at_us = time.time_ns() // 1000
    _write("outcomes", "".join(f"{at_us} {order_id} {code}\n" for order_id, code in codes.items()))


def note_asked(order_ids: Sequence[str], at_us: int, urgent: bool) -> None:
    """One line `time in µs, order id, 1 if urgent` for each cancel that was asked for."""
    _write("asked", "".join(f"{at_us} {order_id} {int(urgent)}\n" for order_id in order_ids))


def _write(kind: str, text: str) -> None:
    # A file of the process, named by its session, which is the worker's. A single write: none is lost by a kill.
    path = os.path.join(os.environ["DESK_FOLDER"], f"{kind}-{os.getsid(0)}-{os.getpid()}")
    with open(path, "ab", buffering=0) as file:
        file.write(text.encode())
