"""The whole of Centavo on one machine: Postgres, Valkey, the Stripe double, workers and beat."""

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from config.settings import SANDBOX_STRIPE_KEY, process_environment
from db.migrate import migrate
from sandbox.home import SandboxHome, StackState
from sandbox.postgres import PostgresServer
from sandbox.processes import ManagedProcess
from sandbox.stripe_double import launch
from sandbox.valkey import ValkeyServer

ROOT = Path(__file__).resolve().parent.parent
READY_SECONDS_MAX = 60
#: A worker that has nothing to wait for ends within this; what it had not finished comes back.
STOP_SECONDS_MAX = 20

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the servers of a stack are."""

    database_url: str
    broker_url: str
    stripe_api_base: str

    def as_settings(self, home: Path) -> dict[str, object]:
        """The settings of a process that is to use this stack."""
        return {
            "environment": "sandbox",
            "home": home,
            "database_url": self.database_url,
            "broker_url": self.broker_url,
            "stripe_api_base": self.stripe_api_base,
            "stripe_secret_key": SANDBOX_STRIPE_KEY,
            "health_dir": home,
        }

    def as_environment(self, home: Path, **more: str) -> dict[str, str]:
        """The environment of a process that is to use this stack."""
        said = {f"CENTAVO_{name.upper()}": str(value) for name, value in self.as_settings(home).items()}
        return process_environment() | said | more


@dataclass(slots=True)
class Stack:
    """A stack that runs: its servers, and the workers on top of them."""

    home: SandboxHome
    postgres: PostgresServer
    valkey: ValkeyServer
    double: ManagedProcess
    addresses: Addresses
    workers: list[ManagedProcess] = field(default_factory=list)

    @property
    def processes(self) -> dict[str, ManagedProcess]:
        servers = {"postgres": self.postgres.process, "valkey": self.valkey.process, "stripe-double": self.double}
        return servers | {worker.name: worker for worker in self.workers}

    def start_workers(self, usage_children: int = 2, **environment: str) -> None:
        """Start a worker for usage, one for payments, and beat; returns when all are ready."""
        env = self.addresses.as_environment(self.home.path, **environment)
        queues = {"usage-worker": ("usage", usage_children), "payments-worker": ("payments,ticks", 1)}
        for name, (queue, children) in queues.items():
            self.workers.append(start_worker(name, queue, children, env, self.home.path))
        self.workers.append(start_beat(env, self.home.path))
        for worker in self.workers:
            worker.wait_ready(lambda worker=worker: is_ready(worker), READY_SECONDS_MAX)  # type: ignore[misc]

    def stop_workers(self) -> None:
        """End beat and the workers, warmly."""
        while self.workers:
            self.workers.pop().stop(grace_seconds=STOP_SECONDS_MAX)

    def leave_running(self) -> None:
        """Leave everything up when this process ends, and note in the home where it is."""
        self.postgres.leave_running()
        self.valkey.leave_running()
        for process in (self.double, *self.workers):
            process.leave_running()


@contextmanager
def running_stack(
    home: SandboxHome, on_progress: Progress = lambda _: None, *, is_fresh: bool = False
) -> Iterator[Stack]:
    """Boot the servers in a home of their own and migrate; everything ends with the context.

    `is_fresh` forgets what an earlier stack left in the home.
    """
    with ExitStack() as stack, home.lock():
        if is_fresh:
            _forget_data(home)
        on_progress("PostgreSQL")
        postgres = stack.enter_context(PostgresServer(home.path / "postgres"))
        on_progress("Valkey")
        valkey = stack.enter_context(ValkeyServer(home.path / "valkey"))
        on_progress("the Stripe double")
        double, api_base = start_double(home.path)
        stack.callback(double.stop)
        addresses = Addresses(postgres.uri("postgres"), valkey.url, api_base)
        on_progress("the schema")
        migrate(addresses.database_url)
        running = Stack(home, postgres, valkey, double, addresses)
        stack.callback(running.stop_workers)
        yield running


def _forget_data(home: SandboxHome) -> None:
    PostgresServer(home.path / "postgres").destroy()
    shutil.rmtree(home.path / "valkey", ignore_errors=True)
    for log in home.path.glob("*.log"):
        log.unlink()


def note(stack: Stack) -> None:
    """Write down where the stack is, for other commands."""
    processes = {name: process.identity for name, process in stack.processes.items()}
    addresses = stack.addresses
    stack.home.write(
        StackState(
            addresses.database_url, addresses.broker_url, addresses.stripe_api_base, datetime.now(UTC), processes
        )
    )


def start_double(home: Path) -> tuple[ManagedProcess, str]:
    """Start the Stripe double as a process of its own; it and its address."""
    ready = home / "stripe-double.url"
    ready.unlink(missing_ok=True)
    home.mkdir(parents=True, exist_ok=True)
    process = ManagedProcess.start("stripe-double", launch.command(ready), home / "stripe-double.log", cwd=ROOT)
    process.wait_ready(lambda: ready.exists() and ready.read_text() != "", READY_SECONDS_MAX)
    return process, ready.read_text().strip()


def start_worker(name: str, queues: str, children: int, env: Mapping[str, str], logs: Path) -> ManagedProcess:
    """Start a Celery worker on queues, with so many pool children."""
    command = [sys.executable, "-m", "cli", "worker", "--queues", queues, "--children", str(children), "--name", name]
    return ManagedProcess.start(name, command, logs / f"{name}.log", env=env, cwd=ROOT)


def start_beat(env: Mapping[str, str], logs: Path) -> ManagedProcess:
    """Start beat."""
    return ManagedProcess.start("beat", [sys.executable, "-m", "cli", "beat"], logs / "beat.log", env=env, cwd=ROOT)


def is_ready(process: ManagedProcess) -> bool:
    """Whether a worker or beat has said that it works."""
    said = process.log_tail(200)
    return " ready." in said or "beat: Starting..." in said
