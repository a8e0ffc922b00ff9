"""`prices shadow …`: a list is tried, compared and stopped."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.metering.shadowing import rate_some
from services.metering.usage import record_usage
from tests.cli.conftest import Command
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens

LIST = {
    "currency": "USD",
    "effective_from": "2026-01-01T00:00:00Z",
    "prices": [
        {"category": "llm_prompt", "provider": "openai", "model": "gpt-4", "unit": "token", "unit_price": "0.00006"}
    ],
}


@pytest.fixture
def catalogue(billing_database: str, tmp_path: Path) -> str:
    """A file of prices, twice as high."""
    assert billing_database
    catalogues()
    a_customer("ana", credit="10")
    path = tmp_path / "next.json"
    path.write_text(json.dumps(LIST))
    return str(path)


def test_a_list_is_started_shown_and_stopped(centavo: Command, catalogue: str) -> None:
    none = centavo("prices", "shadow", "list", TENANT)
    begun = centavo("prices", "shadow", "start", TENANT, "next", catalogue)
    empty = centavo("prices", "shadow", "show", TENANT, "next")
    now = datetime.now(UTC) + timedelta(seconds=1)
    record_usage(an_envelope(an_event("ana", [tokens(10_000)], key="k", occurred_at=now)), now)
    rate_some(now)
    shown = centavo("prices", "shadow", "show", TENANT, "next")
    document = centavo("prices", "shadow", "show", TENANT, "next", "--customer", "ana", "--json").json
    stopped = centavo("prices", "shadow", "stop", TENANT, "next")
    listed = centavo("prices", "shadow", "list", TENANT)

    assert none.out.startswith("there are none")
    assert begun.out.startswith("1 prices of next are tried since")
    assert empty.out == "nothing was rated by it yet\n"
    first, total = (line.split() for line in shown.out.splitlines()[-2:])
    assert first == ["ana", now.date().isoformat(), "USD", "1", "0.3", "0.6", "0.3"]
    assert total == ["all", "USD", "1", "0.3", "0.6", "0.3"]
    assert (document["totals"][0]["difference"], document["days"][0]["customer_id"]) == ("0.3", "ana")
    assert stopped.out.startswith("next was tried from")
    assert listed.out.splitlines()[-1].split()[:2] == ["next", "1"]


def test_a_list_that_is_not_there_is_a_sentence(centavo: Command, catalogue: str) -> None:
    assert catalogue
    shown = centavo("prices", "shadow", "show", TENANT, "next")

    assert (shown.status, shown.out) == (1, "")
    assert "There is no such price list" in shown.err
