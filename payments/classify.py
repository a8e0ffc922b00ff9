"""What a decline means for the next try. Pure; the codes are Stripe's.

Sources: https://docs.stripe.com/declines/codes and https://docs.stripe.com/declines/card#retrying-issuer-declines
"""

from enum import StrEnum

from payments.gateway import Decline


class DeclineClass(StrEnum):
    """Whether, and how, the same card may be tried again."""

    HARD = "hard"
    """Never again with this card."""
    CUSTOMER_NEEDED = "customer_needed"
    """Not before the customer has done something."""
    SOFT = "soft"
    """Again, on the dunning schedule."""
    UNKNOWN = "unknown"
    """Once more, as if soft; then treat it as hard."""


BY_ADVICE: dict[str, DeclineClass] = {
    "do_not_try_again": DeclineClass.HARD,
    "confirm_card_data": DeclineClass.CUSTOMER_NEEDED,
    "try_again_later": DeclineClass.SOFT,
}

#: Mastercard's "do not try again" and "payment cancelled"; other network advice only says when.
NEVER_BY_NETWORK_ADVICE = frozenset({"03", "21"})

HARD_CODES = frozenset(
    {
        "card_not_supported",
        "currency_not_supported",
        "expired_card",
        "fraudulent",
        "highest_risk_level",
        "incorrect_cvc",
        "incorrect_number",
        "invalid_account",
        "lost_card",
        "pickup_card",
        "previously_declined_do_not_retry",
        "restricted_card",
        "revocation_of_all_authorizations",
        "revocation_of_authorization",
        "security_violation",
        "stolen_card",
        "stop_payment_order",
        "transaction_not_allowed",
    }
)
HARD_PREFIX = "invalid_expiry_"  # …month, …year

CUSTOMER_CODES = frozenset({"authentication_required", "authentication_not_handled"})

SOFT_CODES = frozenset(
    {
        "card_velocity_exceeded",
        "do_not_honor",
        "generic_decline",
        "insufficient_funds",
        "issuer_not_available",
        "processing_error",
        "reenter_transaction",
        "try_again_later",
    }
)

#: Says "declined" and nothing more: as the outcome's reason it must not hide a telling decline code.
UNTELLING_REASON = "generic_decline"


#: What may be said to the customer; whatever is not here is just a card that was declined.
TELLABLE = {
    "insufficient_funds": "insufficient_funds",
    "expired_card": "expired_card",
    "incorrect_cvc": "incorrect_details",
    "incorrect_number": "incorrect_details",
    "authentication_required": "authentication_needed",
    "authentication_not_handled": "authentication_needed",
    "issuer_not_available": "try_again_later",
    "processing_error": "try_again_later",
    "try_again_later": "try_again_later",
}


def told_to_customer(code: str | None) -> str:
    """What a customer may be told of a decline, as a word of ours.

    Never that somebody suspects fraud, or that a card was reported lost or stolen: Stripe asks for that, because the
    one who reads it may be the thief.

    >>> told_to_customer("insufficient_funds"), told_to_customer("stolen_card")
    ('insufficient_funds', 'card_declined')
    """
    if code is not None and code.startswith(HARD_PREFIX):
        return "incorrect_details"
    return TELLABLE.get(code or "", "card_declined")


def classify(decline: Decline) -> DeclineClass:
    """Say what a decline means, the most authoritative word first: issuer, network, Stripe, code.

    >>> classify(Decline(code="card_declined", decline_code="insufficient_funds")).value
    'soft'
    >>> classify(Decline(code="card_declined", decline_code="insufficient_funds", network_advice_code="03")).value
    'hard'
    """
    if decline.advice_code in BY_ADVICE:
        return BY_ADVICE[decline.advice_code]
    if decline.network_advice_code in NEVER_BY_NETWORK_ADVICE:
        return DeclineClass.HARD
    reason = decline.outcome_reason
    if reason != UNTELLING_REASON and (by_reason := _by_code(reason)) is not DeclineClass.UNKNOWN:
        return by_reason
    return _by_code(decline.decline_code or decline.code)


def _by_code(code: str | None) -> DeclineClass:
    if code is None:
        return DeclineClass.UNKNOWN
    if code in HARD_CODES or code.startswith(HARD_PREFIX):
        return DeclineClass.HARD
    if code in CUSTOMER_CODES:
        return DeclineClass.CUSTOMER_NEEDED
    return DeclineClass.SOFT if code in SOFT_CODES else DeclineClass.UNKNOWN
