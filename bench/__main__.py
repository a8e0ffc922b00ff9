"""`python -m bench`: the figures of the usage path, side by side in one run."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from bench import ceiling, drain, measure
from bench.emit import measure_emit
from bench.latency import measure_latency
from bench.locks import measure_locks
from bench.memory import measure_memory
from bench.naive import tables as naive_tables
from bench.naive import worker as naive_worker
from config import logging
from config.settings import use
from sandbox.postgres import PostgresServer
from sandbox.valkey import ValkeyServer

console = Console()
CUSTOMERS = 10_000
MANY_CUSTOMERS = 1_000_000
NAIVE_SHARE = 25
#: A million customers with their wallets and periods take 0.9 GB; a server that can't hold them measures its disk.
SERVER_SETTINGS = {"shared_buffers": "2GB"}
PARTS = ("drain", "many", "emit", "latency", "memory")


class Bench:
    """Servers of its own, a database for each subject, and events that never come twice."""

    def __init__(self, postgres: PostgresServer, valkey: ValkeyServer, events: int, rounds: int) -> None:
        self.postgres, self.valkey, self.events, self.rounds = postgres, valkey, events, rounds
        self._next_event = 0

    def first(self, events: int) -> int:
        """The number of the first of so many fresh events."""
        first, self._next_event = self._next_event, self._next_event + events
        return first

    def target(self, name: str, customers: int) -> drain.Target:
        """A database for the real thing."""
        self.postgres.create_database(name)
        target = drain.Target(self.postgres.uri(name), self.valkey.url, customers)
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
def _servers(events: int, rounds: int) -> Iterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="centavo-bench-") as folder:
        home = Path(folder)
        home.chmod(0o711)
        postgres = PostgresServer(home / "postgres", settings=SERVER_SETTINGS)
        with ValkeyServer(home / "valkey") as valkey:
            postgres.start()
            try:
                yield Bench(postgres, valkey, events, rounds)
            finally:
                postgres.destroy()


def main(
    events: Annotated[int, typer.Option(min=10_000, help="Events a round of the real thing.")] = 150_000,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; medians are told.")] = 3,
    only: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(PARTS)}; may be repeated.")] = None,
    memory_events: Annotated[int, typer.Option(min=200_000, help="Events for the growth of memory.")] = 1_000_000,
    json: Annotated[Path | None, typer.Option(help="Write the figures there, too.")] = None,
) -> None:
    """Measure the usage path beside a task-per-event worker and a frozen ceiling; all in this run, on this machine."""
    logging.configure("ERROR")
    wanted = set(only or PARTS)
    if unknown := wanted - set(PARTS):
        raise typer.BadParameter(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    result: dict[str, Any] = {"machine": measure.machine(), "events": events, "rounds": rounds}
    with _servers(events, rounds) as bench:
        if "drain" in wanted:
            figures = bench.drains(CUSTOMERS, with_naive=True)
            result["drain"] = {case: _show_drain(case, found, CUSTOMERS) for case, found in figures.items()}
            result["drain"]["hot_to_uniform"] = round(figures["hot"]["centavo"].times(figures["uniform"]["centavo"]), 3)
            console.print(f"hot / uniform: {result['drain']['hot_to_uniform']:.2f}")
            result["locks"] = _locks(bench)
        if "many" in wanted:
            figures = bench.drains(MANY_CUSTOMERS, with_naive=False)
            result["drain_many"] = {case: _show_drain(case, found, MANY_CUSTOMERS) for case, found in figures.items()}
        if "emit" in wanted:
            result["emit"] = _emit(bench)
        if "latency" in wanted:
            result["latency"] = _show(
                "emit to visible balance, 500 events/s", measure_latency(bench.target("latency", 10))
            )
        if "memory" in wanted:
            target = bench.target("memory", CUSTOMERS)
            memory = measure_memory(target, memory_events, first=bench.first(memory_events))
            result["memory"] = _show("memory of a pool child", memory) | {"grown_mb": memory.grown_mb}
    if json:
        measure.write_json(json, result)


def _show_drain(case: str, figures: dict[str, measure.Figure], customers: int) -> dict[str, Any]:
    baseline = "naive" if "naive" in figures else "ceiling"
    title = f"drain, {case}, {customers:,} customers"
    console.print(measure.figures_table(title, "events/s", figures, baseline=baseline))
    centavo = figures["centavo"]
    said = {name: round(figure.median, 1) for name, figure in figures.items()}
    ratios = {
        f"centavo_to_{name}": round(centavo.times(figure), 3) for name, figure in figures.items() if name != "centavo"
    }
    console.print("  ".join(f"{name}: {ratio:.2f}" for name, ratio in ratios.items()))
    return {**said, **ratios, "rounds": {name: list(figure.rounds) for name, figure in figures.items()}}


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


def _emit(bench: Bench) -> dict[str, Any]:
    return {
        case: _show(f"emit, broker {case}", measure_emit(url))
        for case, url in (("up", bench.valkey.url), ("down", None))
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
