"""The simulated venues: a desk rehearses on them, and the tests hold cancelq against them.

They read the venues' documents on their own and share no code with the worker's adapters, so that a
misreading on one side shows as a disagreement.
"""

from cancelq_worker.simulator.app import RunningSimulator, run, serve
from cancelq_worker.simulator.clock import Clock, ManualClock, SystemClock
from cancelq_worker.simulator.core import Entry, Request
from cancelq_worker.simulator.faults import Delivery, Fault, Reply
from cancelq_worker.simulator.orders import Account, Kind, State
from cancelq_worker.simulator.settings import Settings
from cancelq_worker.simulator.simulator import Simulator

__all__ = [
    "Account",
    "Clock",
    "Delivery",
    "Entry",
    "Fault",
    "Kind",
    "ManualClock",
    "Reply",
    "Request",
    "RunningSimulator",
    "Settings",
    "Simulator",
    "State",
    "SystemClock",
    "run",
    "serve",
]
