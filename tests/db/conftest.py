"""One database for the tests that leave no trace in it."""

from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest

from sandbox.postgres import PostgresServer
from tests.conftest import TEMPLATE


@pytest.fixture(scope="module")
def shared_database(postgres: PostgresServer) -> Iterator[str]:
    """A migrated database for all tests of a module: each of them rolls back."""
    name = f"shared_{uuid4().hex}"
    postgres.create_database(name, template=TEMPLATE)
    yield postgres.uri(name)
    postgres.drop_database(name)


@pytest.fixture
def connection(shared_database: str) -> Iterator[psycopg.Connection]:
    """A transaction on the shared database that is rolled back with the test."""
    with psycopg.connect(shared_database) as connection:
        yield connection
        connection.rollback()


@pytest.fixture
def empty_database(postgres: PostgresServer) -> Iterator[str]:
    """A database in which nothing is yet."""
    name = f"empty_{uuid4().hex}"
    postgres.create_database(name)
    yield postgres.uri(name)
    postgres.drop_database(name)
