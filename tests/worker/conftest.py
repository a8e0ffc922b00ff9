"""Fixtures of tests that watch running workers."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from config.settings import SANDBOX_STRIPE_KEY, settings
from db import session
from sandbox.postgres import PostgresServer
from sandbox.processes import ManagedProcess
from sandbox.stack import Addresses, is_ready, start_worker
from sandbox.valkey import ValkeyServer
from services import accounts, catalogue
from services.audit import audit
from tests.conftest import TEMPLATE, WorkerStarter
from tests.factories import catalogues
from tests.worker.support import Broker


@dataclass(frozen=True, slots=True)
class Station:
    """A worker with one child that runs through all tests of a module, and its broker."""

    worker: ManagedProcess
    broker: Broker


@pytest.fixture(scope="module")
def station(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    """One worker on a database and a broker of the module's own; at the end it has lived, and the audit holds."""
    folder = tmp_path_factory.mktemp("station")
    name = f"station_{os.getpid()}"
    postgres.create_database(name, template=TEMPLATE)
    with ValkeyServer(folder / "valkey") as valkey, pytest.MonkeyPatch.context() as environment:
        addresses = Addresses(postgres.uri(name), valkey.url, "http://127.0.0.1:9")
        said = addresses.as_environment(folder / "home", CENTAVO_STRIPE_SECRET_KEY=SANDBOX_STRIPE_KEY)
        for variable in (variable for variable in said if variable.startswith("CENTAVO_")):
            environment.setenv(variable, said[variable])
        _forget()
        catalogues()
        worker = start_worker("station", "usage", 1, said, folder)
        worker.wait_ready(lambda: is_ready(worker), 30)
        at_broker = Broker(valkey.url)
        yield Station(worker, at_broker)
        at_broker.close()
        has_lived = worker.alive
        worker.stop()
        result = audit()
        _forget()
    postgres.drop_database(name)
    assert has_lived
    assert result.shown == []


@pytest.fixture
def start_a_worker(start_a_worker: WorkerStarter) -> Iterator[WorkerStarter]:
    """The same, and each is killed at the end of the test: a warm shutdown takes Celery two seconds and more."""
    started: list[ManagedProcess] = []

    def start(**options: Any) -> ManagedProcess:
        started.append(start_a_worker(**options))
        return started[-1]

    yield start
    for worker in started:
        worker.kill()


@pytest.fixture
def producer(broker: str) -> Iterator[Broker]:
    """The broker of a test, as producers see it."""
    at_broker = Broker(broker)
    yield at_broker
    at_broker.close()


def _forget() -> None:
    session.close()
    settings.cache_clear()
    catalogue.forget()
    accounts.forget_all()
