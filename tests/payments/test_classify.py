"""What a decline means for the next try."""

import pytest

from payments.classify import (
    CUSTOMER_CODES,
    HARD_CODES,
    SOFT_CODES,
    TELLABLE,
    DeclineClass,
    classify,
    told_to_customer,
)
from payments.gateway import Decline

HARD, CUSTOMER, SOFT, UNKNOWN = (
    DeclineClass.HARD,
    DeclineClass.CUSTOMER_NEEDED,
    DeclineClass.SOFT,
    DeclineClass.UNKNOWN,
)

BY_CODE = {
    "incorrect_number": HARD,
    "lost_card": HARD,
    "stolen_card": HARD,
    "pickup_card": HARD,
    "revocation_of_authorization": HARD,
    "revocation_of_all_authorizations": HARD,
    "highest_risk_level": HARD,
    "expired_card": HARD,
    "invalid_account": HARD,
    "card_not_supported": HARD,
    "currency_not_supported": HARD,
    "fraudulent": HARD,
    "restricted_card": HARD,
    "security_violation": HARD,
    "stop_payment_order": HARD,
    "transaction_not_allowed": HARD,
    "incorrect_cvc": HARD,
    "invalid_expiry_month": HARD,
    "invalid_expiry_year": HARD,
    "authentication_required": CUSTOMER,
    "authentication_not_handled": CUSTOMER,
    "insufficient_funds": SOFT,
    "generic_decline": SOFT,
    "do_not_honor": SOFT,
    "card_velocity_exceeded": SOFT,
    "issuer_not_available": SOFT,
    "processing_error": SOFT,
    "try_again_later": SOFT,
    "reenter_transaction": SOFT,
    "a_code_of_next_year": UNKNOWN,
}


@pytest.mark.parametrize(("code", "expected"), BY_CODE.items())
def test_each_code_has_its_class(code: str, expected: DeclineClass) -> None:
    assert classify(Decline(code="card_declined", decline_code=code)) is expected
    assert classify(Decline(code=code)) is expected


@pytest.mark.parametrize(
    ("decline", "expected"),
    [
        (Decline("card_declined", "insufficient_funds", advice_code="do_not_try_again"), HARD),
        (Decline("card_declined", "insufficient_funds", advice_code="confirm_card_data"), CUSTOMER),
        (Decline("card_declined", "lost_card", advice_code="try_again_later"), SOFT),
        (Decline("card_declined", "do_not_honor", advice_code="an_advice_of_next_year"), SOFT),
        (Decline("card_declined", "insufficient_funds", network_advice_code="03"), HARD),
        (Decline("card_declined", "insufficient_funds", network_advice_code="21"), HARD),
        (Decline("card_declined", "insufficient_funds", network_advice_code="02"), SOFT),
        (
            Decline("card_declined", "do_not_honor", advice_code="try_again_later", network_advice_code="03"),
            SOFT,
        ),
        (
            Decline("card_declined", "generic_decline", outcome_reason="previously_declined_do_not_retry"),
            HARD,
        ),
        (
            Decline(
                "card_declined",
                "generic_decline",
                network_advice_code="21",
                outcome_reason="insufficient_funds",
            ),
            HARD,
        ),
        (Decline("card_declined", "generic_decline", outcome_reason="highest_risk_level"), HARD),
        (Decline("card_declined", "stolen_card", outcome_reason="generic_decline"), HARD),
        (Decline("card_declined", "stolen_card", outcome_reason="rule"), HARD),
        (Decline("expired_card", "insufficient_funds"), SOFT),
        (Decline("expired_card"), HARD),
        (Decline("card_declined"), UNKNOWN),
        (Decline(None), UNKNOWN),
    ],
)
def test_the_issuers_advice_goes_before_the_networks_before_the_outcome_before_the_code(
    decline: Decline, expected: DeclineClass
) -> None:
    assert classify(decline) is expected


@pytest.mark.parametrize("code", sorted({*HARD_CODES, *SOFT_CODES, *CUSTOMER_CODES, "never_heard_of"}))
def test_the_customer_is_never_told_of_fraud(code: str) -> None:
    """Nor that the card was reported lost: who reads it may be the thief."""
    told = told_to_customer(code)

    assert told in {*TELLABLE.values(), "card_declined"}
    assert not any(word in told for word in ("fraud", "stolen", "lost", "risk", "security", "pickup", "restricted"))


@pytest.mark.parametrize("code", ["fraudulent", "stolen_card", "lost_card", "highest_risk_level", "security_violation"])
def test_what_smells_of_fraud_is_just_a_declined_card(code: str) -> None:
    assert told_to_customer(code) == "card_declined"


def test_the_words_for_customers_are_part_of_the_codes_we_know() -> None:
    assert set(TELLABLE) - HARD_CODES <= SOFT_CODES | CUSTOMER_CODES
