"""When the world is not as it should be: a sentence that says what to do, and no secret in it."""

from pathlib import Path

import pytest

from sandbox.processes import await_condition
from tests.cli.conftest import Command, run
from tests.conftest import WorkerStarter
from tests.factories import an_event

DATABASE_COMMANDS = [["status"], ["audit", "--json"], ["migrate"], ["parked", "list"], ["tenants", "create", "acme"]]


@pytest.mark.parametrize("arguments", DATABASE_COMMANDS, ids=" ".join)
def test_without_settings_the_missing_one_is_named(arguments: list[str], nowhere: Command, tmp_path: Path) -> None:
    """And how to come by it."""
    result = nowhere(*arguments)

    where = f"CENTAVO_DATABASE_URL is not set and no sandbox runs in {tmp_path}/no-sandbox/"
    assert result == (1, "", f"centavo: {where}; set it, or start a sandbox with `centavo up`\n")


def test_emitting_asks_for_the_broker_alone(nowhere: Command) -> None:
    """A producer's machine need not reach the database."""
    result = nowhere("emit", "-")

    assert result.status == 1
    assert result.err.startswith("centavo: CENTAVO_BROKER_URL is not set")


@pytest.mark.parametrize("arguments", DATABASE_COMMANDS, ids=" ".join)
def test_a_database_that_is_down_is_worth_another_try(arguments: list[str], nowhere: Command) -> None:
    """Exit status 75 (EX_TEMPFAIL), one sentence, and no password in it."""
    result = nowhere(*arguments, CENTAVO_DATABASE_URL="postgresql://ana:s3cret%40pass@127.0.0.1:1/centavo")

    assert (result.status, result.out) == (75, "")
    assert result.err.startswith("centavo: the database can't be used: ")
    assert result.err.count("\n") == 1
    assert "127.0.0.1" in result.err
    assert "s3cret" not in result.err


PASSWORDS = {
    "as it should be": "postgresql://ana:s3cretpass@127.0.0.1:1/centavo",
    "with an @ that is not escaped": "postgresql://ana:x@s3cretpass@127.0.0.1:1/centavo",
    "with a colon": "postgresql://ana:x:s3cretpass@127.0.0.1:1/centavo",
    "as a parameter": "postgresql:///centavo?host=127.0.0.1&port=1&password=s3cretpass",
    "with a percent sign": "postgresql://ana:%zz-s3cretpass@127.0.0.1:1/centavo",
}


@pytest.mark.parametrize("url", PASSWORDS.values(), ids=PASSWORDS)
def test_no_password_is_said_however_it_is_written(url: str, nowhere: Command) -> None:
    """Not even when the client takes a part of it for the host."""
    result = nowhere("status", CENTAVO_DATABASE_URL=url, CENTAVO_LOG_LEVEL="DEBUG")

    assert result.status == 75
    assert "s3cretpass" not in result.out + result.err


@pytest.mark.parametrize(
    "url",
    [
        "redis://:s3cretpass@127.0.0.1:1/0",
        "redis://ana:s3cretpass@127.0.0.1:1/0",
        "amqp://ana:s3cretpass@127.0.0.1:1//",
    ],
)
def test_a_broker_that_is_down_is_worth_another_try(url: str, centavo: Command) -> None:
    """Exit status 75, one sentence, no password."""
    result = centavo("status", CENTAVO_BROKER_URL=url, CENTAVO_LOG_LEVEL="DEBUG")

    assert (result.status, result.out) == (75, "")
    assert "the broker does not answer" in result.err
    assert "s3cretpass" not in result.err


def test_the_status_shows_no_password(centavo: Command, database: str, broker: str) -> None:
    """Of servers that do answer, in a table and as JSON."""
    told = {
        "CENTAVO_DATABASE_URL": database.replace("postgres@", "postgres:s3cretpass@"),
        "CENTAVO_BROKER_URL": broker.replace("redis://", "redis://default:s3cretpass@"),
    }
    assert told["CENTAVO_DATABASE_URL"] != database

    for arguments in (["status"], ["status", "--json"]):
        result = centavo(*arguments, CENTAVO_LOG_LEVEL="DEBUG", **told)

        assert result.status == 0
        assert "s3cretpass" not in result.out + result.err


def test_a_worker_without_its_database_logs_no_password(
    start_a_worker: WorkerStarter, centavo: Command, ana: str, broker: str
) -> None:
    """It waits for it, and says so; neither that password nor the broker's is in its log, in the finest detail."""
    worker = start_a_worker(
        queues="usage",
        CENTAVO_DATABASE_URL="postgresql://ana:s3cretpass@127.0.0.1:1/centavo",
        CENTAVO_BROKER_URL=broker.replace("redis://", "redis://default:s3cretpass@"),
        CENTAVO_LOG_LEVEL="DEBUG",
    )
    assert centavo("emit", "-", typed=an_event(ana).to_wire()).status == 0

    await_condition(lambda: "Connection refused" in worker.log_file.read_text(), 30, "the worker to miss its database")

    assert "s3cretpass" not in worker.log_file.read_text()


def test_an_empty_database_says_how_to_fill_it(nowhere: Command, empty_database: str) -> None:
    """A migration that has not run is waited for by workers; a person is told of it."""
    result = nowhere("audit", CENTAVO_DATABASE_URL=empty_database)

    assert result.status == 75
    assert "`centavo migrate`" in result.err
    assert result.err.count("\n") == 1


def test_a_setting_that_is_wrong_is_named(nowhere: Command) -> None:
    """By its variable; its value may be a secret."""
    result = nowhere("status", CENTAVO_LOG_LEVEL="s3cretpass", CENTAVO_SWEEP_SECONDS="soon")

    assert (result.status, result.out) == (1, "")
    assert result.err.startswith("centavo: CENTAVO_SWEEP_SECONDS: ") or "; CENTAVO_SWEEP_SECONDS: " in result.err
    assert "CENTAVO_LOG_LEVEL: " in result.err
    assert "s3cretpass" not in result.err


def test_no_command_at_all_shows_what_there_is(nowhere: Command) -> None:
    """Every command with a line about it; so does --help, which asks for no settings."""
    alone, helped = nowhere(), nowhere("--help", CENTAVO_LOG_LEVEL="wrong")

    assert alone.status == 2
    assert helped.status == 0
    for name in ("up", "down", "demo", "migrate", "worker", "beat", "emit", "audit", "status", "parked", "prices"):
        assert f"│ {name} " in helped.out
        assert f"│ {name} " in alone.out + alone.err


@pytest.mark.usefixtures("nowhere")
def test_the_program_itself_ends_so() -> None:
    """A process like any user's: the same sentence and status as above."""
    result = run("status", CENTAVO_DATABASE_URL="postgresql://ana:s3cretpass@127.0.0.1:1/centavo")

    assert result.status == 75
    assert result.err.startswith("centavo: the database can't be used: ")
    assert "s3cretpass" not in result.err
