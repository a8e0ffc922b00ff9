"""`stripe-double`: the double of Stripe in this process, for people who try things out."""

import sys
from contextlib import suppress
from typing import Annotated

import typer

from billing.errors import Rejected
from cli.show import console
from config.settings import settings
from sandbox.stripe_double.cards import CARDS, TestCard
from sandbox.stripe_double.server import run
from sandbox.stripe_double.webhook_endpoints import is_loopback

app = typer.Typer()

PORT = 12111
SECRET = "whsec_double"  # noqa: S105 - opens nothing but a double
SCRIPT = '{"card": "pm_card_twice", "steps": [{"do": "decline"}, {"do": "decline"}]}'
FAULT = '{"kind": "drop_after", "path": "/v1/payment_intents/{id}/confirm"}'


@app.command("stripe-double")
def stripe_double(
    port: Annotated[int, typer.Option(min=0, max=65535, help="On 127.0.0.1; 0 picks a free one.")] = PORT,
    webhook_url: Annotated[str | None, typer.Option(help="Where webhooks go, on this machine.")] = None,
    webhook_secret: Annotated[str, typer.Option(help="What they are signed with.")] = SECRET,
) -> None:
    """Run a double of Stripe until Ctrl-C. It moves no money and forgets everything when it ends."""
    _refuse_production()
    if webhook_url is not None and not is_loopback(webhook_url):
        raise Rejected(f"webhooks stay on this machine: {webhook_url} is not http to a loopback address")
    try:
        with suppress(KeyboardInterrupt):
            run(port, lambda url: _say(url, webhook_url), webhook_url, webhook_secret)
    except OSError as error:
        raise Rejected(f"the Stripe double can't serve on 127.0.0.1:{port}: {error}; choose another --port") from error


def _refuse_production() -> None:
    # What is set matters, not the default: nobody who tries things out has to set anything.
    if "environment" in settings().model_fields_set and settings().environment == "production":
        raise Rejected("CENTAVO_ENVIRONMENT is production, where a double of Stripe has no place: it collects nothing")


def _say(url: str, webhook_url: str | None) -> None:
    lines = [
        f"A double of Stripe serves {url} until Ctrl-C. It is not Stripe, and no money moves.",
        f"  export CENTAVO_ENVIRONMENT=sandbox CENTAVO_STRIPE_API_BASE={url} CENTAVO_STRIPE_SECRET_KEY=sk_test_double",
        f"Webhooks go to {webhook_url or 'nobody; name one with --webhook-url'}.",
        "",
        "Test cards (by number, or as pm_card_NAME where a payment method is asked for):",
        *(f"  {card.number}  {name:32}{_behaviour(card)}" for name, card in CARDS),
        "",
        "What was collected, and what may be wished for (all of it: sandbox/stripe_double/control.py):",
        f"  curl {url}/_control/ledger",
        f"  curl {url}/_control/advance -d '{{\"seconds\": 86400}}'",
        f"  curl {url}/_control/script_card -d '{SCRIPT}'",
        f"  curl {url}/_control/add_fault -d '{FAULT}'",
    ]
    # At once, so that nobody who reads the first line and says Ctrl-C cuts off the rest.
    console.print("\n".join(lines), soft_wrap=True)
    sys.stdout.flush()


def _behaviour(card: TestCard) -> str:
    if card.needs_authentication:
        return "wants authentication" + (", once" if card.can_be_set_up else "")
    if card.decline:
        return f"declines: {card.decline.reason}" + ("" if card.attachable else "; can't be attached")
    return "succeeds, and is disputed" if card.is_disputed else "succeeds"
