"""A database that is there and can't be used: read-only, out of disk, or just becoming another server.

As with one that is away, the worker waits and says why, holds no more than before, charges everything afterwards, and
stops when it is told to.
"""

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import psutil
import psycopg
import pytest

from db import session
from sandbox.postgres import PostgresServer
from sandbox.postgres_files import binaries, give, system_user
from sandbox.processes import ManagedProcess, await_condition
from tests.conftest import WorkerStarter
from tests.factories import a_customer, an_envelope, an_event, catalogues
from tests.looking import wallet
from tests.worker.conftest import copied
from tests.worker.support import (
    Broker,
    await_charged,
    charged,
    children,
    nothing_is_left,
    waits,
    waits_for_a_lock,
    wallets_locked,
)

pytestmark = pytest.mark.faults

#: What two children may have at hand, four messages each.
AT_HAND = 8
ENVELOPES = 40
PER_ENVELOPE = 50
DISK_BYTES = 320 * 1024 * 1024
#: What a worker's processes may take up more while they wait.
GROWTH_BYTES_MAX = 16 * 1024 * 1024


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the user whom the server runs as may pass through."""
    path = Path(tempfile.mkdtemp(prefix="centavo-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk that can be filled: a file system in memory, where we may mount one."""
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0711", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here; CAP_SYS_ADMIN is needed")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.fixture
def successors() -> list[PostgresServer]:
    """Servers that answer in the first one's place when the test ends: the audit will ask them."""
    return []


@pytest.fixture
def postgres(
    folder: Path, successors: list[PostgresServer], cluster_at_rest: Path, request: pytest.FixtureRequest
) -> Iterator[PostgresServer]:
    """A server of the test's own; on the small disk, if the test has one."""
    on = request.getfixturevalue("small_disk") if "small_disk" in request.fixturenames else folder
    data = copied(cluster_at_rest, on / "pg")
    server = PostgresServer(data, log_file=folder / "pg.log", settings={"max_wal_size": "64MB"})
    server.start()
    yield server
    for successor in successors:
        successor.destroy()
    server.destroy()


@pytest.fixture(autouse=True)
def ana(billing_database: str) -> None:
    """A customer with credit."""
    catalogues()
    a_customer("ana", credit="100")
    session.close()  # this process holds no connection that could break


def envelopes() -> list[bytes]:
    return [an_envelope(*[an_event("ana") for _ in range(PER_ENVELOPE)]) for _ in range(ENVELOPES)]


def says(worker: ManagedProcess, why: str) -> int:
    """How often a worker said that it waits, and why."""
    lines = worker.log_file.read_text().splitlines()
    return sum('"event": "waiting"' in line and why in line for line in lines)


def memory(worker: ManagedProcess) -> int:
    processes = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children()]
    return sum(process.memory_info().rss for process in processes)


def waits_within_bounds(worker: ManagedProcess, producer: Broker, why: str) -> None:
    """It waits, for this reason; then for a while longer, and holds no more than its share all that time."""
    await_condition(lambda: says(worker, why) >= 2, 30, f"the children to wait: {why}", log_file=worker.log_file)
    held, seen = memory(worker), waits(worker)
    await_condition(lambda: waits(worker) >= seen + 2, 30, "the children to go on waiting", log_file=worker.log_file)
    assert producer.unacknowledged <= AT_HAND
    assert producer.waiting >= ENVELOPES - AT_HAND
    assert memory(worker) - held < GROWTH_BYTES_MAX


def all_is_charged(producer: Broker, before: int) -> None:
    """Everything, once, and nothing parked on the way."""
    producer.await_drained()
    number = before + ENVELOPES * PER_ENVELOPE
    assert charged("ana") == number
    assert wallet("ana") == Decimal(100) - number * Decimal("0.03")
    assert nothing_is_left()


def let_write(postgres: PostgresServer, *, is_allowed: bool) -> None:
    """As an administrator, or a provider whose limit is reached, does it: for every session, open ones too."""
    with psycopg.connect(postgres.uri(), autocommit=True) as connection:
        connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {'off' if is_allowed else 'on'}".encode())
        connection.execute("SELECT pg_reload_conf()")

    def has_heard() -> bool:
        with psycopg.connect(postgres.uri()) as connection:
            return connection.execute("SHOW transaction_read_only").fetchone() == ("off" if is_allowed else "on",)

    await_condition(has_heard, 30, "the server to have read its settings")


def test_a_database_that_only_reads(start_a_worker: WorkerStarter, producer: Broker, postgres: PostgresServer) -> None:
    """Open sessions are refused their writes, new ones are no use; both are waited out."""
    worker = start_a_worker(children=2, CENTAVO_VISIBILITY_TIMEOUT_SECONDS="300")
    pool = children(worker)
    producer.send(an_envelope(*[an_event("ana") for _ in range(20)]))
    await_charged("ana", 20)

    let_write(postgres, is_allowed=False)
    producer.send(*envelopes())
    waits_within_bounds(worker, producer, "read-only")
    let_write(postgres, is_allowed=True)

    all_is_charged(producer, 20)
    assert children(worker) == pool


def test_it_stops_while_a_database_only_reads(
    start_a_worker: WorkerStarter, producer: Broker, postgres: PostgresServer
) -> None:
    """SIGTERM: within seconds, and every message is there for the next worker."""
    worker = start_a_worker(children=2, CENTAVO_VISIBILITY_TIMEOUT_SECONDS="300")
    let_write(postgres, is_allowed=False)
    producer.send(*envelopes())
    await_condition(lambda: says(worker, "read-only") >= 2, 30, "the children to wait", log_file=worker.log_file)

    worker.send_signal(signal.SIGTERM)
    exit_code = worker.wait(10)
    given_back = (producer.waiting, producer.unacknowledged)
    let_write(postgres, is_allowed=True)
    start_a_worker(name="second", children=2, CENTAVO_VISIBILITY_TIMEOUT_SECONDS="300")

    assert exit_code == 0
    assert given_back == (ENVELOPES, 0)
    all_is_charged(producer, 0)


def test_a_disk_that_is_full(
    start_a_worker: WorkerStarter, producer: Broker, small_disk: Path, postgres: PostgresServer
) -> None:
    """Nothing is parked for it; where the server itself gives up, for want of room for its log, that is waited out."""
    worker = start_a_worker(children=2, CENTAVO_VISIBILITY_TIMEOUT_SECONDS="300")
    producer.send(an_envelope(*[an_event("ana") for _ in range(20)]))
    await_charged("ana", 20)

    ballast = small_disk / "ballast"
    filled = subprocess.run(
        ["dd", "if=/dev/zero", f"of={ballast}", "bs=1M", "count=1024"], check=False, capture_output=True
    )
    assert b"No space left" in filled.stderr
    producer.send(*envelopes())
    waits_within_bounds(worker, producer, "No space left on device")
    ballast.unlink()
    postgres.start()  # in case it gave up

    all_is_charged(producer, 20)


def test_a_full_disk_of_which_only_the_server_speaks(
    start_a_worker: WorkerStarter, producer: Broker, billing_database: str
) -> None:
    """The same by its code alone, where no disk can be filled; and while events are inserted, not before."""
    refuse = """
        CREATE FUNCTION is_full() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE disk_full USING MESSAGE = 'could not extend file: No space left on device'; END $$;
        CREATE TRIGGER is_full BEFORE INSERT ON usage_events FOR EACH ROW EXECUTE FUNCTION is_full()
    """
    worker = start_a_worker(children=2, CENTAVO_VISIBILITY_TIMEOUT_SECONDS="300")
    with psycopg.connect(billing_database) as connection:
        connection.execute(refuse.encode())
    producer.send(*envelopes())
    waits_within_bounds(worker, producer, "No space left on device")
    with psycopg.connect(billing_database) as connection:
        connection.execute("DROP FUNCTION is_full CASCADE")

    all_is_charged(producer, 0)


@pytest.fixture
def standby(folder: Path, postgres: PostgresServer, successors: list[PostgresServer]) -> PostgresServer:
    """A copy of the server that follows it; nothing is committed there that the copy does not have."""
    user = system_user()
    data = folder / "pg2"
    data.mkdir(mode=0o700)
    give(data, user)
    backup = [str(binaries(user) / "pg_basebackup"), "--dbname", postgres.uri(), "--pgdata", str(data / "cluster")]
    subprocess.run(
        [*backup, "--write-recovery-conf", "--checkpoint=fast", "--no-sync"],
        check=True,
        cwd="/",
        user=user,
        capture_output=True,
    )
    server = PostgresServer(data, log_file=folder / "pg2.log")
    successors.append(server)
    server.start()
    with psycopg.connect(postgres.uri(), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        connection.execute("SELECT pg_reload_conf()")
        follows = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
        await_condition(lambda: connection.execute(follows).fetchone() == (1,), 30, "the copy to follow")
    return server


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_failing_over_to_the_other_server(
    start_a_worker: WorkerStarter,
    producer: Broker,
    postgres: PostgresServer,
    standby: PostgresServer,
    billing_database: str,
    mode: str,
) -> None:
    """In the middle of transactions the first is stopped, or dies; at its address the copy answers, and only reads.

    Then it is promoted. What was committed is there, and what comes again is known.
    """
    worker = start_a_worker(children=2, CENTAVO_VISIBILITY_TIMEOUT_SECONDS="300")
    pool = children(worker)
    producer.send(an_envelope(*[an_event("ana") for _ in range(20)]))
    await_charged("ana", 20)

    with wallets_locked(billing_database):
        producer.send(*envelopes())
        await_condition(lambda: waits_for_a_lock(billing_database), 30, "a transaction to be in the middle")
        postgres.stop("fast" if mode == "fast" else "immediate")
    standby.stop("fast")
    standby.take_address_of(postgres)
    standby.start()
    waits_within_bounds(worker, producer, "session is read-only")
    with psycopg.connect(standby.uri(), autocommit=True) as connection:
        assert connection.execute("SELECT pg_promote()").fetchone() == (True,)
        connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
        connection.execute("SELECT pg_reload_conf()")

    all_is_charged(producer, 20)
    assert children(worker) == pool
