"""An archive run that kills itself at the n-th time it reaches a step: `archive_child.py URL FOLDER STEP N`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from redis import Redis

from cancelq_worker.archive.archiver import Archiver, Options
from tests.integration.told import MAIN


def main(url: str, folder: str, fatal: str, nth: str) -> None:
    left = int(nth)

    def step(name: str) -> None:
        nonlocal left
        left -= name == fatal
        if name == fatal and left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    with Redis.from_url(url, protocol=2) as client:
        Archiver(client, MAIN, Path(folder), Options(leave_ms=0, segment_rows=10), step).run()


main(*sys.argv[1:])
