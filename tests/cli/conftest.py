"""The command line as its users have it: a process of its own, told by variables where everything is."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sandbox.postgres import PostgresServer
from sandbox.stack import ROOT
from tests.factories import a_customer, catalogues

SECONDS_MAX = 60


class Ended(NamedTuple):
    """How a command ended: its exit status, and what it printed on either stream."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Ended]


def environment(**told: str) -> dict[str, str]:
    """The environment of a command: ours, 80 columns, and what the test tells."""
    return {**os.environ, "COLUMNS": "80", **told}


def started(*arguments: str, **told: str) -> subprocess.Popen[bytes]:
    """Begin a command; `ended` waits for it."""
    return subprocess.Popen(
        [sys.executable, "-m", "cli", *arguments],
        cwd=ROOT,
        env=environment(**told),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def ended(process: subprocess.Popen[bytes], typed: bytes = b"") -> Ended:
    """What became of a command that was begun."""
    out, err = process.communicate(typed, timeout=SECONDS_MAX)
    return Ended(process.returncode, out.decode(), err.decode())


def run(*arguments: str, typed: bytes = b"", **told: str) -> Ended:
    """A command in a process of its own, to its end."""
    with started(*arguments, **told) as process:
        return ended(process, typed)


@pytest.fixture(scope="session")
def forking() -> Iterator[subprocess.Popen[str]]:
    """A process that runs commands for us: see `tests.cli.forking`."""
    command = [sys.executable, "-m", "tests.cli.forking"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def forked(forking: subprocess.Popen[str]) -> Command:
    """`forked("parked", "list")` runs `centavo parked list` in the environment that the test has by then."""

    def run_forked(*arguments: str, typed: bytes = b"", **told: str) -> Ended:
        assert forking.stdin is not None
        assert forking.stdout is not None
        asked = {"arguments": arguments, "environment": environment(**told), "typed": typed.hex()}
        forking.stdin.write(json.dumps(asked) + "\n")
        forking.stdin.flush()
        return Ended(**json.loads(forking.stdout.readline()))

    return run_forked


@pytest.fixture
def centavo(forked: Command, billing_database: str) -> Command:
    """Commands on the test's own database, broker and Stripe double; the audit holds at the end."""
    return forked


@pytest.fixture
def nowhere(forked: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Commands that are told nothing: no variables, no sandbox."""
    for name in list(os.environ):
        if name.startswith("CENTAVO_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CENTAVO_HOME", str(tmp_path / "no-sandbox"))
    return forked


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A folder with a short path that every user may pass through, unlike pytest's own under root."""
    path = Path(tempfile.mkdtemp(prefix="centavo-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def ana(billing_database: str) -> str:
    """A prepaid customer with USD 10, and the shipped catalogues."""
    catalogues()
    return a_customer("ana", credit="10")


@pytest.fixture
def empty_database(postgres: PostgresServer, request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a database with nothing in it."""
    name = f"empty_{abs(hash(request.node.nodeid)):x}"
    postgres.create_database(name)
    yield postgres.uri(name)
    postgres.drop_database(name)
