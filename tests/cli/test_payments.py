"""`payments …` and `alerts …`, as a person who looks after payments uses them."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from billing.payments import PaymentState
from config.settings import settings
from sandbox.stripe_double.control import DoubleControl
from services.collecting.disputes import look
from services.collecting.gateways import gateway
from services.collecting.refunds import claim_due
from tests.cli.conftest import Command
from tests.factories import TENANT
from tests.looking import one, rows, wallet
from tests.services.collecting import FEE, GOOD, captured, owing, payment, pays_with, taken


@pytest.fixture
def collected(billing_database: str) -> UUID:
    """A tier payment of BRL 100.00 that has come in."""
    (due,) = owing()
    assert taken(due) is PaymentState.SUCCEEDED
    return due


def test_payments_are_listed_for_people_and_for_programs(centavo: Command) -> None:
    """Within 80 columns, ids in one piece, amounts as people write them; of one state or customer if asked."""
    first, second = owing(tiers=2)
    taken(first)

    everything = centavo("payments", "list")
    due = centavo("payments", "list", "--state", "due", "--json").json
    strangers = centavo("payments", "list", "--customer", "eva")

    assert (everything.status, everything.err) == (0, "")
    lines = everything.out.splitlines()
    assert max(len(line) for line in lines) <= 80
    (line,) = [line for line in lines if str(first) in line]
    assert line.split() == [str(first), "ana", "tier", "1", "BRL", "100.00", "succeeded"]
    assert [(row["payment_id"], row["amount_minor"], row["currency"]) for row in due] == [(str(second), FEE, "BRL")]
    assert strangers.out == "there are no such payments\n"
    assert "these are the newest 1" in centavo("payments", "list", "--limit", "1").out


def test_one_payment_is_shown_by_its_id_or_its_intents(centavo: Command, collected: UUID) -> None:
    intent_id = payment(collected, "stripe_payment_intent_id")[0]

    by_id, by_intent = centavo("payments", "show", str(collected)), centavo("payments", "show", intent_id)

    assert by_id == by_intent
    words = " ".join(by_id.out.split())
    for said in ("amount BRL 100.00", "state succeeded", f"PaymentIntent {intent_id}", "refunded BRL 0.00"):
        assert said in words
    assert centavo("payments", "show", str(collected), "--json").json["state"] == "succeeded"


@pytest.mark.parametrize("command", ["show", "explain", "approve", "void --reason x", "refund --key k"])
@pytest.mark.parametrize("name", ["nonsense", "pi_nobodys", str(UUID(int=7))])
def test_an_unknown_payment_is_an_error(centavo: Command, command: str, name: str) -> None:
    verb, *options = command.split()

    ended = centavo("payments", verb, name, *options)

    assert (ended.status, ended.out) == (1, "")
    assert "there is no such payment" in ended.err.lower()
    assert name in ended.err


def test_a_refund_goes_back_once_and_says_what_is_left(centavo: Command, collected: UUID) -> None:
    part = [centavo("payments", "refund", str(collected), "40.00", "--key", "part") for _ in range(2)]
    too_much = centavo("payments", "refund", str(collected), "60.01", "--key", "more")
    unwritten = centavo("payments", "refund", str(collected), "1.005", "--key", "odd")
    rest = centavo("payments", "refund", str(collected), "--key", "rest", "--reason", "duplicate")

    assert part == [(0, f"BRL 40.00 of payment {collected} went back\n", "")] * 2
    assert (too_much.status, too_much.out) == (1, "")
    assert "left BRL 60.00" in too_much.err
    assert "two decimal places" in unwritten.err
    assert rest.out == f"BRL 60.00 of payment {collected} went back\n"
    assert payment(collected, "state, refunded_minor") == ("refunded", FEE)
    assert rows("SELECT amount_minor, reason FROM refunds ORDER BY created_at") == [
        (4_000, "requested_by_customer"),
        (6_000, "duplicate"),
    ]


def test_a_refund_while_stripe_is_away_is_left_to_the_sweep(centavo: Command, collected: UUID) -> None:
    ended = centavo("payments", "refund", str(collected), "--key", "k", CENTAVO_STRIPE_API_BASE="http://127.0.0.1:9")

    assert (ended.status, "goes back as soon as Stripe answers" in ended.out) == (0, True)
    assert payment(collected, "state") == ("succeeded",)
    assert claim_due(datetime.now(UTC)) == []
    assert one("SELECT state, due_at > created_at FROM refunds") == ("submitting", True)


def test_a_refund_that_stripe_refuses_is_an_error(centavo: Command, collected: UUID) -> None:
    DoubleControl(str(settings().stripe_api_base)).open_dispute(payment(collected, "stripe_payment_intent_id")[0])

    ended = centavo("payments", "refund", str(collected), "--key", "k")

    assert ended.status == 1
    assert "did not go back; `centavo alerts list acme` says why" in ended.err
    assert "charge_disputed" in centavo("alerts", "list", "acme").out


def test_collecting_is_paused_and_goes_on(centavo: Command) -> None:
    """And whoever looks at payments meanwhile is told."""
    (due,) = owing()

    assert centavo("payments", "pause", "--reason", "a mistake in the prices").status == 0
    assert taken(due) is PaymentState.DUE
    listed = centavo("payments", "list").out
    assert centavo("payments", "resume").out == "collecting goes on\n"

    assert listed.rstrip().endswith("UTC: a mistake in the prices")
    assert "paused" not in centavo("payments", "list").out
    assert taken(due) is PaymentState.SUCCEEDED


def test_a_payment_is_voided_and_one_that_is_paid_is_not(centavo: Command) -> None:
    first, second = owing(tiers=2)
    taken(first)

    paid = centavo("payments", "void", str(first), "--reason", "goodwill")
    due = [centavo("payments", "void", str(second), "--reason", "goodwill") for _ in range(2)]

    assert (paid.status, "refund it instead" in paid.err) == (1, True)
    assert due == [(0, f"payment {second} is voided\n", "")] * 2
    assert payment(second, "state, void_reason") == ("voided", "goodwill")


def test_a_payment_above_a_cap_is_approved(centavo: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CENTAVO_CUSTOMER_DAY_PAYMENTS_MAX", "1")
    settings.cache_clear()
    first, second = owing(tiers=2)
    states = [taken(first), taken(second)]

    listed = centavo("alerts", "list", "acme")
    approved = centavo("payments", "approve", str(second))

    assert states == [PaymentState.SUCCEEDED, PaymentState.AWAITING_APPROVAL]
    assert str(second) in listed.out
    assert approved == (0, f"payment {second} is approved\n", "")
    assert taken(second) is PaymentState.SUCCEEDED
    assert centavo("payments", "approve", str(second)) == approved
    assert centavo("payments", "approve", str(first)).status == 1


def test_a_disputed_customer_is_released(centavo: Command) -> None:
    first, second = owing(tiers=2)
    taken(first)
    DoubleControl(str(settings().stripe_api_base)).open_dispute(payment(first, "stripe_payment_intent_id")[0])
    look(TENANT, first, gateway(), datetime.now(UTC))
    assert taken(second) is PaymentState.DUE

    shown = centavo("payments", "show", str(second)).out
    ended = [centavo("payments", "release", "acme", "ana") for _ in range(2)]

    assert "held for disputed" in " ".join(shown.split())
    assert [end.out for end in ended] == ["customer ana is held no more: disputed\n", "customer ana was not held\n"]
    assert taken(second) is PaymentState.SUCCEEDED
    assert centavo("payments", "release", "acme", "eva").status == 1


def test_a_customer_is_held_by_hand(centavo: Command) -> None:
    (due,) = owing()

    assert centavo("payments", "hold", "acme", "ana", "--reason", "they called").status == 0
    assert taken(due) is PaymentState.DUE
    centavo("payments", "release", "acme", "ana", "--reason", "disputed")
    assert taken(due) is PaymentState.DUE
    centavo("payments", "release", "acme", "ana", "--reason", "by_hand")

    assert taken(due) is PaymentState.SUCCEEDED


def test_a_top_up_is_asked_for_once(centavo: Command, ana: str) -> None:
    pays_with(GOOD)
    asked = [centavo("payments", "top-up", "acme", ana, "50", "250.00", "--key", "k") for _ in range(2)]
    other = centavo("payments", "top-up", "acme", ana, "51", "250.00", "--key", "k")

    (due,) = one("SELECT payment_id FROM payments")
    assert [end.out for end in asked] == [
        f"payment {due} is due: USD 50 for BRL 250.00\n",
        f"payment {due} was asked for under this key before, and is due: USD 50 for BRL 250.00\n",
    ]
    assert (other.status, "used before" in other.err) == (1, True)
    assert taken(due) is PaymentState.SUCCEEDED
    assert wallet(ana) == 60
    assert captured() == {due: (25_000, 1)}


def test_a_top_up_in_yen_has_no_decimal_places(centavo: Command, ana: str) -> None:
    """What Stripe is asked for is what the person said."""
    asked = centavo("payments", "top-up", "acme", ana, "5", "1000", "--key", "k", "--currency", "JPY")
    odd = centavo("payments", "top-up", "acme", ana, "5", "1000.50", "--key", "l", "--currency", "JPY")
    dinars = centavo("payments", "top-up", "acme", ana, "5", "1000", "--key", "m", "--currency", "KWD")

    assert one("SELECT amount_minor, currency FROM payments") == (1000, "JPY")
    assert asked.out.endswith("is due: USD 5 for JPY 1000\n")
    assert "without decimal places" in odd.err
    assert "nothing is collected in KWD" in dinars.err


def test_a_rule_for_top_ups_is_set_and_switched_off(centavo: Command, ana: str) -> None:
    rule = ("acme", ana, "--below", "10", "--value", "50", "--price", "250.00", "--cap", "1000.00")

    on, off = centavo("payments", "top-up-rule", *rule), centavo("payments", "top-up-rule", *rule, "--off")

    assert on.out == "below USD 10 it buys USD 50 for BRL 250.00, up to BRL 1000.00 a month\n"
    assert off.out == "the rule is off\n"
    assert one("SELECT threshold, credit_amount, amount_minor, monthly_cap_minor, is_active FROM top_up_rules") == (
        10,
        50,
        25_000,
        100_000,
        False,
    )


def test_a_payment_is_explained_in_the_order_of_time(centavo: Command, collected: UUID) -> None:
    centavo("payments", "refund", str(collected), "40.00", "--key", "k", "--reason", "goodwill")

    told = centavo("explain", "payment", str(collected))
    as_json = centavo("payments", "explain", str(collected), "--json").json

    lines = told.out.splitlines()
    assert lines[0] == f"payment {collected}: BRL 100.00"
    assert [line[:19] for line in lines[1:-1]] == sorted(line[:19] for line in lines[1:-1])
    assert f"pay:{collected}:confirm:1" in told.out
    assert "BRL 40.00 (goodwill) is succeeded: re_" in told.out
    assert lines[-1] == "it is partially_refunded"
    assert {"payment", "attempts", "log", "refunds", "disputes", "webhooks"} <= as_json.keys()


def test_alerts_are_listed_until_they_are_seen(centavo: Command, collected: UUID) -> None:
    DoubleControl(str(settings().stripe_api_base)).open_dispute(payment(collected, "stripe_payment_intent_id")[0])
    look(TENANT, collected, gateway(), datetime.now(UTC))

    listed, as_json = centavo("alerts", "list", "acme"), centavo("alerts", "list", "acme", "--json").json
    number = str(as_json[0]["alert_id"])
    seen = [centavo("alerts", "see", "acme", number).out for _ in range(2)]

    assert listed.out.splitlines()[0] == f"{number}  dispute_opened"
    assert "customer ana" in listed.out
    assert as_json[0]["customer_id"] == "ana"
    assert seen == ["1 seen\n", "0 seen\n"]
    assert centavo("alerts", "list", "acme").out == "there is nothing to look at\n"
