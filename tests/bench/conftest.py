"""One Postgres and one Valkey per test process; each test finds the broker empty and makes its own schema."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from redis import Redis

from sandbox.postgres import PostgresServer
from sandbox.valkey import ValkeyServer


@pytest.fixture(scope="session")
def bench_dir() -> Iterator[Path]:
    """A short path, as a socket needs, that every user may pass through, as a server started by root needs."""
    path = Path(tempfile.mkdtemp(prefix="centavo-bench-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def database_url(bench_dir: Path) -> Iterator[str]:
    server = PostgresServer(bench_dir / "pg")
    server.start()
    yield server.uri()
    server.destroy()


@pytest.fixture(scope="session")
def valkey_url(bench_dir: Path) -> Iterator[str]:
    with ValkeyServer(bench_dir / "valkey") as server:
        yield server.url


@pytest.fixture
def broker_url(valkey_url: str) -> str:
    with Redis.from_url(valkey_url) as client:
        client.flushall()
    return valkey_url


@pytest.fixture
def database(database_url: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A connection that sees each statement's latest rows."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection
