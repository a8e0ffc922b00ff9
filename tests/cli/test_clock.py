"""`centavo clock`: a sandbox in another time, its Stripe double along."""

from datetime import UTC, datetime, timedelta

import pytest

from sandbox.stripe_double.control import DoubleControl
from tests.cli.conftest import Command

SECONDS = 25 * 3600


@pytest.fixture
def double(billing_database: str, stripe_double: str) -> DoubleControl:
    return DoubleControl(stripe_double)


def said(command: Command, *arguments: str, **told: str) -> tuple[int, int]:
    """What a command of the clock leaves both clocks at: (ours, the double's), in seconds."""
    ended = command("clock", *arguments, "--json", **told)
    assert (ended.status, ended.err) == (0, "")
    return ended.json["offset_seconds"], ended.json["stripe_double_offset_seconds"]


def test_both_clocks_are_moved_and_shown(centavo: Command, double: DoubleControl) -> None:
    assert said(centavo, "show") == (0, 0)

    assert said(centavo, "advance", "1d", "1h") == (SECONDS, SECONDS)

    assert double.offset() == SECONDS
    words = " ".join(centavo("clock", "show").out.split())
    assert "moved by 1 day, 1:00:00 Stripe double moved along file" in words


@pytest.mark.parametrize("moment", ["2099-01-31T12:00", "2099-01-31T12:00Z", "2099-01-31T09:00-03:00"])
def test_the_clock_is_set_to_a_moment_in_utc_or_another_zone(
    centavo: Command, double: DoubleControl, moment: str
) -> None:
    shown = centavo("clock", "set", moment, "--json").json

    wanted = datetime(2099, 1, 31, 12, tzinfo=UTC)
    assert timedelta() <= datetime.fromisoformat(shown["now"]) - wanted < timedelta(minutes=1)
    assert shown["stripe_double_offset_seconds"] == shown["offset_seconds"]
    assert 0 <= double.now() - wanted.timestamp() < 60


def test_it_is_set_back_only_if_that_is_said(centavo: Command, double: DoubleControl) -> None:
    refused = centavo("clock", "set", "2001-01-01")
    assert (refused.status, refused.out) == (1, "")
    assert "say --back if that is wanted" in refused.err
    assert double.offset() == 0

    ours, doubles = said(centavo, "set", "2001-01-01", "--back")
    assert ours == doubles < 0


@pytest.mark.parametrize("first_moved_by", [SECONDS, 7, -7])
def test_a_move_that_was_cut_short_is_done_by_the_same_command(
    centavo: Command, double: DoubleControl, first_moved_by: int
) -> None:
    """The double is moved first, and whatever it stands at, by hand or by a crash, it ends where we are."""
    double.set_offset(first_moved_by)
    assert "the clocks differ: `centavo clock advance 0s`" in centavo("clock", "show").out

    assert said(centavo, "advance", "25h") == (SECONDS, SECONDS)
    double.set_offset(first_moved_by - 1)
    assert said(centavo, "advance", "0s") == (SECONDS, SECONDS)


def test_a_double_that_is_away_leaves_our_clock_alone(centavo: Command, billing_database: str) -> None:
    refused = centavo("clock", "advance", "1h", CENTAVO_STRIPE_API_BASE="http://127.0.0.1:1")

    assert refused.status == 75
    assert "no Stripe double answers at http://127.0.0.1:1" in refused.err
    assert said(centavo, "show") == (0, 0)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("set", "tomorrow"), "'tomorrow' is no moment; write it like"),
        (("advance", "3"), "'3' is no length of time; write it like"),
        (("advance", "1.5h"), "'1.5h' is no length of time"),
        (("advance", "999999w"), "36500 days at most"),
    ],
)
def test_what_is_no_time_is_refused_with_an_example(centavo: Command, arguments: tuple[str, ...], why: str) -> None:
    refused = centavo("clock", *arguments)

    assert (refused.status, refused.out) == (1, "")
    assert why in refused.err


@pytest.mark.parametrize("arguments", [("show",), ("set", "2099-01-01"), ("advance", "1h")], ids=" ".join)
@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({}, "no sandbox runs in"),
        ({"CENTAVO_ENVIRONMENT": "production"}, "in production no clock is moved"),
        ({"CENTAVO_CLOCK_FILE": "/tmp/clock.json"}, "CENTAVO_CLOCK_FILE: Value error, moves the clock; unset it"),
        ({"CENTAVO_ENVIRONMENT": "staging"}, "CENTAVO_CLOCK_FILE is not set"),
        ({"CENTAVO_ENVIRONMENT": "sandbox"}, "the clock of Stripe itself can't be moved"),
    ],
    ids=["nowhere", "production", "production, told a file", "staging", "without a double"],
)
def test_elsewhere_no_clock_is_moved(
    nowhere: Command, told: dict[str, str], why: str, arguments: tuple[str, ...]
) -> None:
    refused = nowhere("clock", *arguments, **told)

    assert (refused.status, refused.out) == (1, "")
    assert why in refused.err
