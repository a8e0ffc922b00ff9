"""The demo as its users have it: a process of its own, in a home of its own."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.stack import ROOT
from sandbox.trace import HEADER

DEMO_SECONDS_MAX = 120
HOUR = "2023-11-16 18"


def demo_environment(home: Path) -> dict[str, str]:
    """Nothing but a home: what else a person may have set is not for the demo's tests."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("CENTAVO_")}
    return {**ours, "CENTAVO_HOME": str(home), "COLUMNS": "80"}


def start_demo(home: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a demo in a process group of its own, as a shell would."""
    return subprocess.Popen(
        [sys.executable, "-m", "cli", "demo", *arguments],
        cwd=ROOT,
        env=demo_environment(home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run_demo(home: Path, *arguments: str) -> tuple[int, str]:
    """A demo to its end: its exit status, and what it said."""
    with start_demo(home, *arguments) as process:
        said, _ = process.communicate(timeout=DEMO_SECONDS_MAX)
    return process.returncode, said


def write_trace(path: Path, *tokens: tuple[int, int]) -> Path:
    """A trace with a request each second: tokens in, and tokens out."""
    rows = [
        f"{HOUR}:17:{second:02}.9799600,{context},{generated}" for second, (context, generated) in enumerate(tokens)
    ]
    path.write_text("\n".join([",".join(HEADER), *rows]) + "\n")
    return path


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A folder with a short path that every user may pass through, unlike pytest's own under root."""
    path = Path(tempfile.mkdtemp(prefix="centavo-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)
