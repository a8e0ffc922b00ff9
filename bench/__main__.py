"""`python -m bench`: the figures of the usage path, side by side in one run."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from bench import asked, ceiling, desk, drain, grown, measure, months, shards, single
from bench.brokers import Broker, a_rabbitmq
from bench.emit import measure_emit
from bench.latency import measure_latency
from bench.locks import measure_locks
from bench.memory import measure_memory
from bench.naive import tables as naive_tables
from bench.naive import worker as naive_worker
from config import logging
from config.settings import use
from db import session
from sandbox.postgres import PostgresServer
from sandbox.valkey import ValkeyServer
from services.oversight.audit import audit

console = Console()
CUSTOMERS = 10_000
MANY_CUSTOMERS = 1_000_000
NAIVE_SHARE = 25
#: A million customers with their wallets and periods take 0.9 GB; a server that can't hold them measures its disk.
SERVER_SETTINGS = {"shared_buffers": "2GB"}
PARTS = ("drain", "many", "shards", "desk", "single", "emit", "latency", "memory", "months", "grown", "asked")
SUBSCRIPTIONS = 100_000
SHARDED = "centavo, two shards"


class Bench:
    """Servers of its own, a database for each subject, and events that never come twice.

    `broker` is that of single events; all else runs on Valkey.
    """

    def __init__(
        self, postgres: PostgresServer, valkey: ValkeyServer, broker: Broker, events: int, rounds: int
    ) -> None:
        self.postgres, self.valkey, self.broker, self.events, self.rounds = postgres, valkey, broker, events, rounds
        self._next_event = 0

    def first(self, events: int) -> int:
        """The number of the first of so many fresh events."""
        first, self._next_event = self._next_event, self._next_event + events
        return first

    def target(self, name: str, customers: int, broker_url: str | None = None) -> drain.Target:
        """A database for the real thing."""
        self.postgres.create_database(name)
        target = drain.Target(self.postgres.uri(name), broker_url or self.valkey.url, customers)
        use(database_url=target.database_url, broker_url=target.broker_url, environment="sandbox")
        drain.create(target)
        return target

    def drains(self, customers: int, *, with_naive: bool) -> dict[str, dict[str, measure.Figure]]:
        """Rounds of every subject in turns, on uniform events and with half of them on one customer."""
        target = self.target(f"centavo_{customers}", customers)
        for name in ("ceiling", "naive"):
            self.postgres.create_database(f"{name}_{customers}")
        ceiling_url = self.postgres.uri(f"ceiling_{customers}")
        naive_url = self.postgres.uri(f"naive_{customers}")
        ceiling.create(ceiling_url, customers)
        if with_naive:
            naive_tables.create(naive_url, customers)
        naive_events = max(1000, self.events // NAIVE_SHARE)
        ceiling_events = max(30_000, self.events // 1000 * 1000)
        figures = {}
        for case, hot in (("uniform", False), ("hot", True)):
            subjects: dict[str, Any] = {
                "centavo": lambda _, hot=hot: drain.drain(target, self.events, hot=hot, first=self.first(self.events)),
                "ceiling": lambda _, hot=hot: ceiling.run(
                    ceiling_url, events=ceiling_events, customers=customers, hot=hot, first=self.first(ceiling_events)
                ),
            }
            if with_naive:
                subjects[SHARDED] = lambda _, hot=hot: shards.drain_sharded(
                    target, self.events, hot=hot, first=self.first(self.events)
                )
                subjects["naive"] = lambda _, hot=hot: (
                    naive_worker.drain(
                        naive_url,
                        self.valkey.url,
                        events=naive_events,
                        customers=customers,
                        hot=hot,
                        first=self.first(naive_events),
                    ).events_per_second
                )
            console.print(f"[bold]·[/] draining, {case}, {customers:,} customers")
            figures[case] = measure.alternate(subjects, self.rounds)
        return figures


@contextmanager
def _servers(events: int, rounds: int, broker: str) -> Iterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="centavo-bench-") as folder:
        home = Path(folder)
        home.chmod(0o711)
        postgres = PostgresServer(home / "postgres", settings=SERVER_SETTINGS)
        with ValkeyServer(home / "valkey") as valkey, ExitStack() as more:
            chosen = more.enter_context(a_rabbitmq(home)) if broker == "rabbitmq" else Broker(valkey.url)
            postgres.start()
            try:
                yield Bench(postgres, valkey, chosen, events, rounds)
            finally:
                postgres.destroy()


def main(
    events: Annotated[int, typer.Option(min=10_000, help="Events a round of the real thing.")] = 400_000,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; medians are told.")] = 3,
    only: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(PARTS)}; may be repeated.")] = None,
    broker: Annotated[
        Literal["valkey", "rabbitmq"], typer.Option(help="Of single events; the other parts run on Valkey alone.")
    ] = "valkey",
    memory_events: Annotated[int, typer.Option(min=200_000, help="Events for the growth of memory.")] = 1_000_000,
    grown_events: Annotated[int, typer.Option(min=100_000, help="Events in tables that have grown.")] = 10_000_000,
    asked_seconds: Annotated[float, typer.Option(min=1, help="Seconds a round of questions over HTTP.")] = 10,
    json: Annotated[Path | None, typer.Option(help="Write the figures there, too.")] = None,
) -> None:
    """Measure the usage path beside a task-per-event worker and a frozen ceiling; all in this run, on this machine."""
    logging.configure("ERROR")
    wanted = _wanted(only, broker)
    result: dict[str, Any] = {"machine": measure.machine(), "events": events, "rounds": rounds, "broker": broker}
    with _servers(events, rounds, broker) as bench:
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "drain": lambda: _drain(bench),
            "many": lambda: {"drain_many": _drain_many(bench)},
            "shards": lambda: {"shards": _shards(bench)},
            "desk": lambda: {"desk": _desk(bench)},
            "single": lambda: {"single": _single(bench)},
            "emit": lambda: {"emit": _emit(bench)},
            "latency": lambda: {"latency": _latency(bench)},
            "memory": lambda: {"memory": _memory(bench, memory_events)},
            "months": lambda: {"months": _months(bench)},
            "grown": lambda: {"grown": _grown(bench, grown_events)},
            "asked": lambda: {"asked": _asked(bench, asked_seconds)},
        }
        for name in PARTS:
            if name in wanted:
                result |= parts[name]()
    if json:
        measure.write_json(json, result)


def _wanted(only: list[str] | None, broker: str) -> set[str]:
    wanted = set(only or (PARTS if broker == "valkey" else ["single"]))
    if broker != "valkey" and wanted != {"single"}:
        raise typer.BadParameter("on RabbitMQ there is the part single, and no other")
    if unknown := wanted - set(PARTS):
        raise typer.BadParameter(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    return wanted


def _drain(bench: Bench) -> dict[str, Any]:
    figures = bench.drains(CUSTOMERS, with_naive=True)
    shown: dict[str, Any] = {case: _show_drain(case, found, CUSTOMERS) for case, found in figures.items()}
    shown["hot_to_uniform"] = round(figures["hot"]["centavo"].times(figures["uniform"]["centavo"]), 3)
    console.print(f"hot / uniform: {shown['hot_to_uniform']:.2f}")
    return {"drain": shown, "locks": _locks(bench)}


def _drain_many(bench: Bench) -> dict[str, Any]:
    figures = bench.drains(MANY_CUSTOMERS, with_naive=False)
    return {case: _show_drain(case, found, MANY_CUSTOMERS) for case, found in figures.items()}


def _latency(bench: Bench) -> dict[str, Any]:
    return _show("emit to visible balance, 500 events/s", measure_latency(bench.target("latency", 10)))


def _memory(bench: Bench, events: int) -> dict[str, Any]:
    target = bench.target("memory", CUSTOMERS)
    memory = measure_memory(target, events, first=bench.first(events))
    return _show("memory of a pool child", memory) | {"grown_mb": memory.grown_mb}


def _show_drain(case: str, figures: dict[str, measure.Figure], customers: int) -> dict[str, Any]:
    baseline = "naive" if "naive" in figures else "ceiling"
    title = f"drain, {case}, {customers:,} customers"
    console.print(measure.figures_table(title, "events/s", figures, baseline=baseline))
    said = {name: round(figure.median, 1) for name, figure in figures.items()}
    ratios = {
        f"{ours} to {other}": round(figures[ours].times(figures[other]), 3)
        for ours in ("centavo", SHARDED)
        for other in figures
        if ours in figures and other not in {"centavo", SHARDED}
    }
    console.print("  ".join(f"{name}: {ratio:.2f}" for name, ratio in ratios.items()))
    return {**said, **ratios, "rounds": {name: list(figure.rounds) for name, figure in figures.items()}}


def _single(bench: Bench) -> dict[str, Any]:
    events = max(10_000, bench.events // 10)
    broker = bench.broker
    target = bench.target("single", CUSTOMERS, broker.url)
    naive_events = max(1000, events // 5)
    bench.postgres.create_database("naive_single")
    naive_url = bench.postgres.uri("naive_single")
    naive_tables.create(naive_url, CUSTOMERS)
    console.print("[bold]·[/] an event an envelope")
    subjects: dict[str, Any] = {
        "centavo": lambda _: single.drain_single(target, broker, events, first=bench.first(events)),
        "idle task": lambda _: single.drain_idle(broker, events, first=0, customers=CUSTOMERS),
        "naive": lambda _: single.drain_naive(
            naive_url, broker, naive_events, first=bench.first(naive_events), customers=CUSTOMERS
        ),
    }
    return _show_drain("an event an envelope", measure.alternate(subjects, bench.rounds), CUSTOMERS)


def _desk(bench: Bench) -> dict[str, Any]:
    made = {"plain": None, "quota": desk.with_quota, "quotas": desk.with_quotas, "holds": desk.with_holds}
    targets = {}
    for name, prepare in made.items():
        targets[name] = bench.target(f"desk_{name}", CUSTOMERS)
        if prepare is not None:
            prepare(targets[name])
    subjects: dict[str, Any] = {
        name: lambda _, target=target, make=desk.capturing_event if name == "holds" else desk.plain_event: desk.drained(
            target, bench.events, bench.first(bench.events), make
        )
        for name, target in targets.items()
    }
    console.print("[bold]·[/] with quotas, budgets and holds in use")
    figures = measure.alternate(subjects, bench.rounds)
    console.print(measure.figures_table(f"draining, {CUSTOMERS:,} customers", "events/s", figures, baseline="plain"))
    ratios = {f"{name} / plain": round(figures[name].times(figures["plain"]), 3) for name in made if name != "plain"}
    return ratios | {"rounds": {name: list(figure.rounds) for name, figure in figures.items()}}


def _shards(bench: Bench) -> dict[str, Any]:
    target = bench.target("shards", CUSTOMERS)
    ways = {
        "one worker": shards.drain_plain,
        "two, a shard each": shards.drain_sharded,
        "two, both shards": shards.drain_shared,
    }
    subjects = {
        f"{name}, {case}": lambda _, way=way, hot=hot: way(
            target, bench.events, hot=hot, first=bench.first(bench.events)
        )
        for case, hot in (("uniform", False), ("hot", True))
        for name, way in ways.items()
    }
    console.print("[bold]·[/] shards")
    figures = measure.alternate(subjects, bench.rounds)
    title = f"two workers on two shards, {CUSTOMERS:,} customers"
    console.print(measure.figures_table(title, "events/s", figures, baseline="one worker, uniform"))
    pairs = [(f"{name}, uniform", "one worker, uniform") for name in ways if name != "one worker"]
    pairs += [(f"{name}, hot", f"{name}, uniform") for name in ways]
    ratios = {f"{one} / {other}": round(figures[one].times(figures[other]), 3) for one, other in pairs}
    for said, ratio in ratios.items():
        console.print(f"{said}: {ratio:.2f}")
    return ratios | {"rounds": {name: list(figure.rounds) for name, figure in figures.items()}}


def _grown(bench: Bench, events: int) -> dict[str, Any]:
    targets = {name: bench.target(name, CUSTOMERS) for name in ("grown", "empty")}
    console.print(f"[bold]·[/] filling in {events:,} events")
    filled = _show(f"{events:,} events of a year", grown.grow(targets["grown"], events))
    subjects: dict[str, Any] = {
        name: lambda _, target=target: drain.drain(target, bench.events, first=bench.first(bench.events))
        for name, target in targets.items()
    }
    figures = measure.alternate(subjects, bench.rounds)
    console.print(measure.figures_table("drain, uniform", "events/s", figures, baseline="empty"))
    ratio = round(figures["grown"].times(figures["empty"]), 3)
    console.print(f"grown / empty: {ratio:.2f}")
    rounds = {name: list(figure.rounds) for name, figure in figures.items()}
    return filled | {"grown_to_empty": ratio, "rounds": rounds} | _audit(targets["grown"])


def _audit(target: drain.Target) -> dict[str, Any]:
    """Of what has grown, and was charged on top of it."""
    use(database_url=target.database_url, broker_url=target.broker_url, environment="sandbox")
    session.close()
    result = audit()
    session.close()
    seconds = round(sum(result.seconds.values()), 1)
    console.print(f"audit of {result.counts['events']:,} events: {result.differences:,} differences, {seconds:,.1f} s")
    return {"audit_seconds": seconds, "audit_differences": result.differences}


def _locks(bench: Bench) -> dict[str, Any]:
    target = bench.target("locks", CUSTOMERS)
    events = min(bench.events, 50_000)
    return {
        case: _show(
            f"wallets locked per envelope of 500, {case}",
            measure_locks(target, events, hot=hot, first=bench.first(events)),
        )
        for case, hot in (("uniform", False), ("hot", True))
    }


def _months(bench: Bench) -> dict[str, Any]:
    bench.postgres.create_database("months")
    target = drain.Target(bench.postgres.uri("months"), bench.valkey.url, SUBSCRIPTIONS)
    use(database_url=target.database_url, broker_url=target.broker_url, environment="sandbox")
    months.create(target)
    return _show(f"{SUBSCRIPTIONS:,} subscriptions fall due", months.measure_months(target))


def _asked(bench: Bench, seconds: float) -> dict[str, Any]:
    target = bench.target("asked", CUSTOMERS)
    ways = {"can_afford": asked.can_afford, "bare route": asked.bare}
    kept: dict[str, list[asked.Answers]] = {name: [] for name in ways}

    def one(name: str) -> float:
        # More events than can be emitted in a round: no key comes twice.
        first = bench.first(int(asked.EVENTS_PER_SECOND * (seconds + 60)))
        with tempfile.TemporaryDirectory(prefix="centavo-bench-") as folder:
            answers = ways[name](target, Path(folder), seconds=seconds, first=first)
        kept[name].append(answers)
        return answers.per_second

    console.print(f"[bold]·[/] asked over HTTP, {asked.CONNECTIONS} connections")
    subjects: dict[str, Any] = {name: lambda _, name=name: one(name) for name in ways}
    figures = measure.alternate(subjects, bench.rounds)
    title = f"asked, while {asked.EVENTS_PER_SECOND:,} events/s are emitted"
    console.print(measure.figures_table(title, "requests/s", figures, baseline="bare route"))
    told = {name: _middle(answers) for name, answers in kept.items()}
    for name, said in told.items():
        _show(f"{name}: the round in the middle", said)
    ratio = round(figures["can_afford"].times(figures["bare route"]), 3)
    return {name: asdict(said) for name, said in told.items()} | {"can_afford to bare": ratio}


def _middle(answers: list[asked.Answers]) -> asked.Answers:
    return sorted(answers, key=lambda one: one.per_second)[len(answers) // 2]


def _emit(bench: Bench) -> dict[str, Any]:
    up = bench.valkey.url
    return {
        case: _show(f"emit, broker {case}", measure_emit(url, shards=shards))
        for case, url, shards in (("up", up, 1), ("down", None, 1), ("up, 8 shards", up, 8))
    }


def _show(title: str, measured: Any) -> dict[str, Any]:
    said: dict[str, Any] = asdict(measured)
    table = Table(title=title, show_header=False)
    for name, value in said.items():
        table.add_row(name.replace("_", " "), f"{value:,.2f}" if isinstance(value, float) else f"{value:,}")
    console.print(table)
    return said


if __name__ == "__main__":
    typer.run(main)
