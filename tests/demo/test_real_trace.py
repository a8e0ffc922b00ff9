"""The code-completion trace of 2023, billed to one customer: what it comes to is known.

The file is not part of this repository; it is looked for beside it, in `../shared/data`.
"""

import json
import random
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sandbox import demo_plan as plan
from sandbox.demo import Options, rows_to_bill
from sandbox.stack import ROOT
from services.books import customers, tenants
from services.books.catalogue_files import read_plans
from services.collecting import cards
from services.collecting.collect import claim_due, collect
from services.collecting.gateways import gateway
from services.cycle.months import turn_due
from services.desk import reports
from services.metering.usage import record_usage
from tests.demo.conftest import run_demo
from tests.factories import an_envelope

TRACE = ROOT.parent / "shared" / "data" / "azure_llm_inference_trace_code_2023.csv"
TOKENS, EVENTS = 18_305_870, 8_819
FEE_AND_TWO_TIERS = {("subscription", "succeeded"): (1, 40_000), ("tier", "succeeded"): (2, 20_000)}

pytestmark = pytest.mark.skipif(not TRACE.exists(), reason=f"there is no {TRACE}")


def test_the_demo_bills_two_tiers(short_dir: Path) -> None:
    """Through producers, broker, workers and Stripe's double."""
    result = short_dir / "result.json"

    status, said = run_demo(short_dir / "h", "--trace", str(TRACE), "--customers", "1", "--json", str(result))

    assert status == 0, said
    document = json.loads(result.read_text())
    assert (document["tokens"], document["charged"], document["emitted"]) == (TOKENS, EVENTS, EVENTS)
    assert document["payments"] == {
        "subscription": {"succeeded": {"count": 1, "amount_minor": 40_000}},
        "tier": {"succeeded": {"count": 2, "amount_minor": 20_000}},
    }


@pytest.mark.usefixtures("billing_database")
def test_sent_twice_and_in_any_order_it_bills_the_same() -> None:
    """Every event twice, shuffled over all envelopes."""
    now = datetime.now(UTC)
    tenants.create_tenant(plan.TENANT, "Demo", now)
    tenants.load_plans(plan.TENANT, read_plans("default"), now)
    one = customers.NewCustomer(plan.TENANT, plan.customer_name(0), plan.plan_of(0), plan.TIME_ZONE, ("BRL",))
    customers.create_customers([one], now)
    cards.attach(plan.TENANT, plan.customer_name(0), plan.card_of(0), gateway(), now)
    rows = rows_to_bill(Options(TRACE), now)
    events = [plan.event_of(index, *row, 1) for index, row in enumerate(rows)] * 2
    random.shuffle(events)

    parts = [events[first : first + 500] for first in range(0, len(events), 500)]
    outcomes = [record_usage(an_envelope(*part), now) for part in parts]
    assert turn_due(now).fees == 1
    for tenant_id, payment_id in claim_due(now):
        collect(tenant_id, payment_id, gateway(), now)

    (summary,) = reports.customers_of(plan.TENANT)
    assert (summary.events, summary.tokens, summary.payments) == (EVENTS, TOKENS, FEE_AND_TWO_TIERS)
    assert sum(outcome.charged for outcome in outcomes) == EVENTS
    assert sum(outcome.duplicates for outcome in outcomes) == EVENTS
    assert claim_due(now) == []
