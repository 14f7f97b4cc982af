"""What workers said of themselves: lines of their logs that no fault explains."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from cancelq_worker.simulator.simulator import DEMO_PASSPHRASE, DEMO_SECRET
from ops.checks import Broken

_NEVER = ("a lane's loop ended", "a call ended in an error", "settle refused", "take refused", "admission refused")
#: A server that is loading or full says so to each command; that is a fault of ours.
_OURS = ("LOADING", "OOM", "maxmemory")


def judge_logs(folder: Path) -> Iterator[Broken]:
    """Errors of the product in any worker's log, and secrets (18)."""
    said: Counter[str] = Counter()
    for log in sorted(folder.glob("worker-*.log")):
        text = log.read_text(errors="replace")
        for secret in (DEMO_SECRET, DEMO_PASSPHRASE):
            if secret in text:
                yield Broken("18", f"{log.name} holds a secret")
        for line in text.splitlines():
            with contextlib.suppress(ValueError):
                row = json.loads(line)
                if str(row.get("event", "")).startswith(_NEVER):
                    said[f"{row['event']}: {str(row.get('error', ''))[:160]}"] += 1
    for what, times in said.items():
        if not any(word in what for word in _OURS):
            yield Broken("log", f"{times} times {what}")
