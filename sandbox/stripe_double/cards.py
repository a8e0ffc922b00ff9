"""The test cards, as Stripe documents them, and what each does.

Source: https://docs.stripe.com/testing (cards by number and by `pm_card_…` token).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class CardDecline:
    """What an issuer says when it refuses, and what the charge's outcome tells beyond it."""

    code: str
    decline_code: str | None
    message: str
    advice_code: str | None = None
    network_advice_code: str | None = None
    network_decline_code: str | None = None
    outcome_reason: str | None = None

    @property
    def reason(self) -> str:
        return self.outcome_reason or self.decline_code or self.code


@dataclass(frozen=True)
class TestCard:
    """A card number and its behaviour. One that isn't attachable is refused at the customer already.

    A card that needs authentication needs it every time, unless it `can_be_set_up` for off-session use.
    """

    __test__ = False

    number: str
    brand: str = "visa"
    decline: CardDecline | None = None
    attachable: bool = True
    needs_authentication: bool = False
    can_be_set_up: bool = False
    is_disputed: bool = False


def _declined(decline_code: str, message: str) -> CardDecline:
    return CardDecline("card_declined", decline_code, message)


def _wrong(code: str, message: str) -> CardDecline:
    """A decline that says itself what is wrong, without a decline code."""
    return CardDecline(code, None, message)


GENERIC = _declined("generic_decline", "Your card was declined.")
INSUFFICIENT_FUNDS = _declined("insufficient_funds", "Your card has insufficient funds.")
NOT_A_TEST_CARD = _declined(
    "test_mode_live_card", "Your card was declined: this is a double, and it knows Stripe's test cards alone."
)

EXPIRED = _wrong("expired_card", "Your card has expired.")
INCORRECT_CVC = _wrong("incorrect_cvc", "Your card's security code is incorrect.")
PROCESSING_ERROR = _wrong("processing_error", "An error occurred while processing your card.")
#: The customer was asked, and failed.
AUTHENTICATION_FAILED, SETUP_AUTHENTICATION_FAILED = (
    _wrong(f"{intent}_authentication_failure", "We are unable to authenticate your payment method.")
    for intent in ("payment_intent", "setup_intent")
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
    (
        "chargeDeclinedStolenCard",
        TestCard("4000000000009979", decline=_declined("stolen_card", "Your card was declined."), attachable=False),
    ),
    ("chargeDeclinedExpiredCard", TestCard("4000000000000069", decline=EXPIRED, attachable=False)),
    ("chargeDeclinedIncorrectCvc", TestCard("4000000000000127", decline=INCORRECT_CVC, attachable=False)),
    ("chargeDeclinedProcessingError", TestCard("4000000000000119", decline=PROCESSING_ERROR, attachable=False)),
    ("authenticationRequired", TestCard("4000002760003184", needs_authentication=True)),
    (
        "authenticationRequiredOnSetup",
        TestCard("4000002500003155", needs_authentication=True, can_be_set_up=True),
    ),
    ("createDispute", TestCard("4000000000000259", is_disputed=True)),
)

BY_NUMBER: dict[str, TestCard] = {card.number: card for _, card in CARDS}
#: `pm_card_…` stands wherever a payment method does, `tok_…` in `card[token]`; each use makes a new method.
BY_METHOD_TOKEN: dict[str, TestCard] = {f"pm_card_{name}": card for name, card in CARDS}
BY_CARD_TOKEN: dict[str, TestCard] = {f"tok_{name}": card for name, card in CARDS}
