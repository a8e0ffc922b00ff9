"""Currencies that payments are made in: how many of their decimal places a minor unit stands for.

As Stripe takes amounts (https://docs.stripe.com/currencies): in cents, but for currencies that have none. Where it
takes only some of the amounts that a minor unit allows (whole króna in hundredths, fils in tens), a fee by the day
could be one that it refuses; nothing is collected in those.
"""

from decimal import Decimal

from billing.errors import Rejected

#: A payment of 1000 in one of these is a thousand of it.
WITHOUT_MINOR = frozenset(
    ("BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF")
)
#: Amounts in thousandths, the last digit 0.
IN_THOUSANDTHS = frozenset(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"))
#: Amounts in hundredths, the last two digits 0.
WHOLE_IN_HUNDREDTHS = frozenset({"ISK", "UGX"})


def places(currency: str) -> int:
    """The decimal places of a payment in this currency.

    >>> places("BRL"), places("JPY"), places("KWD")
    (2, 0, 3)
    """
    if currency in WITHOUT_MINOR:
        return 0
    return 3 if currency in IN_THOUSANDTHS else 2


def in_major(amount_minor: int, currency: str) -> Decimal:
    """An amount of minor units, in the currency itself.

    >>> in_major(1000, "BRL"), in_major(1000, "JPY")
    (Decimal('10.00'), Decimal('1000'))
    """
    return Decimal(amount_minor).scaleb(-places(currency))


def in_minor(amount: Decimal, currency: str) -> int | None:
    """An amount of the currency in minor units; None where it is no whole number of them.

    >>> in_minor(Decimal("40.5"), "BRL"), in_minor(Decimal("40"), "JPY"), in_minor(Decimal("40.5"), "JPY")
    (4050, 40, None)
    """
    if not amount.is_finite() or amount.adjusted() >= 15:
        return None
    minor = amount.scaleb(places(currency))
    return int(minor) if minor == minor.to_integral_value() else None


def check_payable(currency: str) -> None:
    """Raises `Rejected` for a currency in which nothing is collected."""
    if currency in IN_THOUSANDTHS | WHOLE_IN_HUNDREDTHS:
        raise Rejected(
            f"nothing is collected in {currency}: Stripe does not take every amount of its minor units; "
            "let it be paid in another currency",
            currency=currency,
        )
