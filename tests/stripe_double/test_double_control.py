"""The double's clock, its ledger of money, and what it noted of the calls."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import requests
import stripe

from cli.double import app as command
from sandbox.stripe_double.control import CONFIRM, CREATE, DoubleControl, LedgerEntry
from sandbox.stripe_double.launch import start
from sandbox.stripe_double.traffic import LoggedCall

DAY_SECONDS = 24 * 60 * 60
NEW_YEAR = 1_798_761_600


def create(client: stripe.StripeClient, payment_id: str = "p-2", key: str | None = None) -> stripe.PaymentIntent:
    asked: Any = {
        "amount": 500,
        "currency": "brl",
        "allowed_payment_method_types": ["card"],
        "metadata": {"payment_id": payment_id, "tenant": "acme"},
    }
    return client.v1.payment_intents.create(asked, {"idempotency_key": key} if key else {})


def test_the_clock_is_set_and_goes_on_from_there(client: stripe.StripeClient, control: DoubleControl) -> None:
    assert control.set_clock(NEW_YEAR) == NEW_YEAR

    control.advance(DAY_SECONDS)

    assert 0 <= control.now() - NEW_YEAR - DAY_SECONDS < 60
    made = client.v1.customers.create({"name": "Ana"})
    assert 0 <= made.created - NEW_YEAR - DAY_SECONDS < 60


def test_a_key_is_forgotten_when_the_clock_has_crossed_a_day(
    client: stripe.StripeClient, control: DoubleControl
) -> None:
    first = create(client, key="k")
    control.advance(DAY_SECONDS - 60)
    same = create(client, key="k")

    control.advance(60)

    assert first.id == same.id != create(client, key="k").id


def test_the_ledger_shows_every_payment_with_all_its_charges(
    client: stripe.StripeClient, intent: str, control: DoubleControl
) -> None:
    with pytest.raises(stripe.CardError):
        client.v1.payment_intents.confirm(intent, {"payment_method": "pm_card_chargeDeclined"})
    client.v1.payment_intents.confirm(intent, {"payment_method": "pm_card_visa"})
    client.v1.refunds.create({"payment_intent": intent, "amount": 1000})
    with pytest.raises(stripe.CardError):
        client.v1.payment_intents.confirm(create(client).id, {"payment_method": "pm_card_chargeDeclined"})
    create(client, "p-3")

    assert control.ledger() == {
        "p-1": LedgerEntry("brl", 2, 40000, 1000, 0, [intent]),
        "p-2": LedgerEntry("brl", 1, 0, 0, 0, []),
    }


def test_the_ledger_shows_a_payment_that_was_collected_twice(
    client: stripe.StripeClient, control: DoubleControl
) -> None:
    twice = [create(client).id for _ in range(2)]
    for one in twice:
        client.v1.payment_intents.confirm(one, {"payment_method": "pm_card_visa"})

    assert control.ledger()["p-2"] == LedgerEntry("brl", 2, 1000, 0, 0, twice)
    assert list(control.ledger("tenant")) == ["acme"]


def test_calls_are_logged_with_their_key_times_and_end(client: stripe.StripeClient, control: DoubleControl) -> None:
    control.set_clock(NEW_YEAR)
    began = time.monotonic()
    made = create(client, key="k")
    create(client, key="k")
    control.add_fault("drop_after", "POST", CONFIRM)
    with pytest.raises(stripe.APIConnectionError):
        client.v1.payment_intents.confirm(made.id, {"payment_method": "pm_card_visa"}, {"idempotency_key": "c"})

    first, again, dropped = control.calls()

    assert (first.method, first.template, first.idempotency_key, first.status) == ("POST", CREATE, "k", 200)
    assert (first.is_replayed, again.is_replayed) == (False, True)
    assert dropped.path == f"/v1/payment_intents/{made.id}/confirm"
    assert (dropped.status, dropped.fault) == (None, "drop_after")
    assert began < first.monotonic < again.monotonic < dropped.monotonic < time.monotonic()
    assert 0 <= first.at - NEW_YEAR < 60
    assert control.calls(CREATE) == [first, again]
    assert control.calls(after=again.number) == [dropped]


def test_rates_are_the_most_calls_in_any_second(client: stripe.StripeClient, control: DoubleControl) -> None:
    began = time.monotonic()
    for _ in range(5):
        create(client)
    client.v1.customers.create({"name": "Ana"})
    took = time.monotonic() - began

    rates = control.rates()

    assert rates.calls == 6
    assert rates.by_route == {f"POST {CREATE}": 5, "POST /v1/customers": 1} or took > 1
    assert rates.per_second_max == 6 or took > 1


def test_calls_are_forgotten_to_measure_what_follows(client: stripe.StripeClient, control: DoubleControl) -> None:
    create(client)

    control.forget_calls()

    assert (control.calls(), control.rates().calls) == ([], 0)
    create(client)
    assert control.rates().per_second_max == 1


def test_what_is_logged_is_a_value(control: DoubleControl, http: requests.Session, url: str) -> None:
    http.get(f"{url}/v1/customers")

    [call] = control.calls()

    assert isinstance(call, LoggedCall)
    assert (call.status, call.template) == (401, "/v1/customers")


def test_a_double_in_another_process_is_controlled_alike(tmp_path: Path) -> None:
    running = start(tmp_path / "ready")
    try:
        assert DoubleControl(running.base_url).set_clock(NEW_YEAR) == NEW_YEAR
    finally:
        running.stop()


RUN = "import typer; from cli.double import app; app.callback()(lambda: None); app()"


def run(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
    """The command by itself, whether the command line knows it already or not."""
    return subprocess.Popen(
        [sys.executable, "-c", RUN, "stripe-double", *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_command_says_where_it_serves_and_ends_on_ctrl_c() -> None:
    assert [one.name for one in command.registered_commands] == ["stripe-double"]
    with run("--port", "0") as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        # Not by `communicate`: it knows nothing of what `readline` has read ahead.
        rest = process.stdout.read()
        _, problems = process.communicate(timeout=20)

    assert "It is not Stripe, and no money moves" in said
    assert "4242424242424242  visa" in rest
    assert "Traceback" not in problems


def test_the_command_does_not_serve_in_production() -> None:
    with run("--port", "0", CENTAVO_ENVIRONMENT="production") as process:
        said, problems = process.communicate(timeout=20)

    assert (process.returncode != 0, said) == (True, "")
    assert "CENTAVO_ENVIRONMENT is production" in problems
