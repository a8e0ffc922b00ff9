"""The one version of Stripe's API that the double speaks: that of the installed library."""

STRIPE_VERSION = "2026-10-28.endive"
