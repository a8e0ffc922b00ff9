"""The whole of Centavo on one machine: Postgres, Valkey, the Stripe double, workers and beat."""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from config import clock
from config.settings import CLOCK_FILE, SANDBOX_STRIPE_KEY, process_environment
from db.migrate import migrate
from sandbox.clocks import move_double
from sandbox.home import SandboxHome, StackState
from sandbox.postgres import PostgresServer
from sandbox.process_tree import ProcessIdentity
from sandbox.processes import ManagedProcess
from sandbox.stripe_double import launch
from sandbox.valkey import ValkeyServer

ROOT = Path(__file__).resolve().parent.parent
READY_SECONDS_MAX = 60
#: A worker that has nothing to wait for ends within this; what it had not finished comes back.
STOP_SECONDS_MAX = 20

#: Whoever moves the clock of a sandbox looks on: the month is to turn while they do.
MONTH_SECONDS = 1.0

#: The name of the process that runs a stack in the foreground, among those of its stack.
RUNNER = "centavo up"
_END_SECONDS_MAX = 2 * STOP_SECONDS_MAX
#: PostgreSQL takes SIGTERM for "when the last client has gone".
_END_SIGNALS = {"postgres": signal.SIGINT}
_DURABLE: Mapping[bool, Mapping[str, str]] = {True: {}, False: {"synchronous_commit": "off"}}

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
            "clock_file": home / CLOCK_FILE,
            "database_url": self.database_url,
            "broker_url": self.broker_url,
            "stripe_api_base": self.stripe_api_base,
            "stripe_secret_key": SANDBOX_STRIPE_KEY,
            "health_dir": home,
            "month_seconds": MONTH_SECONDS,
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
    is_left_running: bool = False

    @property
    def processes(self) -> dict[str, ManagedProcess]:
        servers = {"postgres": self.postgres.process, "valkey": self.valkey.process, "stripe-double": self.double}
        return servers | {worker.name: worker for worker in self.workers}

    def start_workers(
        self, usage_children: int = 2, payments_children: int = 1, *, with_beat: bool = True, **environment: str
    ) -> None:
        """Start a worker for usage, one for payments, and beat; returns when all are ready.

        Without beat, whoever runs the stack says the ticks.
        """
        env = self.addresses.as_environment(self.home.path, **environment)
        queues = {"usage-worker": ("usage", usage_children), "payments-worker": ("payments,ticks", payments_children)}
        for name, (queue, children) in queues.items():
            self.workers.append(start_worker(name, queue, children, env, self.home.path))
        if with_beat:
            self.workers.append(start_beat(env, self.home.path))
        for worker in self.workers:
            worker.wait_ready(lambda worker=worker: is_ready(worker), READY_SECONDS_MAX)  # type: ignore[misc]

    def ended(self) -> ManagedProcess | None:
        """A process of the stack that has ended although nobody asked it to, if any."""
        return next((process for process in self.processes.values() if not process.alive), None)

    def stop_workers(self) -> None:
        """End beat and the workers, warmly."""
        for worker in self.workers:
            worker.send_signal(signal.SIGTERM)  # to all at once: each may take a while
        while self.workers:
            worker = self.workers.pop()
            worker.ended_within(STOP_SECONDS_MAX)
            worker.kill()

    def leave_running(self) -> None:
        """Leave everything up when this process ends, and note in the home where it is."""
        self.note()
        self.postgres.leave_running()
        self.valkey.leave_running()
        for process in (self.double, *self.workers):
            process.leave_running()
        self.is_left_running = True

    def note(self, *, with_us: bool = False) -> None:
        """Write down where the stack is, for other commands; `with_us`, this process is a part of it."""
        processes = {name: process.identity for name, process in self.processes.items()}
        if with_us:
            processes[RUNNER] = ProcessIdentity.of(os.getpid())
        said = self.addresses
        self.home.write(
            StackState(said.database_url, said.broker_url, said.stripe_api_base, datetime.now(UTC), processes)
        )


@contextmanager
def running_stack(
    home: SandboxHome, on_progress: Progress = lambda _: None, *, is_fresh: bool = False, is_durable: bool = True
) -> Iterator[Stack]:
    """Boot the servers in a home of their own and migrate; everything ends with the context, unless left running.

    `is_fresh` forgets what an earlier stack left in the home. Otherwise its clock goes on where it stood, as its data
    do, and the Stripe double, which has no memory, is moved there. One that is not durable may forget its last moments
    when the machine fails; it does not wait for the disk.
    """
    with home.lock(), ExitStack() as ending:
        if is_fresh:
            _forget_data(home)
        offset = clock.offset_in(home.clock_file)
        ending.callback(home.clear)
        on_progress("PostgreSQL")
        postgres = ending.enter_context(PostgresServer(home.path / "postgres", settings=_DURABLE[is_durable]))
        on_progress("Valkey")
        valkey = ending.enter_context(ValkeyServer(home.path / "valkey"))
        on_progress("the Stripe double")
        double, api_base = start_double(home.path)
        ending.callback(double.stop)
        move_double(api_base, offset)
        addresses = Addresses(postgres.uri("postgres"), valkey.url, api_base)
        on_progress("the schema")
        migrate(addresses.database_url)
        stack = Stack(home, postgres, valkey, double, addresses)
        ending.callback(stack.stop_workers)
        yield stack
        if stack.is_left_running:
            ending.pop_all()


def end_stack(home: SandboxHome, on_ended: Progress = lambda _: None) -> bool:
    """End the stack that runs in a home, whoever started it; False when there is none."""
    state = home.running_state()
    if state is None:
        return False
    # Beat and workers before the servers that they use; whoever runs the stack ends the others itself.
    for name, process in reversed(list(state.processes.items())):
        if process.alive:
            process.end(_END_SIGNALS.get(name, signal.SIGTERM), grace_seconds=_END_SECONDS_MAX)
            on_ended(f"{name} (process {process.pid})")
    home.clear()
    return True


def _forget_data(home: SandboxHome) -> None:
    PostgresServer(home.path / "postgres").destroy()
    shutil.rmtree(home.path / "valkey", ignore_errors=True)
    home.clock_file.unlink(missing_ok=True)
    for log in home.path.glob("*.log"):
        log.unlink()


def start_double(home: Path) -> tuple[ManagedProcess, str]:
    """Start the Stripe double as a process of its own; it and its address."""
    ready = home / "stripe-double.url"
    ready.unlink(missing_ok=True)
    home.mkdir(parents=True, exist_ok=True)
    process = ManagedProcess.start("stripe-double", launch.command(ready), home / "stripe-double.log", cwd=ROOT)
    process.wait_ready(lambda: ready.exists() and ready.read_text(encoding="utf-8") != "", READY_SECONDS_MAX)
    return process, ready.read_text(encoding="utf-8").strip()


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
