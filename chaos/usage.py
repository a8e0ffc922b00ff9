"""A run: producers emit, workers record, everything goes wrong; then quiet, and the comparison with the oracle."""

import json
import random
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from billing.errors import DatabaseUnavailable
from chaos.archiver import POINTS, Archiver, archived, live_the_past
from chaos.asked import read_wishes
from chaos.brokers import BrokerKind
from chaos.compared import Verdict, compare
from chaos.deferring import Deferring
from chaos.emitted import read_logs
from chaos.faults import Fault, Faults
from chaos.looking import look
from chaos.producing import Orders
from chaos.recovery import APART_SECONDS, Sample, measured
from chaos.stage import COLLECTOR, USAGE_WORKERS, Stage, furnish, give, stage
from chaos.world import TIER_TOKENS, GrantOf, World, world
from config import clock
from db import happened, outcome
from db.session import in_transaction
from sandbox.processes import ConditionNotMet, await_condition
from sandbox.stripe_double.wishes import Delivery
from services.metering.counting import look_again
from services.oversight.audit import audit

LOOKS_MIN = 10
#: So many on their way are no backlog.
CALM_MESSAGES = 60
CALM_SECONDS = 1.5
SMALL_ENVELOPE = 5
#: A producer waits while so many of its events are on their way: a run is not to end with hours of work.
WAITING_MAX = 8_000
GRANT_EACH_SECONDS = 0.5
#: How often the archiver dies.
DEATHS_SHORT = 2
#: Who keeps value back, and then uses it: the same customers' at the same time.
HOLDERS = ("desk", "till")
#: How many tiers are to begin, more or less: each is a payment.
TIERS, TIERS_SHORT = 400, 120


@dataclass(frozen=True, slots=True)
class Options:
    """How a run is to be."""

    seed: int
    broker: BrokerKind = "valkey"
    seconds: float = 120.0
    events: int = 0
    """so many recorded at least, instead of so many seconds"""
    customers: int = 30
    """of each tenant"""
    events_per_second: float = 2800.0
    holds_per_second: float = 6.0
    """of each of those who ask for them"""
    visibility_seconds: int = 5
    shards: int = 1
    """queues of usage; producers disagree about how many there are"""
    is_short: bool = False
    """one fault right after the other, as a test has it"""

    @property
    def quiet_seconds_max(self) -> float:
        """How long may pass until any one thing has come to its end."""
        return 120.0 if self.is_short else 300.0

    @property
    def tokens_mean(self) -> int:
        """So that a common customer of tiers begins some of them."""
        wanted = self.events or self.seconds * self.events_per_second * 0.7
        return max(1000, round((TIERS_SHORT if self.is_short else TIERS) * TIER_TOKENS / wanted))


@dataclass(slots=True)
class Report:
    """What came of a run."""

    options: Options
    verdict: Verdict
    faults: list[Fault]
    samples: list[Sample]
    audit_differences: int
    problems: list[str]
    load_seconds: float
    quiet_seconds: float
    compare_seconds: float
    wiped: int = 0
    resent: int = 0
    archiver_deaths: int = 0
    captured_twice: int = 0
    calmed: dict[str, float] = field(default_factory=dict)
    """What of the quiet came after how many seconds."""
    is_finished: bool = True
    """Whether everything had come to its end when it was compared; else differences may be of what goes on."""
    seconds: float = 0.0

    @property
    def recorded(self) -> int:
        return self._found("events charged, parked or lost")

    @property
    def archived(self) -> int:
        return self._found("events archived")

    def _found(self, name: str) -> int:
        return int(next((total.actual for total in self.verdict.totals if total.name == name), 0))

    @property
    def holds(self) -> bool:
        return self.verdict.holds and not self.audit_differences and not self.problems


@dataclass(slots=True)
class Progress:
    """What somebody who watches may be told."""

    tell: Callable[[str, int, int], None] = lambda _phase, _charged, _faults: None


@dataclass(slots=True)
class _Run:
    options: Options
    stage: Stage
    world: World
    faults: Faults
    progress: Progress
    deferring: Deferring
    archiver: Archiver
    given: list[GrantOf] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    calmed: dict[str, float] = field(default_factory=dict)
    is_finished: bool = True

    @property
    def stop_file(self) -> Path:
        return self.stage.home / "stop"


def run(options: Options, progress: Progress | None = None) -> Report:
    """One run, from empty servers to the verdict."""
    progress = progress or Progress()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="centavo-chaos-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        with stage(folder, options.broker, options.visibility_seconds, options.shards) as made:
            report = _on(made, options, progress)
    report.seconds = time.monotonic() - began
    return report


def _on(made: Stage, options: Options, progress: Progress) -> Report:
    progress.tell("furnishing", 0, 0)
    there = world(options.seed, datetime.now(UTC), options.customers, options.tokens_mean)
    furnish(there)
    live_the_past(made, there)
    dice = random.Random(f"faults {options.seed}")
    faults = Faults(made, dice, made.home / "producers.clock", 3.0 if options.is_short else 31.0)
    deferring = Deferring(there, random.Random(f"deferring {options.seed}"))
    deaths = DEATHS_SHORT if options.is_short else len(POINTS)
    archiver = Archiver(made, random.Random(f"archive {options.seed}"), deaths)
    one = _Run(options, made, there, faults, progress, deferring, archiver)
    for name in (*USAGE_WORKERS, COLLECTOR):
        made.start_worker(name)
    made.start_beat()
    made.start_api()
    made.await_workers()
    began = time.monotonic()
    archiver.start()
    try:
        _load(one)
        loaded = time.monotonic()
        _quiet(one)
    finally:
        archiver.stop()
    quiet = time.monotonic()
    return _compared(one, loaded - began, quiet - loaded)


def _load(one: _Run) -> None:
    """Producers emit and faults happen, until there is enough of both."""
    options, made = one.options, one.stage
    for number, (name, is_journaled, is_small) in enumerate(
        (("disk", True, False), ("ledge", True, True), ("memory", False, False), ("mist", False, True))
    ):
        made.start_producer(_orders(one, f"{name}.0", is_journaled=is_journaled, is_small=is_small, number=number))
    for number, name in enumerate(HOLDERS):
        orders = _orders(one, f"{name}.0", is_journaled=True, is_small=True, number=number)
        made.start_producer(replace(orders, program="chaos.holding", events_per_second=options.holds_per_second))
    ends_at = time.monotonic() + options.seconds
    seen = 0
    gifts = random.Random(f"gifts {options.seed}")
    gave_at = time.monotonic()

    def is_over() -> bool:
        nonlocal seen, gave_at
        seen = _charged(seen)
        one.progress.tell("load", seen, len(one.faults.happened))
        if time.monotonic() - gave_at > GRANT_EACH_SECONDS:
            gave_at = time.monotonic()
            _give_one(one, gifts)
            one.deferring.some()
        return seen >= options.events if options.events else time.monotonic() > ends_at

    def is_calm() -> bool:
        return made.waiting() < CALM_SECONDS * options.events_per_second and made.broker.messages() < CALM_MESSAGES

    def await_calm(kind: str) -> None:
        is_over()
        if options.is_short:
            return
        until_resent = 2 * options.visibility_seconds + 2
        least = time.monotonic() + (until_resent if kind == "broker wiped" else APART_SECONDS)
        most = time.monotonic() + until_resent
        while time.monotonic() < most and (time.monotonic() < least or not is_calm()):
            is_over()
            time.sleep(0.1)

    one.faults.run(is_over, await_calm, (0.1, 0.4) if options.is_short else (0.5, 1.5))


def _orders(one: _Run, name: str, *, is_journaled: bool, is_small: bool, number: int) -> Orders:
    options, home = one.options, one.stage.home
    share = 0.08 if is_small else 0.42
    return Orders(
        name=name,
        seed=options.seed,
        began_at=one.world.began_at.isoformat(),
        customers=options.customers,
        tokens_mean=options.tokens_mean,
        broker_url=one.stage.broker.url,
        log=str(home / f"{name}.emitted"),
        stop_file=str(one.stop_file),
        clock_file=str(one.faults.clock_file),
        journal=str(home / "journal") if is_journaled else None,
        envelope_events_max=SMALL_ENVELOPE * (number + 1) if is_small else 500,
        linger_seconds=0.05 if is_small else 0.2,
        resend_seconds=2.0 * options.visibility_seconds,
        events_per_second=options.events_per_second * share,
        waiting_max=WAITING_MAX // 5 if is_small else WAITING_MAX,
        shards=max(1, options.shards - number),
    )


def _give_one(one: _Run, dice: random.Random) -> None:
    """Value that arrives while events do: it pays debt first."""
    customer = dice.choice(one.world.customers)
    amount = Decimal(dice.randrange(1, 9_000_000)).scaleb(-4)
    key = f"later-{len(one.given)}"
    given = GrantOf(key, customer.tenant_id, customer.customer_id, "BRL", amount, "promo", dice.randrange(60))
    one.given.append(given)
    give(given, clock.now())


def _charged(before: int) -> int:
    try:
        return in_transaction(outcome.charged)
    except DatabaseUnavailable:
        return before


def _quiet(one: _Run) -> None:
    """No more faults; wait until everything has come to its end."""
    made, most, began = one.stage, one.options.quiet_seconds_max, time.monotonic()
    one.progress.tell("quiet", _charged(0), len(one.faults.happened))
    made.control.clear_faults()
    made.control.set_delivery(Delivery(attempts_max=20))
    one.stop_file.touch()
    # What a step forth made due is due again, whatever steps back followed.
    made.step_clock(one.faults.clock_max + 15)
    try:
        for name, (_, process) in list(made.producers.items()):
            await_condition(lambda process=process: not process.alive, most, f"{name} to have all receipts")  # type: ignore[misc]
            one.calmed[f"{name} has all receipts"] = round(time.monotonic() - began, 1)
            if code := process.kill():
                one.problems.append(f"producer {name} ended with {code}: {process.log_tail(5)}")
        await_condition(_no_payment_is_open, most, "payments to be final")
        one.calmed["payments are final"] = round(time.monotonic() - began, 1)
        await_condition(lambda: _all_sent(made), most, "the last webhooks to be sent")
        await_condition(_no_payment_is_open, most, "payments to be final after the last webhooks")
        await_condition(lambda: one.archiver.is_done, most, "old usage to be archived")
        one.calmed["old usage is archived"] = round(time.monotonic() - began, 1)
        await_condition(_desk_is_quiet, most, "holds to be closed whose time is over, and quotas to be told of")
        one.calmed["holds and quotas are told"] = round(time.monotonic() - began, 1)
        beat = next(process for process in made.others if process.name == "beat")
        beat.kill()
        _await_empty(one, most)
    except (ConditionNotMet, TimeoutError) as error:
        one.problems.append(str(error))
        one.is_finished = False
    for name, worker in made.workers.items():
        if not worker.alive:
            one.problems.append(f"worker {name} ended by itself: {worker.log_tail(5)}")


def _all_sent(made: Stage) -> bool:
    """What was gathered to be shuffled waits until it is asked for."""
    if made.control.webhooks().in_flight == 0:
        return True
    made.control.deliver_all()
    with suppress(TimeoutError):
        made.control.wait_sent(1)
    return False


def _no_payment_is_open() -> bool:
    try:
        is_due = in_transaction(lambda connection: happened.is_payment_due(connection, clock.now()))
        return not is_due and not in_transaction(outcome.payments_in_the_dark)
    except DatabaseUnavailable:
        return False


def _desk_is_quiet() -> bool:
    """Beat sees to holds; at tenants' quotas it looks once a minute, which nobody waits for here."""
    try:
        return not look_again(clock.now()) and not in_transaction(
            lambda connection: outcome.holds_over(connection, clock.now())
        )
    except DatabaseUnavailable:
        return False


def _await_empty(one: _Run, seconds: float) -> None:
    """A message may be in nobody's hands for a moment: the queues must stay empty for some looks."""
    empty = 0

    def is_empty() -> bool:
        nonlocal empty
        empty = 0 if one.stage.broker.messages() else empty + 1
        return empty >= LOOKS_MIN

    await_condition(is_empty, seconds, "the queues to be empty")


def _compared(one: _Run, load_seconds: float, quiet_seconds: float) -> Report:
    began = time.monotonic()
    one.progress.tell("comparing", _charged(0), len(one.faults.happened))
    files = list(archived(one.archiver.folder))
    facts = look(one.stage.database_url, one.stage.control, files)
    emitted = read_logs(one.stage.journaled_logs, one.stage.memory_logs)
    one.deferring.tell(emitted)
    wishes = read_wishes(one.stage.journaled_logs)
    verdict = compare(one.world, one.given, emitted, facts, asked=wishes, deferred=one.deferring.wishes)
    # What is deferred is asked of the database, past broker and workers, and its row changes once more.
    committed = {
        (row.tenant_id, row.key): row.committed_at
        for row in facts.events
        if row.committed_at is not None and (row.tenant_id, row.key) not in one.deferring.wishes
    }
    return Report(
        one.options,
        verdict,
        one.faults.happened,
        measured(one.faults.happened, emitted, committed),
        audit().differences,
        [*one.problems, *one.faults.problems],
        load_seconds,
        quiet_seconds,
        time.monotonic() - began,
        one.faults.wiped,
        _resent(one.stage),
        one.archiver.deaths,
        sum(1 for taken in facts.captured.values() if taken.successes > 1),
        one.calmed,
        one.is_finished,
    )


def _resent(made: Stage) -> int:
    """How many messages producers sent again, by their last words."""
    lines = (path.read_bytes().splitlines() for path in (*made.journaled_logs, *made.memory_logs))
    last = [said[-1] for said in lines if said]
    return sum(int(json.loads(line[2:])["resent"]) for line in last if line[:2] == b"R ")
