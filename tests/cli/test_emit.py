"""`emit`: from a file or a pipe to the workers; a bad line is named and costs the others nothing."""

import time
from decimal import Decimal
from pathlib import Path

import pytest
import redis

from tests.cli.conftest import Command, ended, started
from tests.conftest import WorkerStarter
from tests.factories import an_event, tokens
from tests.looking import one, parked_reasons, wallet

NOWHERE = "redis://:s3cretpass@127.0.0.1:1/0"


def lines(*events: bytes) -> bytes:
    return b"".join(event + b"\n" for event in events)


def await_recorded(number: int) -> None:
    until = time.monotonic() + 20
    while one("SELECT count(*) FROM usage_events")[0] < number:
        assert time.monotonic() < until, "the events were not recorded in 20 s"
        time.sleep(0.02)


def test_events_of_a_file_and_of_a_pipe_are_charged(
    centavo: Command, ana: str, tmp_path: Path, start_a_worker: WorkerStarter
) -> None:
    """By a real worker, in another process; each once, although one comes by both ways."""
    start_a_worker(queues="usage")
    first, second = an_event(ana, key="1").to_wire(), an_event(ana, key="2", items=[tokens(500)]).to_wire()
    file = tmp_path / "usage.jsonl"
    file.write_bytes(lines(first, b"", first))

    by_file = centavo("emit", str(file))
    with started("emit", "-") as process:
        by_pipe = ended(process, lines(first, second))

    assert by_file == (0, "2 events emitted, 0 of them not taken by the broker, 0 lines left out\n", "")
    assert by_pipe == by_file
    await_recorded(2)
    assert wallet(ana) == Decimal("9.955")
    assert parked_reasons() == {}


def test_a_bad_line_is_named_and_the_others_are_sent(centavo: Command, ana: str, broker: str) -> None:
    """Each kind of wrongness by its line number and in words; exit status 1."""
    good = an_event(ana).to_wire()
    bad = {
        b"not json": "not JSON that can be read",
        b"\xff\xfe": "not JSON that can be read",
        b'{"tenant_id":"acme"}': "key: Field required",
        good.replace(b'"1000"', b'"-5"'): "items.0.quantity: Input should be greater than or equal to 0",
        b'"an event"': "an event is a JSON object, not 'an event'",
        good[:-1] + rb',"\u001b[31m":1}': r"\x1b[31m: Extra inputs are not permitted",
    }
    typed = lines(good, *bad, an_event(ana).to_wire())

    result = centavo("emit", "-", typed=typed)

    assert result.status == 1
    assert result.out == "2 events emitted, 0 of them not taken by the broker, 6 lines left out\n"
    said = result.err.splitlines()
    assert [line.partition(": ")[0] for line in said] == [f"line {number}" for number in range(2, 8)]
    for line, words in zip(said, bad.values(), strict=True):
        assert words in line
    with redis.Redis.from_url(broker) as client:
        assert client.llen("usage") == 1


def test_of_many_bad_lines_the_first_are_named(centavo: Command) -> None:
    """The rest is counted."""
    result = centavo("emit", "-", typed=b"x\n" * 25)

    assert result.status == 1
    assert len(result.err.splitlines()) == 11
    assert result.err.endswith("… and 15 lines more\n")
    assert "25 lines left out" in result.out


@pytest.mark.parametrize("source", ["nothing-here.jsonl", "."])
def test_a_file_that_is_not_there_is_named(source: str, centavo: Command) -> None:
    """And what else could be given."""
    result = centavo("emit", source)

    assert result == (1, "", f"centavo: there is no file {source}; give one, or - for standard input\n")


def test_a_broker_that_is_away_is_no_success(centavo: Command, ana: str) -> None:
    """Exit status 75: try again later. What was not sent is counted, and no password is shown."""
    typed = lines(an_event(ana).to_wire())

    result = centavo("emit", "-", "--wait", "0.5", typed=typed, CENTAVO_BROKER_URL=NOWHERE)

    assert result.status == 75
    assert result.out == "1 events emitted, 1 of them not taken by the broker, 0 lines left out\n"
    assert "127.0.0.1:1" in result.err
    assert "emit the same lines again" in result.err
    assert "s3cretpass" not in result.out + result.err
    assert "Traceback" not in result.err


def test_a_broker_url_that_is_none_is_said_without_it(centavo: Command) -> None:
    """It may be the password that stands there."""
    result = centavo("emit", "-", CENTAVO_BROKER_URL="s3cretpass")

    assert result.status == 1
    assert result.err.startswith("centavo: CENTAVO_BROKER_URL is wrong: ")
    assert "s3cretpass" not in result.err
