"""`emit`: usage events from a file or a pipe."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from billing.errors import BrokerUnavailable, EventMalformed, Rejected
from centavo import Producer
from centavo.errors import BufferFull
from cli.show import console, errors, plain
from config.settings import settings
from services.metering.envelopes import read_by_contract

app = typer.Typer()

LINES_SHOWN_MAX = 10


@app.command()
def emit(
    source: Annotated[str, typer.Argument(help="A file with one usage event as JSON a line, or - for standard input.")],
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for a broker that takes nothing.")] = 30,
) -> None:
    """Send usage events to the workers; lines that are no events are named and left out (exit status 1)."""
    with _opened(source) as lines, _producer(wait) as producer:
        try:
            wrong = _emit(lines, producer)
        except BufferFull as error:
            producer.close(timeout=0)
            raise BrokerUnavailable(str(error)) from error
        unsent = producer.flush(wait)
        emitted = producer.counters.emitted
        producer.close(timeout=0)
    console.print(f"{emitted} events emitted, {unsent} of them not taken by the broker, {wrong} lines left out")
    if unsent:
        raise BrokerUnavailable("emit the same lines again when the broker is back: what it has taken counts once")
    if wrong:
        raise typer.Exit(1)


def _emit(lines: Iterable[bytes], producer: Producer) -> int:
    """Emit what is an event; how many lines are none."""
    wrong = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            producer.emit(read_by_contract(line))
        except EventMalformed as error:
            wrong += 1
            if wrong <= LINES_SHOWN_MAX:
                errors.print(f"line {number}: {plain(str(error))}", soft_wrap=True)
    if wrong > LINES_SHOWN_MAX:
        errors.print(f"… and {wrong - LINES_SHOWN_MAX} lines more")
    return wrong


@contextmanager
def _opened(source: str) -> Iterator[Iterable[bytes]]:
    """The lines as bytes: one that is no UTF-8 is wrong by itself, and costs the others nothing."""
    if source == "-":
        yield sys.stdin.buffer
        return
    path = Path(source)
    if not path.is_file():
        raise Rejected(f"there is no file {source}; give one, or - for standard input")
    try:
        file = path.open("rb")
    except OSError as error:
        raise Rejected(f"{source} can't be read: {error.strerror}") from error
    with file:
        yield file


def _producer(wait: float) -> Producer:
    try:
        chosen = settings()
        url, queue = chosen.required("broker_url"), chosen.usage_queue
        return Producer(url, queue=queue, shards=chosen.usage_shards, block_seconds=wait)
    except ValueError as error:
        raise Rejected(f"CENTAVO_BROKER_URL is wrong: {error}") from error
