"""The cards of one double: Stripe's test cards, and those whose behaviour a test has scripted."""

import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sandbox.stripe_double.cards import BY_CARD_TOKEN, BY_METHOD_TOKEN, BY_NUMBER, CardDecline, TestCard
from sandbox.stripe_double.objects import PaymentMethod
from sandbox.stripe_double.wishes import Step

#: Declines whose error has a code of its own; every other one's is `card_declined`.
#: Source: https://docs.stripe.com/error-codes
OWN_CODES = frozenset(
    {"authentication_required", "expired_card", "incorrect_cvc", "incorrect_number", "processing_error"}
)
METHOD_TOKEN_PREFIX = "pm_card_"  # noqa: S105 - the name of a test card


class UnknownCard(ValueError):
    """What is to be scripted is neither a card number, a `pm_card_…` token nor a payment method that exists."""


@dataclass(frozen=True)
class _Script:
    steps: tuple[Step, ...]
    then: Step | None

    def step(self, number: int) -> Step | None:
        return self.steps[number] if number < len(self.steps) else self.then


class CardBook:
    """Cards by number and token, and the scripts of some.

    A script is followed once for each customer: the issuer knows the card, whichever payment method holds it.
    """

    def __init__(self) -> None:
        self._by_number = dict(BY_NUMBER)
        self._by_method_token = dict(BY_METHOD_TOKEN)
        self._scripts: dict[str, _Script] = {}
        self._followed: Counter[tuple[str, str | None]] = Counter()

    def of_number(self, number: str) -> TestCard | None:
        return self._by_number.get(number.replace(" ", ""))

    def of_method_token(self, token: str) -> TestCard | None:
        return self._by_method_token.get(token)

    def of_card_token(self, token: str) -> TestCard | None:
        return BY_CARD_TOKEN.get(token)

    def script(self, card: str, steps: Sequence[Step], then: Step | None, methods: dict[str, PaymentMethod]) -> str:
        """Let a card follow these steps, then `then` (or its own ways); gives its number, or its id as sent.

        A number or a `pm_card_…` token that no test card has makes a new card. A script takes the place of an
        earlier one, and begins anew. Raises UnknownCard.
        """
        scripted = card if card in methods else self._number(card)
        self._scripts[scripted] = _Script(tuple(steps), then)
        for followed in [one for one in self._followed if one[0] == scripted]:
            del self._followed[followed]
        return scripted

    def next_step(self, method: PaymentMethod, customer: str | None) -> Step | None:
        """What this card does now, and one step further; None if it goes its own ways."""
        for scripted in (method.id, method.card.number):
            if scripted in self._scripts:
                followed = (scripted, customer)
                self._followed[followed] += 1
                return self._scripts[scripted].step(self._followed[followed] - 1)
        return None

    def _number(self, card: str) -> str:
        number = card.replace(" ", "")
        if number.isdecimal() and 13 <= len(number) <= 19:
            self._by_number.setdefault(number, TestCard(number))
            self._make_attachable(number)
            return number
        if not card.startswith(METHOD_TOKEN_PREFIX):
            raise UnknownCard(f"{card!r} is neither a card number, a pm_card_… token nor a known payment method.")
        if card not in self._by_method_token:
            self._by_method_token[card] = self._new_card()
        number = self._by_method_token[card].number
        self._make_attachable(number)
        return number

    def _make_attachable(self, number: str) -> None:
        """A card that is refused at the customer would never come to follow its script."""
        card = replace(self._by_number[number], attachable=True)
        self._by_number[number] = card
        tokens = [token for token, one in self._by_method_token.items() if one.number == number]
        self._by_method_token.update(dict.fromkeys(tokens, card))

    def _new_card(self) -> TestCard:
        made = TestCard(f"400012{secrets.randbelow(10**10):010}")
        self._by_number[made.number] = made
        return made


def decline_of(step: Step) -> CardDecline:
    """The decline that a step describes."""
    decline_code = step.decline_code or "generic_decline"
    return CardDecline(
        step.code or (decline_code if decline_code in OWN_CODES else "card_declined"),
        decline_code,
        step.message,
        advice_code=step.advice_code,
        network_advice_code=step.network_advice_code,
        network_decline_code=step.network_decline_code,
        outcome_reason=step.outcome_reason,
    )
