"""Catalogue files: price lists and plans as JSON, shipped with Centavo or written by its users."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from billing.dunning import DEFAULT_DAYS, DEFAULT_HOUR
from billing.errors import CatalogueMalformed
from billing.money import ZERO
from billing.plans import (
    DEFAULT_GRACE_HOURS,
    GRACE_HOURS_MAX,
    GRACE_HOURS_MIN,
    Anchor,
    LateEvents,
    Plan,
    Proration,
    UnowedTiers,
)
from billing.prices import LadderSpan, Rung
from db.prices import NewPrice

M = TypeVar("M", bound=BaseModel)

_Amount = Annotated[Decimal, Field(ge=0, max_digits=24, decimal_places=18, allow_inf_nan=False)]
_Credits = Annotated[Decimal, Field(ge=0, max_digits=24, decimal_places=12, allow_inf_nan=False)]
_Quantity = Annotated[Decimal, Field(gt=0, max_digits=30, decimal_places=12, allow_inf_nan=False)]
_Name = Annotated[str, Field(min_length=1, max_length=128)]
_Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$|^CREDIT$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Rung(_Strict):
    up_to: _Quantity | None = None
    unit_price: _Amount


class _Price(_Strict):
    category: _Name
    provider: _Name
    model: _Name
    unit: _Name
    currency: _Currency | None = None
    unit_price: _Amount | None = None
    per: _Quantity = Decimal(1)
    ladder: tuple[_Rung, ...] = ()
    ladder_span: LadderSpan = LadderSpan.EVENT
    provider_default: bool = False
    ended: bool = False
    effective_from: AwareDatetime | None = None
    description: str | None = None


class _PriceCatalogue(_Strict):
    description: str = ""
    currency: _Currency
    effective_from: AwareDatetime
    prices: tuple[_Price, ...] = Field(min_length=1)


class _Plan(_Strict):
    plan_id: _Name
    name: _Name
    payment_currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    fixed_fee_minor: int = Field(default=0, ge=0)
    included_tokens: int = Field(default=0, ge=0)
    tier_size: int | None = Field(default=None, gt=0)
    tier_fee_minor: int = Field(default=0, ge=0)
    dunning_days: tuple[int, ...] = DEFAULT_DAYS
    dunning_hour: int = DEFAULT_HOUR
    open_tiers_max: int = Field(default=5, ge=1)
    free_credits: _Credits | None = ZERO
    free_credits_currency: _Currency = "CREDIT"
    anchor: Anchor = Anchor.CALENDAR
    proration: Proration = Proration.NONE
    late_events: LateEvents = LateEvents.CURRENT
    grace_hours: int = Field(default=DEFAULT_GRACE_HOURS, ge=GRACE_HOURS_MIN, le=GRACE_HOURS_MAX)
    unowed_tiers: UnowedTiers = UnowedTiers.REFUND
    day_payments_max: int | None = Field(default=None, ge=1)
    day_minor_max: int | None = Field(default=None, ge=1)


class _PlanCatalogue(_Strict):
    description: str = ""
    plans: tuple[_Plan, ...] = Field(min_length=1)


def shipped(kind: str) -> list[str]:
    """The names of the catalogues that come with Centavo; `kind` is "prices" or "plans"."""
    folder = files("billing") / "catalogues" / kind
    return sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json"))


def read_prices(source: str, *, scope: str = "", effective_from: datetime | None = None) -> list[NewPrice]:
    """The prices of a shipped catalogue or a file. Raises `CatalogueMalformed`, naming line or field."""
    catalogue = _validated(_PriceCatalogue, source, "prices")
    return [_new_price(price, catalogue, scope, effective_from) for price in catalogue.prices]


def price_of(said: Mapping[str, Any], scope: str, effective_from: datetime) -> NewPrice:
    """One price, by the words and the rules of a catalogue. Raises `CatalogueMalformed`, naming the field."""
    alone = {"currency": said.get("currency"), "effective_from": effective_from, "prices": [said]}
    try:
        catalogue = _PriceCatalogue.model_validate(alone)
    except ValidationError as error:
        raise CatalogueMalformed("; ".join(_problems(error))) from error
    return _new_price(catalogue.prices[0], catalogue, scope, effective_from)


def read_plans(source: str) -> list[Plan]:
    """The plans of a shipped catalogue or a file; tenant and version are set when they are loaded."""
    catalogue = _validated(_PlanCatalogue, source, "plans")
    return [Plan(tenant_id="", version=0, **plan.model_dump()) for plan in catalogue.plans]


def _new_price(price: _Price, catalogue: _PriceCatalogue, scope: str, effective_from: datetime | None) -> NewPrice:
    ladder = tuple(Rung(rung.up_to, rung.unit_price) for rung in price.ladder)
    _check_cost(price)
    _check_ladder(price, ladder)
    return NewPrice(
        scope,
        price.category,
        price.provider,
        price.model,
        price.unit,
        price.currency or catalogue.currency,
        price.unit_price or ZERO,
        price.per,
        ladder,
        price.ladder_span,
        price.provider_default,
        price.ended,
        (effective_from or price.effective_from or catalogue.effective_from).astimezone(UTC),
        0,
        price.description,
    )


def _check_cost(price: _Price) -> None:
    """Nothing is free because a line was forgotten; what costs nothing says so with a unit_price of 0."""
    if price.ended or (price.unit_price is None) == bool(price.ladder):
        return
    raise CatalogueMalformed(
        f"{price.category}/{price.provider}/{price.model}/{price.unit} needs a unit_price or a ladder, and not both"
    )


def _check_ladder(price: _Price, ladder: tuple[Rung, ...]) -> None:
    if not ladder:
        return
    tops = [rung.up_to for rung in ladder[:-1]]
    ascending = all(top is not None for top in tops) and tops == sorted(set(tops), key=lambda top: top or 0)
    if not ascending or ladder[-1].up_to is not None:
        raise CatalogueMalformed(
            f"the ladder of {price.category}/{price.provider}/{price.model}/{price.unit} needs rising up_to values "
            "and a last rung without one"
        )


def _validated(model: type[M], source: str, kind: str) -> M:
    name, text = _text(source, kind)
    try:
        # Prices written as JSON numbers keep their digits.
        return model.model_validate(json.loads(text, parse_float=Decimal))
    except json.JSONDecodeError as error:
        raise CatalogueMalformed(f"{name} is not JSON: {error}") from error
    except ValidationError as error:
        raise CatalogueMalformed(f"{name}: " + "; ".join(_problems(error))) from error


def _text(source: str, kind: str) -> tuple[str, str]:
    path = Path(source)
    if path.is_file():
        try:
            return str(path), path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise CatalogueMalformed(f"{path} is not text in UTF-8: {error}; save it in UTF-8") from error
    if source in shipped(kind):
        return source, (files("billing") / "catalogues" / kind / f"{source}.json").read_text(encoding="utf-8")
    raise CatalogueMalformed(
        f"{source!r} is neither a file nor one of the shipped catalogues: {', '.join(shipped(kind))}"
    )


def _problems(error: ValidationError) -> Iterator[str]:
    for problem in error.errors(include_url=False)[:5]:
        where: Any = ".".join(str(part) for part in problem["loc"])
        yield f"{where}: {problem['msg']}"
