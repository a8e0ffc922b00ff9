"""Fixtures of tests that watch running workers."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from config.settings import SANDBOX_STRIPE_KEY, settings
from db import session
from db.migrate import migrate
from sandbox.postgres import PostgresServer
from sandbox.postgres_files import give, system_user
from sandbox.processes import ManagedProcess
from sandbox.rabbitmq import RabbitMQServer
from sandbox.stack import Addresses, is_ready, start_worker
from sandbox.valkey import ValkeyServer
from services.books import accounts, catalogue
from services.oversight.audit import audit
from tests import looking
from tests.conftest import TEMPLATE, emptied
from tests.factories import catalogues
from tests.worker.support import AtRabbitMQ, AtValkey, Broker


@dataclass(frozen=True, slots=True)
class Station:
    """A worker with one child that runs through all tests of a module, and its broker."""

    worker: ManagedProcess
    broker: Broker

    @property
    def valkey(self) -> AtValkey:
        """Its broker, of a test that runs on Valkey alone."""
        assert isinstance(self.broker, AtValkey)
        return self.broker


@pytest.fixture(scope="session")
def cluster_at_rest(server_folder: Path) -> Iterator[Path]:
    """What a server leaves that has a migrated template and was stopped: servers of a test's own begin with a copy."""
    server = PostgresServer(server_folder / "at-rest")
    server.start()
    server.create_database(TEMPLATE)
    migrate(server.uri(TEMPLATE))
    server.stop()
    yield server.data_dir / "cluster"
    server.destroy()


def copied(cluster: Path, data_dir: Path) -> Path:
    """A data directory for a server of a test's own."""
    data_dir.mkdir(mode=0o700)
    give(data_dir, system_user())
    subprocess.run(["cp", "-a", cluster, data_dir / "cluster"], check=True)
    return data_dir


@contextmanager
def a_broker(kind: str, folder: Path, request: pytest.FixtureRequest) -> Iterator[Broker]:
    """A Valkey of its own, or this test worker's RabbitMQ, which takes long to start."""
    if kind == "rabbitmq":
        server = request.getfixturevalue("rabbitmq")
        emptied(server)
        yield AtRabbitMQ(server)
        return
    with ValkeyServer(folder / "valkey") as valkey:
        at_broker = AtValkey(valkey)
        yield at_broker
        at_broker.close()


@pytest.fixture(scope="module", params=["valkey", "rabbitmq"])
def station(
    postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Station]:
    """One worker on a database of the module's own and a broker; at the end it has lived, and the audit holds."""
    folder = tmp_path_factory.mktemp("station")
    name = f"station_{os.getpid()}"
    postgres.create_database(name, template=TEMPLATE)
    with a_broker(request.param, folder, request) as at_broker, pytest.MonkeyPatch.context() as environment:
        addresses = Addresses(postgres.uri(name), at_broker.url, "http://127.0.0.1:9")
        said = addresses.as_environment(folder / "home", CENTAVO_STRIPE_SECRET_KEY=SANDBOX_STRIPE_KEY)
        for variable in (variable for variable in said if variable.startswith("CENTAVO_")):
            environment.setenv(variable, said[variable])
        _forget()
        catalogues()
        worker = start_worker("station", "usage", 1, said, folder)
        worker.wait_ready(lambda: is_ready(worker), 30)
        yield Station(worker, at_broker)
        has_lived = worker.alive
        worker.stop()
        result = audit()
        _forget()
    postgres.drop_database(name)
    assert has_lived
    assert result.shown == []


@pytest.fixture
def producer(broker_server: ValkeyServer | RabbitMQServer) -> Iterator[Broker]:
    """The broker of a test, as producers see it."""
    at_broker: Broker = (
        AtRabbitMQ(broker_server) if isinstance(broker_server, RabbitMQServer) else AtValkey(broker_server)
    )
    yield at_broker
    at_broker.close()


def _forget() -> None:
    looking.forget()
    session.close()
    settings.cache_clear()
    catalogue.forget()
    accounts.forget_all()
