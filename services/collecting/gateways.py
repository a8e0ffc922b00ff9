"""The way to Stripe that the settings name."""

from functools import lru_cache

from config.settings import settings
from payments.gateway import PaymentGateway


@lru_cache(maxsize=1)
def gateway() -> PaymentGateway:
    """The gateway of this process. Importing Stripe's library takes memory that usage workers can do without."""
    from payments.stripe_gateway import StripeGateway

    return StripeGateway(settings().required("stripe_secret_key"), settings().stripe_api_base)
