"""`cancelq worker` made to say all it can: logs at DEBUG, asyncio's own complaints, where all threads are on a signal,
and errors out of functions that have keys in their local variables."""

from __future__ import annotations

import faulthandler
import itertools
import logging
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from cancelq_worker import logs
from cancelq_worker.cli import main
from cancelq_worker.venues.bingx import adapter as bingx
from cancelq_worker.venues.bitget import adapter as bitget
from cancelq_worker.venues.bybit import adapter as bybit

EVERY = 23  # calls that are signed, until one fails


def _failing(sign: Callable[..., Any]) -> Callable[..., Any]:
    """`sign`, failing now and then, with all that it was given and made still in its frame."""
    turn = itertools.count(1)

    def failing(*given: Any, **more: Any) -> Any:
        signed = sign(*given, **more)
        if next(turn) % EVERY == 0:
            raise RuntimeError("this call cannot be signed just now")
        return signed

    return failing


if __name__ == "__main__":
    faulthandler.enable(all_threads=True)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    logs.configure = partial(logs.configure, level=logging.DEBUG)
    for venue in (bitget.Bitget, bybit.Bybit, bingx.Bingx):
        venue.sign = _failing(venue.sign)  # type: ignore[method-assign]
    sys.argv[1:] = ["worker"]
    main()
