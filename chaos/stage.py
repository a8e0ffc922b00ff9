"""What a run takes place on: real servers, workers, beat, the API, the Stripe double, and producers."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil

from billing.errors import DatabaseUnavailable
from billing.plans import Plan
from billing.prices import LadderSpan, Rung
from billing.quotas import Measure, Per, QuotaKind, Scope
from chaos.brokers import Broker, BrokerKind, broker_of
from chaos.ground import forget
from chaos.producing import STATUS, Orders
from chaos.world import GRACE_HOURS, GrantOf, QuotaOf, World
from config import clock
from config.settings import use
from db.migrate import migrate
from db.prices import NewPrice
from sandbox.postgres import PostgresServer
from sandbox.processes import ManagedProcess
from sandbox.stack import ROOT, Addresses, is_ready, start_beat, start_double, start_worker
from sandbox.stripe_double.control import DoubleControl
from sandbox.stripe_double.wishes import Delivery
from services.books import tenants
from services.books.credits import Grant, grant
from services.books.customers import NewCustomer, create_customers
from services.collecting import cards
from services.collecting.gateways import gateway
from services.desk.prices import load_prices
from services.desk.quotas import Wanted, set_quota

SECRET = "whsec_chaos"  # noqa: S105 - of the double's webhooks, on loopback
READY_SECONDS_MAX = 60.0
USAGE_WORKERS = ("usage-a", "usage-b")
COLLECTOR = "collector"
MANY = 1_000_000
PRICES_SINCE = datetime(2025, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Stage:
    """Everything that runs; safe to be used by several threads where it starts processes."""

    home: Path
    postgres: PostgresServer
    broker: Broker
    control: DoubleControl
    environment: dict[str, str]
    database_url: str
    workers: dict[str, ManagedProcess] = field(default_factory=dict)
    others: list[ManagedProcess] = field(default_factory=list)
    producers: dict[str, tuple[Orders, ManagedProcess]] = field(default_factory=dict)
    journaled_logs: list[Path] = field(default_factory=list)
    memory_logs: list[Path] = field(default_factory=list)
    webhook_url: str = ""
    starting: threading.Lock = field(default_factory=threading.Lock)

    def start_worker(self, name: str) -> ManagedProcess:
        """A worker of usage, or the collector; it need not be ready yet."""
        queues = "payments,ticks" if name == COLLECTOR else "usage"
        with self.starting:
            worker = start_worker(name, queues, 2 if name == COLLECTOR else 1, self.environment, self.home)
            self.workers[name] = worker
        return worker

    def await_workers(self) -> None:
        for worker in (*self.workers.values(), *self.others):
            if worker.name != "api":
                worker.wait_ready(lambda worker=worker: is_ready(worker), READY_SECONDS_MAX)  # type: ignore[misc]

    def start_beat(self) -> ManagedProcess:
        beat = start_beat(self.environment, self.home)
        self.others.append(beat)
        return beat

    def start_api(self) -> None:
        """Where webhooks arrive."""
        ready = self.home / "api.url"
        command = [sys.executable, "-m", "chaos.serve_api", str(ready)]
        api = ManagedProcess.start("api", command, self.home / "api.log", env=self.environment, cwd=ROOT)
        self.others.append(api)
        api.wait_ready(lambda: ready.exists() and ready.read_text(encoding="utf-8") != "", READY_SECONDS_MAX)
        self.webhook_url = ready.read_text(encoding="utf-8") + "/webhooks/stripe"
        self.control.set_webhooks(self.webhook_url, SECRET, Delivery(attempts_max=20))

    def start_producer(self, orders: Orders) -> None:
        """A producer with a log of its own; it stands under its name without the generation."""
        file = self.home / f"{orders.name}.orders.json"
        file.write_text(json.dumps(asdict(orders)), encoding="utf-8")
        log = self.home / f"{orders.name}.log"
        with self.starting:
            command = [sys.executable, "-m", orders.program, str(file)]
            process = ManagedProcess.start(orders.name, command, log, env=self.environment, cwd=ROOT)
            emitted = Path(orders.log)
            emitted.touch()  # who is killed while still starting has emitted nothing
            (self.journaled_logs if orders.journal else self.memory_logs).append(emitted)
            self.producers[orders.name.partition(".")[0]] = (orders, process)

    def succeed_producer(self, name: str) -> None:
        """Kill a producer; another process takes its place, and its journal."""
        orders, process = self.producers[name]
        process.kill()
        base, _, generation = orders.name.partition(".")
        following = f"{base}.{int(generation) + 1}"
        self.start_producer(replace(orders, name=following, log=str(self.home / f"{following}.emitted")))

    def waiting(self) -> int:
        """Events that producers have, and of which they do not know that they are recorded."""
        said = (Path(orders.log).with_suffix(STATUS) for orders, _ in self.producers.values())
        return sum(int(path.read_text(encoding="utf-8") or 0) for path in said if path.exists())

    def stop_all(self) -> None:
        for process in (*(process for _, process in self.producers.values()), *self.workers.values(), *self.others):
            process.send_signal(signal.SIGCONT)
            process.kill()

    def step_clock(self, seconds: float) -> None:
        clock.set_offset(timedelta(seconds=seconds))


def children_of(process: ManagedProcess) -> list[int]:
    """The pool children of a worker that runs."""
    with suppress(psutil.NoSuchProcess):
        return sorted(child.pid for child in psutil.Process(process.pid).children())
    return []


@contextmanager
def stage(folder: Path, kind: BrokerKind, visibility_seconds: int, shards: int) -> Iterator[Stage]:
    """Servers that are empty but for the schema; everything ends with the context."""
    with ExitStack() as ending:
        postgres = PostgresServer(folder / "postgres", settings={"track_commit_timestamp": "on"})
        ending.enter_context(postgres)
        broker = broker_of(kind, folder)
        broker.start()
        ending.callback(broker.stop)
        double, api_base = start_double(folder)
        ending.callback(double.kill)
        addresses = Addresses(postgres.uri("postgres"), broker.url, api_base)
        chosen = {
            "stripe_webhook_secrets": SECRET,
            "visibility_timeout_seconds": visibility_seconds,
            "sweep_seconds": 1.0,
            "unknown_again_seconds": 1,
            "payment_lease_seconds": 10,
            "payments_per_second": 50,
            "customer_day_payments_max": MANY,
            "customer_day_minor_max": MANY * MANY,
            "tenant_hour_payments_max": MANY,
            "tenant_hour_minor_max": MANY * MANY,
            "audit_every_hours": 0,
            "usage_shards": shards,
        }
        migrate(addresses.database_url)
        use(**{**addresses.as_settings(folder), **chosen})
        ending.callback(forget)
        forget()
        environment = addresses.as_environment(
            folder, **{f"CENTAVO_{name.upper()}": str(value) for name, value in chosen.items()}
        )
        environment["PYTHONUNBUFFERED"] = "1"
        broker.prepare()
        made = Stage(folder, postgres, broker, DoubleControl(api_base), environment, addresses.database_url)
        ending.callback(made.stop_all)
        yield made


def furnish(world: World) -> None:
    """Write the world into the database, through the services that everybody uses."""
    now, long_ago = datetime.now(UTC), world.past_months[0]
    load_prices(_prices_with_tenants(world, long_ago), now)
    for tenant in dict.fromkeys(one.tenant_id for one in world.customers):
        for is_veteran, since in ((True, long_ago), (False, now)):
            people = [
                NewCustomer(tenant, one.customer_id, one.plan_id, one.zone, one.currencies)
                for one in world.customers
                if (one.tenant_id, one.is_veteran) == (tenant, is_veteran)
            ]
            create_customers(people, since)
    veterans = {(one.tenant_id, one.customer_id) for one in world.customers if one.is_veteran}
    for given in world.grants:
        give(given, long_ago if (given.tenant_id, given.customer_id) in veterans else now)
    for quota in world.quotas:
        limit(quota, now)
    for one in world.customers:
        if one.card is not None:
            cards.attach(one.tenant_id, one.customer_id, one.card, gateway(), now)


def _prices_with_tenants(world: World, now: datetime) -> list[NewPrice]:
    for tenant in dict.fromkeys(one.tenant_id for one in world.customers):
        tenants.create_tenant(tenant, tenant.title(), now)
        tenants.load_plans(
            tenant,
            [
                Plan(
                    "",
                    plan.plan_id,
                    0,
                    plan.plan_id,
                    "BRL",
                    0,
                    plan.included_tokens,
                    plan.tier_size,
                    plan.tier_fee_minor,
                    grace_hours=GRACE_HOURS,
                    open_tiers_max=MANY,
                )
                for plan in world.plans
            ],
            now,
        )
    return [
        NewPrice(
            price.scope,
            *price.product,
            price.currency,
            price.unit_price,
            price.per,
            tuple(Rung(top, unit_price) for top, unit_price in price.rungs),
            LadderSpan.EVENT,
            is_provider_default=False,
            is_ended=False,
            effective_from=PRICES_SINCE,
            revision=0,
            description=None,
        )
        for price in world.prices
    ]


def limit(quota: QuotaOf, now: datetime) -> None:
    """Set a quota, a budget or a cap."""
    set_quota(
        Wanted(
            quota.tenant_id,
            quota.name,
            quota.limit,
            QuotaKind(quota.kind),
            Scope(quota.scope),
            quota.subject,
            quota.service_type,
            quota.feature,
            Per(quota.per),
            Measure(quota.measure),
            quota.currency,
            quota.is_hard,
            quota.zone,
        ),
        now,
    )


def give(given: GrantOf, now: datetime) -> None:
    """Give a grant, once, however often the database goes away meanwhile."""
    asked = Grant(
        given.tenant_id,
        given.customer_id,
        given.currency,
        given.amount,
        given.source,
        "chaos",
        given.key,
        given.valid_from,
        given.expires_at,
        given.priority,
    )
    while True:
        try:
            grant(asked, now)
        except DatabaseUnavailable:
            time.sleep(0.1)
            continue
        return


def signal_all(pids: list[int], number: signal.Signals) -> None:
    """Signal processes that may be gone."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
