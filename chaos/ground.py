"""The ground for it: real servers, a worker that may die, the API for webhooks, a double of Stripe that misbehaves."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, LiteralString
from uuid import UUID

import psycopg
from celery import Celery
from redis import Redis

from centavo import Item, UsageEvent
from centavo.envelopes import pack
from config.settings import use
from db import session
from db.session import in_transaction
from sandbox.home import SandboxHome
from sandbox.processes import ManagedProcess, await_condition
from sandbox.stack import ROOT, Stack, is_ready, running_stack, start_worker
from sandbox.stripe_double.control import DoubleControl
from services.books import accounts, catalogue, tenants
from services.books.catalogue_files import read_plans
from services.books.customers import NewCustomer, create_customers
from services.collecting import cards, gateways
from services.collecting.gateways import gateway
from services.metering.usage import record_usage
from tasks import names
from tasks.queues import UNACKNOWLEDGED

TENANT = "chaos"
QUEUES = ("payments", "ticks")
SECRET = "whsec_chaos"  # noqa: S105 - of the double's webhooks, on loopback
CURRENCY = "BRL"
FEE_MINOR = 10_000
READY_SECONDS_MAX = 40.0
SWEEP_SECONDS = 0.3


@dataclass(slots=True)
class Ground:
    """Everything that runs."""

    stack: Stack
    control: DoubleControl
    fault_dir: Path
    environment: dict[str, str]
    app: Celery
    webhook_url: str = ""
    processes: list[ManagedProcess] = field(default_factory=list)

    def start_worker(self, name: str = "chaos-worker", children: int = 2) -> ManagedProcess:
        """A worker for payments and ticks."""
        worker = start_worker(name, "payments,ticks", children, self.environment, self.stack.home.path)
        self.processes.append(worker)
        worker.wait_ready(lambda: is_ready(worker), READY_SECONDS_MAX)
        return worker

    def start_api(self) -> ManagedProcess:
        """Where webhooks arrive."""
        ready = self.stack.home.path / "api.url"
        ready.unlink(missing_ok=True)
        command = [sys.executable, "-m", "chaos.serve_api", str(ready)]
        log = self.stack.home.path / "api.log"
        api = ManagedProcess.start("api", command, log, env=self.environment, cwd=ROOT)
        self.processes.append(api)
        api.wait_ready(lambda: ready.exists() and ready.read_text(encoding="utf-8") != "", READY_SECONDS_MAX)
        self.webhook_url = ready.read_text(encoding="utf-8") + "/webhooks/stripe"
        return api

    def sweep(self) -> None:
        """Say what beat says of payments. Months do not turn here: nobody owes more than their tier."""
        for name in (names.SWEEP_PAYMENTS, names.SWEEP_WEBHOOKS, names.SWEEP_REFUNDS):
            self.app.send_task(name, queue="ticks")

    def messages_left(self) -> int:
        """Messages that wait or are under way, in any queue."""
        with closing(Redis.from_url(self.stack.addresses.broker_url)) as client:
            waiting = sum(int(client.llen(queue)) for queue in QUEUES)
            return waiting + int(client.hlen(UNACKNOWLEDGED))

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.kill()
        self.processes.clear()


@contextmanager
def ground(folder: Path, **settings: object) -> Iterator[Ground]:
    """Servers with a tenant on them; this process uses them, too. Everything ends with the context."""
    with ExitStack() as ending:
        stack = ending.enter_context(running_stack(SandboxHome(folder / "home"), is_fresh=True))
        fault_dir = folder / "faults"
        fault_dir.mkdir(exist_ok=True)
        more = {"stripe_webhook_secrets": SECRET, "fault_dir": str(fault_dir), **settings}
        more_environment = {f"CENTAVO_{name.upper()}": str(value) for name, value in more.items()}
        environment = stack.addresses.as_environment(stack.home.path, **more_environment)
        use(**stack.addresses.as_settings(stack.home.path), **settings)
        ending.callback(forget)
        forget()
        app = ending.enter_context(Celery(broker=stack.addresses.broker_url, set_as_current=False))
        made = Ground(stack, DoubleControl(stack.addresses.stripe_api_base), fault_dir, environment, app)
        ending.callback(made.stop)
        now = datetime.now(UTC)
        tenants.create_tenant(TENANT, "Chaos", now)
        tenants.load_plans(TENANT, read_plans("default"), now)
        yield made


def forget() -> None:
    session.close()
    catalogue.forget()
    accounts.forget_all()
    gateways.gateway.cache_clear()


def create_customer_with_card(name: str, card: str) -> str:
    """A customer who pays by tier, with a card; the card's id at Stripe."""
    now = datetime.now(UTC)
    create_customers([NewCustomer(TENANT, name, "tiers-8m", currencies=(CURRENCY,))], now)
    return cards.attach(TENANT, name, card, gateway(), now)


def owe(customers: Sequence[str]) -> dict[str, UUID]:
    """Let usage begin a tier for each customer, in envelopes as they come; the payment of each."""
    now = datetime.now(UTC)
    used = Item(category="llm_prompt", provider="openai", model="gpt-4", unit="token", quantity=Decimal(8_000_001))
    for some in batched(customers, 500):
        events = [UsageEvent(tenant_id=TENANT, customer_id=name, occurred_at=now, items=(used,)) for name in some]
        record_usage(pack([event.to_wire() for event in events]).json, now)
    owed = dict(_read("SELECT customer_id, payment_id FROM payments WHERE kind = 'tier'"))
    return {name: owed[name] for name in customers}


def keep_database(ground: Ground) -> None:
    """Keep the database as it is now. Nothing else may be connected to it."""
    _admin(ground, "CREATE DATABASE kept TEMPLATE postgres")


def put_database_back(ground: Ground) -> None:
    """Let the database be again what was kept. Nothing else may be connected to it."""
    _admin(ground, "DROP DATABASE postgres", "CREATE DATABASE postgres TEMPLATE kept")


def _admin(ground: Ground, *statements: LiteralString) -> None:
    forget()
    with psycopg.connect(ground.stack.postgres.uri("template1"), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def batched(values: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """So many at a time."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _read(statement: LiteralString) -> list[tuple[Any, ...]]:
    return in_transaction(lambda connection: connection.execute(statement).fetchall())


def states() -> dict[UUID, tuple[str, int]]:
    """(state, attempts made) of every payment."""
    return {id_: (state, made) for id_, state, made in _read("SELECT payment_id, state, attempts_made FROM payments")}


def settled(ground: Ground, is_so: Callable[[], bool], seconds: float, what: str) -> None:
    """Sweep, as beat would, until it is so and no message is left. Raises `ConditionNotMet`."""
    swept_at = [0.0]

    def is_settled() -> bool:
        if time.monotonic() - swept_at[0] > SWEEP_SECONDS:
            ground.sweep()
            swept_at[0] = time.monotonic()
            return False
        return is_so() and not ground.messages_left()

    await_condition(is_settled, seconds, what, log_file=ground.processes[0].log_file)
