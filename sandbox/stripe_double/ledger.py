"""The money that was really taken, by a key of the intents' metadata: what every test of money ends with."""

from collections.abc import Iterable
from typing import Any

from sandbox.stripe_double.errors import Json
from sandbox.stripe_double.objects import Charge
from sandbox.stripe_double.state import Store

PAYMENT_ID = "payment_id"


def captured(store: Store) -> Json:
    """Successful charges by `metadata.payment_id`, and the sum of each currency."""
    taken = [charge for charge in store.charges.values() if charge.is_paid]
    payments: dict[str, Json] = {}
    for charge in taken:
        entry = payments.setdefault(_named(charge, PAYMENT_ID), _nothing_captured(charge.intent.currency))
        entry["amount_minor"] += charge.amount
        entry["successes"] += 1
        entry["stripe_payment_intent_ids"].append(charge.intent.id)
    return {"payments": payments, "totals": _totals(taken)}


def ledger(store: Store, key: str = PAYMENT_ID) -> dict[str, Json]:
    """Every payment that a charge was tried for, with what was taken, given back and withdrawn, in minor units."""
    entries: dict[str, dict[str, Any]] = {}
    for charge in store.charges.values():
        entry = entries.setdefault(_named(charge, key), _nothing_entered(charge.intent.currency))
        entry["charges"] += 1
        if charge.is_paid:
            entry["captured_minor"] += charge.amount
            entry["refunded_minor"] += charge.amount_refunded
            entry["withdrawn_minor"] += _withdrawn_minor(charge)
            entry["succeeded_intents"].append(charge.intent.id)
    return entries


def _named(charge: Charge, key: str) -> str:
    return charge.intent.metadata.get(key, f"unnamed:{charge.intent.id}")


def _withdrawn_minor(charge: Charge) -> int:
    """What a bank has taken back by a dispute that is not won."""
    return charge.dispute.amount if charge.dispute and charge.dispute.status != "won" else 0


def _nothing_captured(currency: str) -> Json:
    return {"currency": currency, "amount_minor": 0, "successes": 0, "stripe_payment_intent_ids": []}


def _nothing_entered(currency: str) -> Json:
    sums = dict.fromkeys(("charges", "captured_minor", "refunded_minor", "withdrawn_minor"), 0)
    return {"currency": currency, **sums, "succeeded_intents": []}


def _totals(taken: Iterable[Charge]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for charge in taken:
        totals[charge.intent.currency] = totals.get(charge.intent.currency, 0) + charge.amount
    return totals
