"""Nothing that anybody can send is answered otherwise than the OpenAPI document says, and nothing breaks.

`scripts/fuzz` asks at least ten thousand times; in the suite, each operation is asked a few times.
"""

import os
import sys
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from api.app import create_app
from centavo import Item
from config import clock
from services.books.catalogue_files import price_of
from services.books.customers import NewCustomer, create_customers
from services.collecting import topups
from services.collecting.topups import Offer
from services.desk import credit_holds, prices, quotas
from services.desk.credit_holds import HoldWish
from services.desk.quotas import Wanted
from services.metering.usage import record_usage
from tests.api.anything import Known, ask, shown
from tests.api.asking import ADMIN, claims, token
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import rows

REQUESTS = int(os.environ.get("CENTAVO_FUZZ_REQUESTS", "500"))
START = int(os.environ.get("CENTAVO_FUZZ_START", "1"))


@pytest.fixture
def known(api: str) -> Known:
    """A tenant with a bit of everything, and what it is called."""
    assert api
    catalogues()
    a_customer("ana", credit="1000")
    create_customers([NewCustomer(TENANT, "bia", "tiers-8m", "America/Sao_Paulo", ("BRL", "USD"))], clock.now())
    record_usage(
        an_envelope(an_event("ana", key="known"), an_event("bia", [tokens(20_000_000)], key="tiers")), clock.now()
    )
    unpriced = Item(category="llm", provider="new", model="new", unit="token", quantity=Decimal(1))
    record_usage(an_envelope(an_event("ana", [unpriced], key="parked")), clock.now())
    hold = credit_holds.reserve(HoldWish(TENANT, "ana", "hold", Decimal(1)), clock.now())
    quotas.set_quota(Wanted(TENANT, "q", Decimal(10)), clock.now())
    topups.set_rule(TENANT, "ana", "USD", Decimal(5), Offer(Decimal(20), 10_000, "BRL"), 50_000, clock.now())
    product = {"category": "llm_prompt", "provider": "openai", "model": "gpt-4", "unit": "token"}
    said = {**product, "currency": "USD", "unit_price": "0.1"}
    own = prices.add(price_of(said, TENANT, clock.now() + timedelta(hours=1)), clock.now())
    payments = [str(payment_id) for (payment_id,) in rows("SELECT payment_id FROM payments")]
    return {
        "customer_id": ["ana", "bia"],
        "key": ["known", "tiers", "parked"],
        "hold_id": [hold.hold_id],
        "payment_id": payments,
        "plan_id": ["tiers-8m", "prepaid"],
        "price_id": [own.price_id],
        "name": ["q"],
        "currency": ["USD", "BRL"],
        "time_zone": ["UTC", "Asia/Tokyo"],
        "number": [1],
        "since": ["2026-11-01T00:00:00Z"],
        "until": ["2026-11-30T00:00:00Z"],
        "wait": ["1s"],
        **{name: [value] for name, value in product.items()},
    }


@pytest.mark.timeout(3600)
def test_whatever_is_asked_is_answered_as_the_document_says(api: str, known: Known) -> None:
    document: dict[str, Any] = create_app().openapi()
    operations = sum(len(methods) for methods in document["paths"].values())
    bearer = token(claims("root", ADMIN, exp=int(clock.now().timestamp()) + 36_000))

    each = -(-REQUESTS // (2 * operations))
    report = ask(document, api, bearer, known, requests_each=each, start=START)

    sys.stdout.write("\n".join(["", *shown(report), ""]))
    assert report.failures == [], "\n\n".join(report.failures[:10])
    assert report.requests >= REQUESTS
    # That it reaches further than the door: most operations have done what they are for.
    done = [name for name, seen in report.answers.items() if any(status < 300 for status in seen)]
    assert len(done) > operations // 2
