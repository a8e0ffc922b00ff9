"""Whatever happens to the program that started the stack, no process of the stack outlives it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from sandbox.postgres import PostgresServer
from sandbox.process_tree import ProcessIdentity
from sandbox.processes import await_condition


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_when_the_parent_dies_the_whole_tree_dies_within_seconds(short_dir: Path, end: signal.Signals) -> None:
    program = Path(__file__).with_name("whole_tree.py")
    with subprocess.Popen([sys.executable, program, short_dir], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        report = json.loads(parent.stdout.readline())
        tree = [ProcessIdentity(pid, began_at) for pid, began_at in report["tree"]]
        assert all(process.alive for process in tree)
        assert len(tree) >= 3 + 2 + 4  # three servers, two pool children, and PostgreSQL's own

        parent.send_signal(end)
        parent.wait()

        try:
            await_condition(lambda: not any(process.alive for process in tree), 30, "the tree to end")
        finally:
            os.kill(report["bystander"], signal.SIGKILL)  # a fork of the parent, not a process of the stack
            for process in tree:
                process.end(signal.SIGKILL)  # what a failure would leave behind
    with PostgresServer(short_dir / "pg") as again, psycopg.connect(again.uri()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
