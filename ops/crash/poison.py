"""An order id that no worker survives: installed by the launcher, in the step that carries its call."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping

from cancelq_worker.carrier import Carrier
from cancelq_worker.lane_parts import Call, Outcome

KINDS = ("exit", "raise", "recurse", "allocate")
MEMORY = 1_000_000_000  # bytes a worker that allocates may have


def install(poisons: Mapping[str, str]) -> None:
    """`poisons`: order id → one of `KINDS`."""
    carry = Carrier.carry

    async def carry_(self: Carrier, call: Call) -> Outcome:
        for work in call.batch.works:
            _act(poisons.get(work.record.get("order_id", ""), ""))
        return await carry(self, call)

    Carrier.carry = carry_  # type: ignore[method-assign]


def _act(kind: str) -> None:
    match kind:
        case "raise":
            raise ValueError("this order cannot be borne")
        case "exit":
            os._exit(3)
        case "recurse":
            _act(kind)
        case "allocate":
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            kept = []
            while True:
                kept.append(bytearray(50_000_000))
        case _:
            pass
