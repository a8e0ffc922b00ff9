"""What currencies are worth in US dollars, since when: for estimates that people look at, never for a charge.

The setting `usd_rates` names a file::

    {"rates": [{"currency": "CREDIT", "usd": "0.001", "effective_from": "2026-01-01T00:00:00Z"}]}
"""

import json
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from billing.errors import CatalogueMalformed
from billing.money import as_cost
from config.settings import settings

USD = "USD"


class Estimate(NamedTuple):
    """What an amount is worth in US dollars, at a rate that holds since then (None: it always does)."""

    usd: Decimal
    rate: Decimal
    rate_from: datetime | None


class _Rate(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$|^CREDIT$")]
    usd: Annotated[Decimal, Field(gt=0, max_digits=24, decimal_places=12, allow_inf_nan=False)]
    effective_from: AwareDatetime


class _Rates(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    rates: tuple[_Rate, ...]


def estimate(amount: Decimal, currency: str, now: datetime) -> Estimate | None:
    """What an amount is worth by the latest rate that holds now; None where none is known.

    Raises `CatalogueMalformed` for a file that is no such file.
    """
    if currency == USD:
        return Estimate(amount, Decimal(1), None)
    path = settings().usd_rates
    if path is None:
        return None
    known = [rate for rate in _read(path, path.stat().st_mtime_ns if path.exists() else 0) if rate.currency == currency]
    held = max((rate for rate in known if rate.effective_from <= now), key=lambda one: one.effective_from, default=None)
    if held is None:
        return None
    return Estimate(as_cost(amount * held.usd), held.usd, held.effective_from.astimezone(UTC))


@lru_cache(maxsize=4)
def _read(path: Path, _changed: int) -> tuple[_Rate, ...]:
    """The rates of a file, read again when it has changed."""
    try:
        return _Rates.model_validate(json.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)).rates
    except (OSError, ValueError) as error:
        said = error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise CatalogueMalformed(f"the rates in {path} can't be read: {said}; see CENTAVO_USD_RATES") from error
