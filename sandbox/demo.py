"""The demo: real usage in at one end, money out at the other, and the proof that both agree."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from urllib.request import urlopen

from billing.errors import CentavoError
from billing.money import written
from billing.periods import calendar_month
from config import clock
from sandbox import demo_plan as plan
from sandbox.demo_emitter import Job, write_job, write_trace
from sandbox.processes import ManagedProcess
from sandbox.stack import ROOT, Stack
from sandbox.trace import TraceRow, generate_trace, read_trace, shift_into
from services import customers, prices, reports, tenants
from services.audit import Audit, audit
from services.catalogue_files import read_plans, read_prices
from services.credits import Grant, grant
from services.gateways import gateway
from services.reports import CustomerSummary, Progress
from tasks.queues import depths

POLL_SECONDS = 0.1
#: Nothing has moved for so long: something is broken, and waiting on would only hide it.
STALLED_SECONDS_MAX = 60.0
CUSTOMERS_A_STEP = 500


class DemoFailed(CentavoError):
    """The demo could not be brought to its end."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to bill."""

    trace: Path | None = None
    events: int | None = None
    customers: int = 6
    producers: int = 2
    repeated_share: float = 0.05
    seed: int = 20261120


@dataclass(slots=True)
class Watch:
    """What somebody who looks on is told."""

    on_step: Callable[[str], None] = lambda _: None
    on_progress: Callable[[Progress], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Report:
    """How the demo ended; `differences` says in words where anything does not agree."""

    emitted: int
    sent: int
    charged: int
    parked: int
    differences: list[str]
    seconds: float
    expected: dict[str, plan.Expected]
    before: dict[str, Decimal]
    customers: list[CustomerSummary]
    audit: Audit

    @property
    def events_per_second(self) -> float:
        return self.charged / self.seconds if self.seconds else 0.0

    @property
    def holds(self) -> bool:
        return not self.differences and self.charged == self.emitted and self.parked == 0


DEFAULT_EVENTS = 60_000


def rows_to_bill(options: Options, now: datetime) -> list[TraceRow]:
    """The trace, moved into the open month of the demo's customers."""
    if options.trace is not None:
        rows = read_trace(options.trace)[: options.events]
    else:
        rows = generate_trace(options.events or DEFAULT_EVENTS, options.seed)
    starts_at, _ = calendar_month(now, plan.TIME_ZONE)
    return shift_into(rows, starts_at, now)


def run(stack: Stack, options: Options, watch: Watch) -> Report:
    """Bill the trace on a stack whose workers run, and compare the outcome with the expectation."""
    rows = rows_to_bill(options, clock.now())
    watch.on_step("tenant, plans, prices, customers and their cards")
    before = _set_the_scene(options.customers)
    expected = plan.expectations(rows, options.customers)

    watch.on_step(f"{len(rows):,} events through {options.producers} producers, and their payments")
    began = time.monotonic()
    sent = 0
    with _producers(stack, rows, options) as producers:
        charged_after = _watch_until_charged(len(rows), producers, watch)
        sent = sum(_result(process)["sent"] for process in producers)
    _watch_until_quiet(watch)

    watch.on_step("the audit")
    summaries = reports.customers_of(plan.TENANT)
    found = audit()
    differences = [*_compared(expected, before, summaries), *_captured(stack, summaries)]
    differences += [f"{d.check}: {d.subject}: expected {d.expected}, found {d.actual}" for d in found.shown]
    return Report(
        emitted=len(rows),
        sent=sent,
        charged=found.counts["charged"],
        parked=found.parked,
        differences=differences,
        seconds=charged_after - began,
        expected=expected,
        before=before,
        customers=summaries,
        audit=found,
    )


def _set_the_scene(number: int) -> dict[str, Decimal]:
    """Make the tenant and its customers; what each wallet holds then."""
    now = datetime.now(UTC)
    tenants.create_tenant(plan.TENANT, "Demo", now)
    tenants.load_plans(plan.TENANT, read_plans("default"), now)
    prices.load_prices(read_prices("usd-per-unit"), now)
    wanted = [
        customers.NewCustomer(
            plan.TENANT, plan.customer_name(n), plan.plan_of(n), plan.TIME_ZONE, (plan.currency_of(n),)
        )
        for n in range(number)
    ]
    for first in range(0, number, CUSTOMERS_A_STEP):
        customers.create_customers(wanted[first : first + CUSTOMERS_A_STEP], now)
    for n in range(number):
        _give(n, now)
    return {one.customer_id: sum(one.balances.values(), Decimal(0)) for one in reports.customers_of(plan.TENANT)}


def _give(number: int, now: datetime) -> None:
    """Who pays by tier gets a card; who is prepaid gets credit."""
    name = plan.customer_name(number)
    if plan.plan_of(number) == plan.TIER_PLAN:
        customers.attach_card(plan.TENANT, name, plan.card_of(number), gateway())
        return
    grant(Grant(plan.TENANT, name, "USD", plan.FIRST_CREDIT_USD, "promo", "welcome_bonus", f"demo:first:{name}"), now)


@contextmanager
def _producers(stack: Stack, rows: Sequence[TraceRow], options: Options) -> Iterator[list[ManagedProcess]]:
    """Producer processes, as many web servers would run them."""
    folder = stack.home.path / "producers"
    folder.mkdir(exist_ok=True)
    trace = folder / "trace.csv"
    write_trace(trace, rows)
    processes = []
    try:
        for part in range(options.producers):
            result = folder / f"producer-{part}.json"
            result.unlink(missing_ok=True)
            job = Job(
                str(trace),
                str(result),
                stack.addresses.broker_url,
                part,
                options.producers,
                options.customers,
                options.repeated_share,
                options.seed,
            )
            path = folder / f"job-{part}.json"
            write_job(path, job)
            command = [sys.executable, "-m", "sandbox.demo_emitter", str(path)]
            name = f"producer-{part}"
            processes.append(ManagedProcess.start(name, command, folder / f"{name}.log", cwd=ROOT))
        yield processes
    finally:
        for process in processes:
            process.stop()


def _result(process: ManagedProcess) -> dict[str, int]:
    code = process.wait(STALLED_SECONDS_MAX)
    path = process.log_file.with_suffix(".json")
    if code != 0 or not path.exists():
        raise DemoFailed(f"{process.name} ended with exit code {code}: {process.log_tail()}")
    result: dict[str, int] = json.loads(path.read_text())
    if result["unsent"]:
        raise DemoFailed(f"{process.name} could not send {result['unsent']} events")
    return result


def _watch_until_charged(events: int, producers: Sequence[ManagedProcess], watch: Watch) -> float:
    """Wait until every event is charged or parked and all producers are done; when the last was charged."""
    charged_after = 0.0
    for progress in _observed(watch):
        if progress.charged + progress.parked >= events and not charged_after:
            charged_after = time.monotonic()
        if charged_after and not any(process.alive for process in producers):
            break
    return charged_after


def _watch_until_quiet(watch: Watch) -> None:
    """Wait until the queues are worked off and no payment is due."""
    for progress in _observed(watch):
        if not progress.payments_waiting and not depths()["usage"]:
            break


def _observed(watch: Watch) -> Iterator[Progress]:
    """Look, again and again; gives up when nothing has moved for a minute."""
    last, since = None, time.monotonic()
    while True:
        progress = reports.progress()
        watch.on_progress(progress)
        yield progress
        if progress != last:
            last, since = progress, time.monotonic()
        elif time.monotonic() - since > STALLED_SECONDS_MAX:
            raise DemoFailed(
                f"nothing has moved for {STALLED_SECONDS_MAX:.0f} s: {progress}; the workers' logs say why"
            )
        time.sleep(POLL_SECONDS)


def _compared(
    expected: dict[str, plan.Expected], before: dict[str, Decimal], summaries: Sequence[CustomerSummary]
) -> Iterator[str]:
    """Where a customer has not what the trace says."""
    for number, one in enumerate(sorted(summaries, key=lambda s: int(s.customer_id.rpartition("-")[2]))):
        want = expected[one.customer_id]
        wallet = sum(one.balances.values(), Decimal(0))
        payments = {state: count for (_, state), (count, _) in one.payments.items()}
        facts = {
            "events": (want.events, one.events),
            "tokens": (want.tokens, one.tokens),
            "cost": (written(want.cost), written(one.cost)),
            "wallet": (written(before[one.customer_id] - want.cost), written(wallet)),
            "tier payments": (dict(plan.expected_payments(number, want)), payments),
        }
        for name, (wanted, found) in facts.items():
            if wanted != found:
                yield f"{one.customer_id}: {name}: expected {wanted}, found {found}"


def _captured(stack: Stack, summaries: Sequence[CustomerSummary]) -> Iterator[str]:
    """Where the money that Stripe took is not the money that we say succeeded."""
    with urlopen(f"{stack.addresses.stripe_api_base}/_double/captured", timeout=10) as answer:  # noqa: S310 - loopback
        captured = json.load(answer)
    taken = sum(captured["totals"].values())
    ours = sum(amount for one in summaries for (_, state), (_, amount) in one.payments.items() if state == "succeeded")
    if taken != ours:
        yield f"Stripe captured {taken} minor units, {ours} are recorded as succeeded"
    for payment_id, payment in captured["payments"].items():
        if payment["successes"] > 1:
            yield f"payment {payment_id} was captured {payment['successes']} times"
