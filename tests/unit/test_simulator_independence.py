"""The simulator reads the venues' documents for itself: it shares no code with the adapters it is a check on."""

import ast
from pathlib import Path

from cancelq_worker import simulator

OURS = ("cancelq", "cancelq_worker")


def test_the_simulator_imports_nothing_of_the_worker() -> None:
    folder = Path(simulator.__file__).parent
    imported = set()
    for file in folder.glob("**/*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                imported.add(node.module or "")
            elif isinstance(node, ast.Import):
                imported.update(alias.name for alias in node.names)
    ours = {name for name in imported if name.partition(".")[0] in OURS}
    assert ours
    assert {name for name in ours if not name.startswith("cancelq_worker.simulator")} == set()
