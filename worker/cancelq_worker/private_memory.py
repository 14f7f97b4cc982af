"""Keeps what is in this process' memory, keys among it, from being written to disk or read by its user's other
processes."""

from __future__ import annotations

import ctypes
import resource
import sys
from typing import Final

_PR_SET_DUMPABLE: Final = 4  # linux/prctl.h


def keep_memory_private() -> None:
    """No core file, whatever ends the process. On Linux also: no debugger but root's, and `/proc/PID/environ` and `mem`
    are root's alone. Lasts until the process executes another program."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
