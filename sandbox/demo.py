"""The demo: real usage in at one end, money out at the other, and the proof that both agree."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import redis

from billing.errors import CentavoError
from billing.money import written
from billing.periods import calendar_month
from config import clock
from config.settings import settings
from sandbox import demo_plan as plan
from sandbox.demo_emitter import Job, write_job, write_trace
from sandbox.processes import ManagedProcess
from sandbox.stack import ROOT, Stack
from sandbox.trace import TraceRow, generate_trace, read_trace, shift_into
from services.books import customers, tenants
from services.books.catalogue_files import read_plans, read_prices
from services.books.credits import Grant, grant
from services.collecting import cards
from services.collecting.gateways import gateway
from services.desk import prices, reports
from services.desk.reports import CustomerSummary, Progress
from services.oversight.audit import Audit, audit
from tasks.queues import UNACKNOWLEDGED, depths, of_usage

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
    """How the demo ended; `contradictions` says in words where the outcome is not what the trace asks for."""

    emitted: int
    sent: int
    seconds: float
    before: dict[str, Decimal]
    customers: list[CustomerSummary]
    contradictions: list[str]
    audit: Audit

    @property
    def charged(self) -> int:
        return self.audit.counts["charged"]

    @property
    def parked(self) -> int:
        return self.audit.parked

    @property
    def differences(self) -> int:
        """Everything that does not agree, by the trace and by the audit."""
        return len(self.contradictions) + self.audit.differences

    @property
    def difference_list(self) -> list[str]:
        """Each in words; of one check of the audit, the first."""
        shown = self.audit.shown
        said = [f"{one.check}: {one.subject}: expected {one.expected}, found {one.actual}" for one in shown]
        return self.contradictions + said

    @property
    def events_per_second(self) -> float:
        return self.charged / self.seconds if self.seconds else 0.0

    @property
    def holds(self) -> bool:
        return not self.differences and self.charged == self.emitted and self.parked == 0


DEFAULT_EVENTS = 60_000


def rows_to_bill(options: Options, now: datetime) -> list[TraceRow]:
    """The trace, moved into the open month of the demo's customers. Raises `TraceError`."""
    if options.trace is not None:
        rows = read_trace(options.trace)[: options.events]
    else:
        rows = generate_trace(options.events or DEFAULT_EVENTS, options.seed)
    starts_at, _ = calendar_month(now, plan.TIME_ZONE)
    return shift_into(rows, starts_at, now)


def run(stack: Stack, rows: Sequence[TraceRow], options: Options, watch: Watch) -> Report:
    """Start the workers of a stack, bill the trace on it, and compare the outcome with the expectation."""
    watch.on_step("workers and beat")
    stack.start_workers()
    watch.on_step(f"tenant, plans, prices, {options.customers:,} customers and their cards")
    before = _set_the_scene(options.customers)
    _watch_until_month_has_begun(stack)

    watch.on_step(f"{len(rows):,} events through {options.producers} producers, and their payments")
    with _producers(stack, rows, options) as producers:
        results, charged_at = _watch_until_charged(stack, len(rows), producers, watch)
    _watch_until_quiet(stack, watch)

    watch.on_step("the audit")
    summaries = sorted(reports.customers_of(plan.TENANT), key=lambda one: plan.number_of(one.customer_id))
    expected = plan.expectations(rows, options.customers)
    contradictions = [*compared(expected, before, summaries), *compared_with_stripe(_captured(stack), summaries)]
    return Report(
        emitted=len(rows),
        sent=sum(result["sent"] for result in results),
        seconds=charged_at - min(result["began_at"] for result in results),
        before=before,
        customers=summaries,
        contradictions=contradictions,
        audit=audit(),
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
    return {one.customer_id: balance_of(one) for one in reports.customers_of(plan.TENANT)}


def _give(number: int, now: datetime) -> None:
    """Who pays by tier gets a card; who is prepaid gets credit."""
    name = plan.customer_name(number)
    if plan.plan_of(number) == plan.TIER_PLAN:
        cards.attach(plan.TENANT, name, plan.card_of(number), gateway(), now)
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


def _result(process: ManagedProcess) -> dict[str, Any]:
    code = process.wait(STALLED_SECONDS_MAX)
    path = process.log_file.with_suffix(".json")
    if code != 0 or not path.exists():
        raise DemoFailed(f"{process.name} ended with exit code {code}: {process.log_tail()}")
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if result["unsent"]:
        raise DemoFailed(f"{process.name} could not send {result['unsent']} events")
    return result


def _watch_until_month_has_begun(stack: Stack) -> None:
    """Wait until the fees are owed; so they fall due before any tier, and are collected first."""
    next(progress for progress in _observed(stack, Watch()) if not progress.periods_unopened)


def _watch_until_charged(
    stack: Stack, events: int, producers: Sequence[ManagedProcess], watch: Watch
) -> tuple[list[dict[str, Any]], float]:
    """Wait until every event is charged or parked and all producers are done; their results, and when that was."""
    results: dict[str, dict[str, Any]] = {}
    charged_at = 0.0
    for progress in _observed(stack, watch):
        if progress.charged + progress.parked >= events and not charged_at:
            charged_at = time.time()
        for process in producers:
            if process.name not in results and not process.alive:
                results[process.name] = _result(process)
        if charged_at and len(results) == len(producers):
            break
    return list(results.values()), charged_at


def _watch_until_quiet(stack: Stack, watch: Watch) -> None:
    """Wait until nothing is sent or worked on any more, second sendings included, and no payment is due or will be."""
    quiet = 0
    with redis.Redis.from_url(stack.addresses.broker_url) as broker:
        for progress in _observed(stack, watch):
            is_due = progress.payments_waiting or progress.periods_unopened
            lengths = depths()
            waiting = sum(lengths[queue] for queue in of_usage(settings()))
            is_quiet = not (is_due or waiting or broker.hlen(UNACKNOWLEDGED))
            # Twice, because between the queue and the list of what is worked on, a message is in neither.
            quiet = quiet + 1 if is_quiet else 0
            if quiet == 2:
                break


def _observed(stack: Stack, watch: Watch) -> Iterator[Progress]:
    """Look, again and again; gives up when a part of the stack has ended, or nothing has moved for a minute."""
    last, since = None, time.monotonic()
    while True:
        progress = reports.progress(clock.now())
        watch.on_progress(progress)
        yield progress
        if ended := stack.ended():
            raise DemoFailed(f"{ended.name} has ended; the end of {ended.log_file}:\n{ended.log_tail()}")
        if progress != last:
            last, since = progress, time.monotonic()
        elif time.monotonic() - since > STALLED_SECONDS_MAX:
            raise DemoFailed(
                f"nothing has moved for {STALLED_SECONDS_MAX:.0f} s: {progress}; the logs in {stack.home.path} say why"
            )
        time.sleep(POLL_SECONDS)


def compared(
    expected: Mapping[str, plan.Expected], before: Mapping[str, Decimal], summaries: Sequence[CustomerSummary]
) -> Iterator[str]:
    """Where a customer has not what the trace says."""
    found = {one.customer_id: one for one in summaries}
    for name in sorted(found.keys() ^ expected.keys()):
        yield f"{name}: a customer that is {'not expected' if name in found else 'missing'}"
    for name, want in expected.items():
        if name in found:
            yield from _compared(want, before[name], found[name])


def _compared(want: plan.Expected, before: Decimal, one: CustomerSummary) -> Iterator[str]:
    facts = {
        "plan": (want.plan, one.plan_id),
        "events": (want.events, one.events),
        "tokens": (want.tokens, one.tokens),
        "cost": (written(want.cost), written(one.cost)),
        "wallet": (written(before - want.cost), written(balance_of(one))),
        "payments": (plan.expected_payments(one.customer_id, want), one.payments),
    }
    for name, (wanted, found) in facts.items():
        if wanted != found:
            yield f"{one.customer_id}: {name}: expected {wanted}, found {found}"


def balance_of(one: CustomerSummary) -> Decimal:
    """What a customer of the demo has: one wallet each."""
    return sum(one.balances.values(), Decimal(0))


def _captured(stack: Stack) -> dict[str, Any]:
    with urlopen(f"{stack.addresses.stripe_api_base}/_double/captured", timeout=10) as answer:  # noqa: S310 - loopback
        captured: dict[str, Any] = json.load(answer)
    return captured


def compared_with_stripe(captured: Mapping[str, Any], summaries: Sequence[CustomerSummary]) -> Iterator[str]:
    """Where the money that Stripe took is not the money that we say succeeded."""
    taken = sum(captured["totals"].values())
    ours = sum(amount for one in summaries for (_, state), (_, amount) in one.payments.items() if state == "succeeded")
    if taken != ours:
        yield f"Stripe captured {taken} minor units, {ours} are recorded as succeeded"
    for payment_id, payment in captured["payments"].items():
        if payment["successes"] > 1:
            yield f"payment {payment_id} was captured {payment['successes']} times"
