"""The test cards, as Stripe documents them, and what each does.

Source: https://docs.stripe.com/testing (cards by number and by `pm_card_…` token).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class CardDecline:
    """What an issuer says when it refuses, and what the charge's outcome tells beyond it."""

    code: str
    decline_code: str
    message: str
    advice_code: str | None = None
    network_advice_code: str | None = None
    network_decline_code: str | None = None
    outcome_reason: str | None = None

    @property
    def reason(self) -> str:
        return self.outcome_reason or self.decline_code


@dataclass(frozen=True)
class TestCard:
    """A card number and its behaviour. One that isn't attachable is refused at the customer already."""

    __test__ = False

    number: str
    brand: str = "visa"
    decline: CardDecline | None = None
    attachable: bool = True
    needs_authentication: bool = False


def _declined(decline_code: str, message: str) -> CardDecline:
    return CardDecline("card_declined", decline_code, message)


GENERIC = _declined("generic_decline", "Your card was declined.")
INSUFFICIENT_FUNDS = _declined("insufficient_funds", "Your card has insufficient funds.")
NOT_A_TEST_CARD = _declined(
    "test_mode_live_card", "Your card was declined: this is a double, and it knows Stripe's test cards alone."
)

#: The issuer wanted the customer, who was away.
AUTHENTICATION_REQUIRED = CardDecline(
    "authentication_required",
    "authentication_required",
    "Your card was declined. This transaction requires authentication.",
)
#: The customer would have been asked, but `error_on_requires_action` forbade it.
AUTHENTICATION_NOT_HANDLED = CardDecline(
    "authentication_required",
    "authentication_not_handled",
    "This payment needs an authentication step, and error_on_requires_action was set.",
)

CARDS: tuple[tuple[str, TestCard], ...] = (
    ("visa", TestCard("4242424242424242")),
    ("mastercard", TestCard("5555555555554444", brand="mastercard")),
    ("chargeCustomerFail", TestCard("4000000000000341", decline=GENERIC)),
    ("chargeDeclined", TestCard("4000000000000002", decline=GENERIC, attachable=False)),
    (
        "chargeDeclinedInsufficientFunds",
        TestCard("4000000000009995", decline=INSUFFICIENT_FUNDS, attachable=False),
    ),
    (
        "chargeDeclinedLostCard",
        TestCard("4000000000009987", decline=_declined("lost_card", "Your card was declined."), attachable=False),
    ),
    ("authenticationRequired", TestCard("4000002760003184", needs_authentication=True)),
    ("authenticationRequiredOnSetup", TestCard("4000002500003155", needs_authentication=True)),
)

BY_NUMBER: dict[str, TestCard] = {card.number: card for _, card in CARDS}
#: `pm_card_…` stands wherever a payment method does, `tok_…` in `card[token]`; each use makes a new method.
BY_METHOD_TOKEN: dict[str, TestCard] = {f"pm_card_{name}": card for name, card in CARDS}
BY_CARD_TOKEN: dict[str, TestCard] = {f"tok_{name}": card for name, card in CARDS}
