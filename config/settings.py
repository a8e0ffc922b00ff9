"""Settings: `CENTAVO_*` variables, else the running sandbox in `.centavo/`, else the defaults here."""

import json
import os
import re
from datetime import timedelta
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from billing.affordability import BUFFER_MAX
from billing.errors import CentavoError
from billing.rating import Bounds
from centavo.addresses import verified

STATE_FILE = "state.json"
CLOCK_FILE = "clock.json"
SANDBOX_SAYS = ("database_url", "broker_url", "stripe_api_base")
#: The Stripe double takes any test key.
SANDBOX_STRIPE_KEY = "sk_test_sandbox"


#: What is younger may still be disputed, voided or rated again.
RETENTION_MONTHS_MIN = 6
#: Usage under way is over after a day; what is kept back longer is only in the way.
HOLD_SECONDS_MAX = 86_400


def thresholds(said: str) -> dict[str, Decimal]:
    """Numbers by currency, as `5, CREDIT=1000` says them; the one without a currency is every other's, under "".

    >>> thresholds("5, CREDIT=1000")
    {'': Decimal('5'), 'CREDIT': Decimal('1000')}
    """
    found: dict[str, Decimal] = {}
    for part in filter(None, (one.strip() for one in said.split(","))):
        currency, _, number = part.rpartition("=")
        if not re.fullmatch(r"\d{1,24}(\.\d{1,12})?", number.strip(), re.ASCII) or currency.strip() in found:
            raise ValueError("numbers by currency, such as `5, CREDIT=1000`; each currency once")
        found[currency.strip()] = Decimal(number.strip())
    return found


class SettingsMissing(CentavoError):
    """A setting that this command needs is not there."""


class Settings(BaseSettings):
    """Everything that a deployment decides. Names are API: `database_url` is `CENTAVO_DATABASE_URL`."""

    model_config = SettingsConfigDict(env_prefix="CENTAVO_", extra="ignore", frozen=True)

    environment: Literal["production", "staging", "sandbox"] = "production"
    home: Path = Path(".centavo")
    clock_file: Path | None = None
    clocks_apart_seconds_max: int = Field(default=300, ge=60, le=86_400)
    database_url: SecretStr | None = None
    audit_database_url: SecretStr | None = None
    broker_url: SecretStr | None = None
    stripe_secret_key: SecretStr | None = None
    stripe_api_base: str | None = None
    stripe_webhook_secrets: SecretStr | None = None
    webhook_bytes_max: int = Field(default=1024 * 1024, ge=1024)
    api_host: str = "127.0.0.1"
    api_port: int = Field(default=8300, ge=0, le=65535)
    api_connections: int = Field(default=8, ge=1, le=100)
    api_processes: int = Field(default=1, ge=1, le=64)
    api_bytes_max: int = Field(default=256 * 1024, ge=1024)
    api_jwt_keys: Path | None = None
    api_jwt_audience: str | None = None
    api_jwt_issuer: str | None = None
    api_members_see: Literal["own", "tenant"] = "own"
    api_requests_per_second: int = Field(default=0, ge=0)
    metrics_token: SecretStr | None = Field(default=None, min_length=16)

    usage_queue: str = "usage"
    usage_shards: int = Field(default=0, ge=0, le=64)
    payments_queue: str = "payments"
    ticks_queue: str = "ticks"
    visibility_timeout_seconds: int = Field(default=300, ge=1, le=3600)
    envelope_slice_events: int = Field(default=500, ge=1, le=5000)
    envelope_bytes_max: int = Field(default=64 * 1024 * 1024, ge=1024)

    quantity_max: Decimal = Field(default=Decimal(100_000_000), gt=0)
    ahead_seconds_max: int = Field(default=3600, ge=0)
    age_days_max: int = Field(default=35, ge=1, le=366)

    payments_per_second: int = Field(default=20, ge=1, le=100)
    sweep_seconds: float = Field(default=2.0, gt=0)
    payment_lease_seconds: int = Field(default=120, ge=10)
    unknown_again_seconds: int = Field(default=30, ge=1)
    customer_day_payments_max: int = Field(default=20, ge=1)
    customer_day_minor_max: int = Field(default=1_000_000, ge=1)
    tenant_hour_payments_max: int = Field(default=100_000, ge=1)
    tenant_hour_minor_max: int = Field(default=5_000_000_000, ge=1)

    month_seconds: float = Field(default=15.0, gt=0)
    free_tier_credits: Decimal = Field(default=Decimal(10_000), ge=0, max_digits=24, decimal_places=12)

    expiring_soon_days: int = Field(default=7, ge=0, le=366)
    low_balance: str = "1, CREDIT=1000"
    affordability_buffer: Decimal = Field(default=Decimal("1.2"), ge=1, le=BUFFER_MAX)
    unpaid_fee_stops: Literal["never", "failed", "unpaid"] = "failed"
    usd_rates: Path | None = None
    tier_warnings: bool = False

    hold_seconds: int = Field(default=900, ge=1, le=HOLD_SECONDS_MAX)
    hold_seconds_max: int = Field(default=HOLD_SECONDS_MAX, ge=1, le=HOLD_SECONDS_MAX)

    audit_every_hours: int = Field(default=24, ge=0)
    audit_alert_percent: Decimal = Field(default=Decimal(0), ge=0)
    audit_alert_value_percent: Decimal = Field(default=Decimal(0), ge=0)
    audit_freezes: bool = False

    archive_folder: Path | None = None
    retention_months: int | None = Field(default=None, ge=RETENTION_MONTHS_MIN)

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    health_dir: Path | None = None
    fault_dir: Path | None = None

    @field_validator(
        "audit_database_url",
        "clock_file",
        "stripe_api_base",
        "stripe_webhook_secrets",
        "metrics_token",
        "api_jwt_keys",
        "api_jwt_audience",
        "api_jwt_issuer",
        "archive_folder",
        "usd_rates",
        "retention_months",
        "health_dir",
        "fault_dir",
        mode="before",
    )
    @classmethod
    def _empty_is_absent(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("broker_url")
    @classmethod
    def _with_a_certificate(cls, value: SecretStr | None) -> SecretStr | None:
        """Whoever opens a connection takes the address from here."""
        return value and SecretStr(verified(value.get_secret_value()))

    @field_validator("low_balance")
    @classmethod
    def _numbers_by_currency(cls, value: str) -> str:
        thresholds(value)
        return value

    @field_validator("stripe_api_base")
    @classmethod
    def _no_double_in_production(cls, value: str | None, info: ValidationInfo) -> str | None:
        """What collects nothing must not be taken for Stripe where money is owed."""
        if value is not None and info.data.get("environment") == "production":
            raise ValueError("names a double of Stripe; unset it, or set CENTAVO_ENVIRONMENT to staging or sandbox")
        return value

    @field_validator("clock_file")
    @classmethod
    def _no_moved_clock_in_production(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and info.data.get("environment") == "production":
            raise ValueError("moves the clock; unset it, or set CENTAVO_ENVIRONMENT to staging or sandbox")
        return value

    @property
    def clock_followed(self) -> Path | None:
        """The file that may move the clock: none in production, in staging only one that is named."""
        match self.environment:
            case "production":
                return None
            case "staging":
                return self.clock_file
            case "sandbox":
                return self.clock_file or self.home / CLOCK_FILE

    @property
    def bounds(self) -> Bounds:
        return Bounds(self.quantity_max, timedelta(seconds=self.ahead_seconds_max), timedelta(days=self.age_days_max))

    def low_below(self, currency: str) -> Decimal | None:
        """Below how much a wallet in this currency is low; None: it never is."""
        said = thresholds(self.low_balance)
        return said.get(currency, said.get(""))

    @property
    def webhook_secrets(self) -> tuple[str, ...]:
        """The secrets that a webhook may be signed with: two while one is replaced; separated by commas."""
        said = self.stripe_webhook_secrets.get_secret_value() if self.stripe_webhook_secrets else ""
        return tuple(secret.strip() for secret in said.split(",") if secret.strip())

    def required(self, name: Literal["database_url", "broker_url", "stripe_secret_key"]) -> str:
        """The value of a setting that has no default, or an error that says how to give one."""
        value: SecretStr | None = getattr(self, name)
        if value is None:
            raise SettingsMissing(
                f"CENTAVO_{name.upper()} is not set and no sandbox runs in {self.home}/; "
                "set it, or start a sandbox with `centavo up`"
            )
        return value.get_secret_value()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, _SandboxSource(settings_cls)


class _SandboxSource(PydanticBaseSettingsSource):
    """Where the sandbox that runs in the home directory says it is."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        del field
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        path = Path(os.environ.get("CENTAVO_HOME", ".centavo")) / STATE_FILE
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            found = {name: state[name] for name in SANDBOX_SAYS}
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return {"environment": "sandbox", "stripe_secret_key": SANDBOX_STRIPE_KEY, **found}


_told: list[Settings] = []


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process, read once."""
    return _told[0] if _told else Settings()


def use(**values: Any) -> Settings:
    """Use these settings from now on, before what the environment says: for a sandbox that this process runs."""
    _told[:] = [Settings(**values)]
    settings.cache_clear()
    return settings()


#: Where processes that share an address keep what they count, so that each can tell of all: prometheus_client's name.
_COUNTED_IN = "PROMETHEUS_MULTIPROC_DIR"


def count_together(folder: str) -> None:
    """Let the processes that this one starts keep what they count in a folder."""
    os.environ[_COUNTED_IN] = folder


def counts_together() -> bool:
    """Whether what this process counts is kept in a folder, with what others count."""
    return _COUNTED_IN in os.environ


def process_environment() -> dict[str, str]:
    """A copy of the environment, for a child process that gets some settings of its own."""
    return dict(os.environ)
