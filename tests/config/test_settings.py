"""Settings: what a deployment decides, and what it may not."""

import pytest
from pydantic import ValidationError

from config.settings import Settings

DOUBLE = "http://127.0.0.1:12111"


def test_production_takes_no_double_for_stripe() -> None:
    with pytest.raises(ValidationError, match="names a double of Stripe; unset it"):
        Settings(environment="production", stripe_api_base=DOUBLE)


@pytest.mark.parametrize("environment", ["staging", "sandbox"])
def test_elsewhere_a_double_may_stand_in(environment: str) -> None:
    assert Settings.model_validate({"environment": environment, "stripe_api_base": DOUBLE}).stripe_api_base == DOUBLE


@pytest.mark.parametrize(
    ("said", "secrets"),
    [(None, ()), ("", ()), ("whsec_1", ("whsec_1",)), (" whsec_1, whsec_2,", ("whsec_1", "whsec_2"))],
)
def test_webhooks_may_be_signed_with_either_of_two_secrets(said: str | None, secrets: tuple[str, ...]) -> None:
    assert Settings.model_validate({"stripe_webhook_secrets": said}).webhook_secrets == secrets
