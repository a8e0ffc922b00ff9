"""Catalogue files: exact numbers in, and what is wrong said with its place."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from billing.errors import CatalogueMalformed
from billing.prices import LadderSpan, Rung
from config.settings import process_environment
from db.prices import NewPrice
from sandbox.stack import ROOT
from services.books.catalogue_files import read_plans, read_prices, shipped

BEGAN = "2026-01-01T00:00:00Z"


def a_price(**changes: Any) -> dict[str, Any]:
    return {"category": "llm", "provider": "p", "model": "m", "unit": "token", "unit_price": "1"} | changes


def a_file(folder: Path, *prices: dict[str, Any], **changes: Any) -> str:
    catalogue = {"currency": "USD", "effective_from": BEGAN, "prices": prices or [a_price()]} | changes
    path = folder / "prices.json"
    path.write_text(json.dumps(catalogue))
    return str(path)


def a_plan_file(folder: Path, **changes: Any) -> str:
    plan = {"plan_id": "p", "name": "P", "payment_currency": "BRL"} | changes
    path = folder / "plans.json"
    path.write_text(json.dumps({"plans": [plan]}))
    return str(path)


def test_a_price_is_read_with_the_defaults_of_its_file(tmp_path: Path) -> None:
    (price,) = read_prices(a_file(tmp_path, a_price(per="1000", provider_default=True)))

    assert price == NewPrice(
        "",
        "llm",
        "p",
        "m",
        "token",
        "USD",
        Decimal(1),
        Decimal(1000),
        (),
        LadderSpan.EVENT,
        True,
        False,
        datetime(2026, 1, 1, tzinfo=UTC),
        0,
        None,
    )


def test_numbers_keep_every_digit_they_were_written_with(tmp_path: Path) -> None:
    """As JSON numbers too: a float would end after seventeen digits."""
    path = tmp_path / "prices.json"
    path.write_text(
        '{"currency": "USD", "effective_from": "2026-01-01T00:00:00Z", "prices": [{"category": "llm", "provider": "p",'
        ' "model": "m", "unit": "token", "unit_price": 123456.123456789012345678}]}'
    )

    (price,) = read_prices(str(path))

    assert price.unit_price == Decimal("123456.123456789012345678")


def test_a_ladder_is_read_rung_by_rung(tmp_path: Path) -> None:
    rungs = [{"up_to": "10", "unit_price": "2"}, {"unit_price": "1"}]
    laddered = a_price(ladder=rungs, ladder_span="period")
    del laddered["unit_price"]

    (price,) = read_prices(a_file(tmp_path, laddered))

    assert price.ladder == (Rung(Decimal(10), Decimal(2)), Rung(None, Decimal(1)))
    assert (price.ladder_span, price.unit_price) == (LadderSpan.PERIOD, Decimal(0))


def test_currency_and_start_of_a_price_come_before_those_of_its_file(tmp_path: Path) -> None:
    own = a_price(currency="CREDIT", effective_from="2026-06-01T00:00:00-03:00")

    (price,) = read_prices(a_file(tmp_path, own))
    (moved,) = read_prices(a_file(tmp_path, own), scope="acme", effective_from=datetime(2027, 1, 1, tzinfo=UTC))

    assert (price.scope, price.currency, price.effective_from) == ("", "CREDIT", datetime(2026, 6, 1, 3, tzinfo=UTC))
    assert (moved.scope, moved.effective_from) == ("acme", datetime(2027, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"unit_price": None}, "needs a unit_price or a ladder"),
        ({"ladder": [{"unit_price": "1"}]}, "and not both"),
        ({"unit_price": "-1"}, "prices.0.unit_price"),
        ({"unit_price": "NaN"}, "prices.0.unit_price"),
        ({"unit_price": "1000000"}, "prices.0.unit_price"),
        ({"unit_price": "0.0000000000000000001"}, "prices.0.unit_price"),
        ({"per": "0"}, "prices.0.per"),
        ({"model": ""}, "prices.0.model"),
        ({"currency": "usd"}, "prices.0.currency"),
        ({"ladder_span": "year"}, "prices.0.ladder_span"),
        ({"effective_from": "2026-01-01T00:00:00"}, "prices.0.effective_from"),
        ({"unitprice": "1"}, "prices.0.unitprice"),
        ({"unit_price": None, "ladder": [{"up_to": "10", "unit_price": "1"}]}, "a last rung without one"),
        ({"unit_price": None, "ladder": [{"unit_price": "1"}, {"unit_price": "2"}]}, "rising up_to"),
        (
            {"unit_price": None, "ladder": [*[{"up_to": top, "unit_price": "1"} for top in "21"], {"unit_price": "1"}]},
            "rising up_to",
        ),
        (
            {"unit_price": None, "ladder": [*[{"up_to": top, "unit_price": "1"} for top in "11"], {"unit_price": "1"}]},
            "rising up_to",
        ),
        ({"unit_price": None, "ladder": [{"up_to": "0", "unit_price": "1"}, {"unit_price": "1"}]}, "ladder.0.up_to"),
    ],
)
def test_a_price_that_is_wrong_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    """Nothing becomes free because somebody forgot a line."""
    price = {name: value for name, value in a_price(**changes).items() if value is not None}

    with pytest.raises(CatalogueMalformed, match=said.replace(".", r"\.")):
        read_prices(a_file(tmp_path, price))


def test_what_is_free_says_so_and_an_end_needs_no_price(tmp_path: Path) -> None:
    ending = a_price(model="n", ended=True)
    del ending["unit_price"]

    free, ended = read_prices(a_file(tmp_path, a_price(unit_price="0"), ending))

    assert (free.unit_price, free.is_ended) == (Decimal(0), False)
    assert ended.is_ended


@pytest.mark.parametrize(
    "changes",
    [
        {"fixed_fee_minor": -1},
        {"included_tokens": -1},
        {"tier_size": 0, "tier_fee_minor": 1},
        {"tier_size": 1},
        {"fixed_fee_minor": 0.5},
        {"payment_currency": "CREDIT"},
        {"plan_id": ""},
        {"fee": 1},
    ],
)
def test_a_plan_that_is_wrong_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Payments are made in a currency, in whole minor units."""
    with pytest.raises(CatalogueMalformed):
        read_plans(a_plan_file(tmp_path, **changes))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"currency": "USD"}', '{"prices": NaN}'])
def test_a_file_that_is_no_catalogue_says_what_it_is_not(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)

    with pytest.raises(CatalogueMalformed, match=r"broken\.json"):
        read_prices(str(path))


def test_a_name_that_is_nothing_shows_what_is_shipped() -> None:
    with pytest.raises(CatalogueMalformed, match=", ".join(shipped("prices"))):
        read_prices("no-such-list")


def test_a_file_is_read_in_utf_8_whatever_language_the_process_was_started_in(tmp_path: Path) -> None:
    """As under cron, where the locale is C."""
    file = tmp_path / "plans.json"
    plan = {"plan_id": "p", "name": "Preço único — R$", "payment_currency": "BRL"}
    file.write_text(json.dumps({"plans": [plan]}, ensure_ascii=False), encoding="utf-8")
    read = "from services.books.catalogue_files import read_plans; (plan,) = read_plans(sys.argv[1])"
    environment = process_environment() | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", f"import sys; {read}; print(ascii(plan.name))", str(file)]

    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "'Pre\\xe7o \\xfanico \\u2014 R$'\n"), done.stderr


def test_a_file_that_is_not_in_utf_8_is_refused_in_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "latin.json"
    file.write_text('{"plans": [{"plan_id": "p", "name": "Preço"}]}', encoding="latin-1")

    with pytest.raises(CatalogueMalformed, match=r"latin\.json is not text in UTF-8"):
        read_plans(str(file))
