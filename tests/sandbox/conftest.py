"""Fixtures of the sandbox's own tests: each test boots its own servers, which takes a third of a second."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.postgres import PostgresServer
from sandbox.valkey import ValkeyServer


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A folder with a short path that every user may pass through, unlike pytest's own under root."""
    path = Path(tempfile.mkdtemp(prefix="centavo-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def postgres(short_dir: Path) -> Iterator[PostgresServer]:
    """A running server of the test's own."""
    server = PostgresServer(short_dir / "pg")
    server.start()
    yield server
    server.destroy()


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A running server of the test's own."""
    with ValkeyServer(tmp_path / "valkey") as server:
        yield server
