"""Statements to look at: one as a customer gets it, one with everything that goes wrong on a page."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from typing import Any

from billing.money import ZERO
from billing.statements import AccountKind, Balance, Line, LineKind, Statement

DUE, WALLET = AccountKind.DUE, AccountKind.WALLET
MARKUP = "<script>alert('x')</script>&amp;"
RIGHT_TO_LEFT = "عميل رقم ٤٢"
TURNING = "ana\u202egnp.exe\u2066"
LONG = "a-customer-whose-id-has-no-place-to-break-" * 5

_OPENINGS = {(DUE, "BRL"): Decimal("49.90"), (WALLET, "USD"): Decimal("3.274"), (WALLET, "CREDIT"): Decimal(120)}


def a_line(kind: LineKind, amount: str = "0", account: AccountKind | None = None, **fields: Any) -> Line:
    """A line; it gets its number from its statement."""
    quantity = fields.pop("quantity", None)
    return Line(
        number=0,
        kind=kind,
        amount=Decimal(amount),
        account=account,
        quantity=None if quantity is None else Decimal(quantity),
        **fields,
    )


def of(*lines: Line, **fields: Any) -> Statement:
    """A statement with these lines: numbered, and with closing balances that they come to."""
    numbered = tuple(replace(line, number=number) for number, line in zip(count(1), lines, strict=False))
    statement = Statement(
        tenant_id="acme",
        tenant_name="Acme Inteligência",
        customer_id="padaria-sao-joao",
        number=42,
        issued_at=datetime(2026, 12, 1, 5, 12, 7, tzinfo=UTC),
        period_start=datetime(2026, 11, 1, 3, tzinfo=UTC),
        period_end=datetime(2026, 12, 1, 3, tzinfo=UTC),
        time_zone="America/Sao_Paulo",
        plan_id="pro",
        plan_version=3,
        plan_name="Profissional",
        tokens=18_500_000,
        included_tokens=8_000_000,
        tiers=2,
        events=48_213,
        balances=tuple(_balances(numbered)),
        lines=numbered,
    )
    return replace(statement, **fields)


def _balances(lines: Iterable[Line]) -> Iterable[Balance]:
    moved = {(line.account, line.currency): ZERO for line in lines if line.account and line.currency}
    for line in lines:
        if line.account and line.currency:
            moved[line.account, line.currency] += line.amount
    for (account, currency), amount in moved.items():
        assert account is not None
        assert currency is not None
        opening = _OPENINGS.get((account, currency), ZERO)
        yield Balance(account, currency, opening, opening + amount)


def product(model: str, provider: str = "openai", category: str = "llm_prompt") -> dict[str, Any]:
    return {"category": category, "provider": provider, "model": model}


def a_statement() -> Statement:
    """A month of a small company: two tiers, a payment, a refund, usage in dollars and in credits."""
    return of(
        a_line(LineKind.FEE, "199.90", DUE, currency="BRL", reference={"payment_id": payment(1)}),
        a_line(LineKind.TIER, "100", DUE, currency="BRL", about={"tier": 1}, reference={"payment_id": payment(2)}),
        a_line(LineKind.TIER, "100", DUE, currency="BRL", about={"tier": 2}, reference={"payment_id": payment(3)}),
        a_line(LineKind.TOP_UP, "50", DUE, currency="BRL", reference={"payment_id": payment(4)}),
        a_line(LineKind.COLLECTED, "-249.80", DUE, currency="BRL", reference={"payment_id": payment(1)}),
        a_line(LineKind.COLLECTED, "-100", DUE, currency="BRL", reference={"payment_id": payment(2)}),
        a_line(LineKind.REFUNDED, "20", DUE, currency="BRL", reference={"payment_id": payment(2)}),
        a_line(LineKind.VOIDED, "-50", DUE, currency="BRL", reference={"payment_id": payment(4)}),
        *_used(),
        a_line(LineKind.GRANT, "5", WALLET, currency="USD", about={"source": "promo"}, reference={"entry": 1}),
        a_line(LineKind.PURCHASE, "25", WALLET, currency="USD", reference={"entry": 2, "payment_id": payment(4)}),
        a_line(LineKind.BREAKAGE, "-0.5", WALLET, currency="USD", about={"source": "free"}, reference={"entry": 17}),
        a_line(LineKind.VOID, "0.1875", WALLET, currency="USD", reference={"event_key": "call-8841", "entry": 18}),
        a_line(
            LineKind.USAGE,
            "-214",
            WALLET,
            currency="CREDIT",
            quantity="214",
            unit="message",
            events=214,
            about=product("whatsapp", "meta", "telephony"),
        ),
        a_line(LineKind.GRANT, "300", WALLET, currency="CREDIT", about={"source": "free"}, reference={"entry": 5}),
        a_line(LineKind.COVERED, quantity="15250000", unit="token", events=31_877, about=product("gpt-4o", "openai")),
        a_line(
            LineKind.COVERED,
            quantity="3250000",
            unit="token",
            events=31_877,
            about=product("gpt-4o", "openai", "llm_completion"),
        ),
        a_line(
            LineKind.CORRECTED,
            events=1,
            about=product("whisper-1", "openai", "stt"),
            reference={"event_key": "call-8841", "period_start": "2026-10-01T03:00:00Z"},
        ),
    )


def _used() -> Iterable[Line]:
    """What was used of the wallet in dollars."""
    used = (
        ("whisper-1", "openai", "stt", "12840.5", "second", 1204, "1.28405"),
        ("eleven_multilingual_v2", "elevenlabs", "tts", "482113", "character", 3310, "14.46339"),
        ("voice", "twilio", "telephony", "214.25", "minute", 97, "2.999500"),
        ("text-embedding-3-small", "openai", "llm_prompt", "93411", "token", 810, "0.00186822"),
    )
    for model, provider, category, quantity, unit, events, cost in used:
        about = product(model, provider, category)
        yield a_line(
            LineKind.USAGE,
            f"-{cost}",
            WALLET,
            currency="USD",
            quantity=quantity,
            unit=unit,
            events=events,
            about=about,
        )


def an_extreme_statement(products: int = 300) -> Statement:
    """Other people's texts at their worst, the longest numbers, every kind of line, and hundreds of products."""
    names = (MARKUP, RIGHT_TO_LEFT, TURNING, LONG, "客户四十二 🦜", "Žluťoučký kůň", "e\u0301" * 40, "a\x00b\x1b[31m")
    usage = (
        a_line(
            LineKind.USAGE,
            f"-{number}.{number:012d}",
            WALLET,
            currency="USD",
            quantity=f"{number}.5",
            unit=MARKUP if number == 3 else "second",
            events=number,
            about=product(f"{names[number % len(names)]} {number}", names[(number + 1) % len(names)], "stt"),
            reference={"entry": [number, number + 1], "elsewhere": {"of": MARKUP}},
        )
        for number in range(1, products + 1)
    )
    every_kind = (a_line(kind, "0.10", DUE, currency="JPY", about={"source": LONG}) for kind in LineKind)
    huge = a_line(
        LineKind.GRANT, "123456789012345678.000000000001", WALLET, currency="POINTS", about={"source": MARKUP}
    )
    told = (a_line(kind, about=product(LONG), reference={"event_key": LONG}) for kind in LineKind)
    return of(
        *usage,
        *every_kind,
        huge,
        *told,
        tenant_name=f"{MARKUP} {RIGHT_TO_LEFT}",
        customer_id=f"{TURNING} {LONG}",
        plan_name=MARKUP,
        time_zone="Asia/Kathmandu",
    )


def payment(number: int) -> str:
    """A payment's id."""
    return f"0b7c41d2-5a19-5e7e-9d0f-{number:012d}"
