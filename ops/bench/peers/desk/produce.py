"""The desk's producer: plays a plan through the `submit` of one peer's module, named by the argument."""

from __future__ import annotations

import asyncio
import importlib
import sys

from peers.desk.plan import play, read_plan, starting


async def main(peer: str) -> None:
    module = importlib.import_module(f"peers.desk.{peer}")
    steps = read_plan()
    print("ready", flush=True)
    await play(steps, module.submit, await starting())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
