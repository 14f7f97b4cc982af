"""The desk's producer: plays a plan through the `submit` of one peer's module, named by the argument."""

from __future__ import annotations

import asyncio
import importlib
import sys

from peers.desk.plan import play, read_plan, starting

TEND_S = 1.0


async def main(peer: str) -> None:
    module = importlib.import_module(f"peers.desk.{peer}")
    steps = read_plan()
    print("ready", flush=True)
    await play(steps, module.submit, await starting())
    # What a desk's producer does between its cancels, where the peer's batcher needs it; ended by the bench.
    while tend := getattr(module, "tend", None):
        await asyncio.sleep(TEND_S)
        await tend()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
