"""Real servers for every test: one Postgres and one Valkey a test worker, a fresh database a test.

Tests marked with `both_brokers` run on RabbitMQ as well, where there is one.

Whoever uses `billing_database` ends with the audit: every test of money proves that nothing was lost on the way.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from datetime import timedelta
from pathlib import Path

import kombu
import pytest
import redis
from pydantic import SecretStr

from config import clock
from config.settings import SANDBOX_STRIPE_KEY, Settings, settings
from db import session
from db.migrate import migrate
from sandbox.postgres import PostgresServer
from sandbox.processes import ManagedProcess
from sandbox.rabbitmq import RabbitMQServer, rabbitmq_missing
from sandbox.stack import Addresses, is_ready, start_worker
from sandbox.stripe_double.app import StripeDouble
from sandbox.stripe_double.server import served
from sandbox.valkey import ValkeyServer
from services.books import accounts, catalogue
from services.collecting import gateways
from services.oversight.audit import audit
from tasks import queues
from tests import looking
from tests.turning import until_turned

TEMPLATE = "centavo_template"

#: A commit survives whatever process is killed, as ever; only the machine must not fail. Tests of durability have
#: servers of their own, with the settings that a sandbox has.
OF_A_TEST_SERVER: Mapping[str, str] = {
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "256MB",
}
MEMORY = Path("/dev/shm")
MEMORY_BYTES_MIN = 2 * 2**30


#: Rooms and modules whose tests start whole stacks, and take many seconds each.
LONG = ("tests/demo/", "tests/chaos/", "tests/worker/", "tests/cli/test_up.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules that take long first: begun last, one would keep a test worker busy while the others have nothing left.

    Otherwise the order stays as random as it was.
    """
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """No test begins where a month ends; the wait is no part of the time that a test has."""
    while (left := until_turned(clock.unmoved())) > timedelta():
        time.sleep(left.total_seconds())
    return (yield)


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """A folder for servers' data, in memory where there is enough, that every user may pass through."""
    in_memory = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= MEMORY_BYTES_MIN
    folder = Path(tempfile.mkdtemp(prefix="centavo-test-", dir=MEMORY if in_memory else None))
    folder.chmod(0o711)  # under root, PostgreSQL runs as a user of its own
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres(server_folder: Path) -> Iterator[PostgresServer]:
    """A Postgres for this test worker, with a migrated database to copy from."""
    server = PostgresServer(server_folder / "postgres", settings=OF_A_TEST_SERVER)
    server.start()
    server.create_database(TEMPLATE)
    migrate(server.uri(TEMPLATE))
    yield server
    server.destroy()


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """A Valkey for this test worker."""
    with ValkeyServer(tmp_path_factory.mktemp("valkey") / "data") as server:
        yield server


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQServer]:
    """A RabbitMQ for this test worker, if one can be started here."""
    if why := rabbitmq_missing():
        pytest.skip(why)
    with RabbitMQServer(tmp_path_factory.mktemp("rabbitmq") / "data") as server:
        yield server


@pytest.fixture
def broker_kind() -> str:
    """On what a test runs, unless it says so: `both_brokers`."""
    return "valkey"


both_brokers = pytest.mark.parametrize("broker_kind", ["valkey", "rabbitmq"])


@pytest.fixture
def database(postgres: PostgresServer, request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a fresh, migrated database."""
    name = f"test_{abs(hash(request.node.nodeid)):x}"
    is_in_memory = postgres.data_dir.is_relative_to(MEMORY)
    postgres.create_database(name, TEMPLATE, "FILE_COPY" if is_in_memory else "WAL_LOG")
    yield postgres.uri(name)
    postgres.drop_database(name)


@pytest.fixture
def broker_server(broker_kind: str, request: pytest.FixtureRequest) -> ValkeyServer | RabbitMQServer:
    """The server that is the test's broker, empty."""
    server: ValkeyServer | RabbitMQServer = request.getfixturevalue(broker_kind)
    if isinstance(server, RabbitMQServer):
        emptied(server)
    else:
        with redis.Redis.from_url(server.url) as client:
            client.flushall()
    return server


def emptied(server: RabbitMQServer) -> None:
    """Delete and declare the queues, as a worker declares them: producers never do."""
    chosen = Settings(broker_url=SecretStr(server.url))
    with kombu.Connection(server.url) as connection:
        for queue in queues.names(chosen):
            connection.default_channel.queue_delete(queue)
            queues.declared(queue, chosen)(connection.default_channel).declare()


@pytest.fixture
def broker(broker_server: ValkeyServer | RabbitMQServer) -> str:
    """The address of an empty broker."""
    return broker_server.url


@pytest.fixture
def stripe_double() -> Iterator[str]:
    """The address of a Stripe double that has seen nothing yet."""
    with served(StripeDouble()) as base_url:
        yield base_url


@pytest.fixture
def fault_dir(tmp_path: Path) -> Path:
    """Where a test arms faults."""
    folder = tmp_path / "faults"
    folder.mkdir()
    return folder


@pytest.fixture
def billing_database(
    database: str, broker: str, stripe_double: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[str]:
    """This process, set up to use the fresh database, broker and double; the audit holds at the end."""
    for name, value in {
        "DATABASE_URL": database,
        "BROKER_URL": broker,
        "STRIPE_API_BASE": stripe_double,
        "STRIPE_SECRET_KEY": SANDBOX_STRIPE_KEY,
        "ENVIRONMENT": "sandbox",
        "HOME": str(tmp_path / "home"),
    }.items():
        monkeypatch.setenv(f"CENTAVO_{name}", value)
    forget()
    yield database
    result = audit()
    forget()
    assert result.shown == []


def forget() -> None:
    looking.forget()
    session.close()
    settings.cache_clear()
    gateways.gateway.cache_clear()
    catalogue.forget()
    accounts.forget_all()


WorkerStarter = Callable[..., ManagedProcess]


@pytest.fixture
def start_a_worker(
    billing_database: str, broker: str, stripe_double: str, tmp_path: Path, fault_dir: Path
) -> Iterator[WorkerStarter]:
    """Start real Celery workers on the test's database and broker; all are killed with the test.

    A warm shutdown, which takes Celery two seconds and more, is for those that test it.
    `start_a_worker(queues="usage", children=1, name="worker", **environment)` returns when it is ready.
    """
    addresses = Addresses(billing_database, broker, stripe_double)
    started: list[ManagedProcess] = []

    def start(
        *, queues: str = "usage,payments,ticks", children: int = 1, name: str = "worker", **environment: str
    ) -> ManagedProcess:
        more = {"CENTAVO_FAULT_DIR": str(fault_dir), "CENTAVO_VISIBILITY_TIMEOUT_SECONDS": "3", **environment}
        env = addresses.as_environment(tmp_path / "home", **more)
        worker = start_worker(name, queues, children, env, tmp_path)
        started.append(worker)
        worker.wait_ready(lambda: is_ready(worker), 30)
        return worker

    yield start
    for worker in started:
        worker.kill()
