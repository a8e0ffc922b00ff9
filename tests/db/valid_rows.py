"""A small database in which everything is right, and for each table one more row that would be right, too."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from billing.payments import COLLECTABLE, PAID, PaymentState

NOW = datetime(2026, 11, 20, tzinfo=UTC)
OCTOBER = datetime(2026, 10, 1, 3, tzinfo=UTC)
NOVEMBER = datetime(2026, 11, 1, 3, tzinfo=UTC)
DECEMBER = datetime(2026, 12, 1, 3, tzinfo=UTC)
JANUARY = datetime(2027, 1, 1, 3, tzinfo=UTC)
PAYMENT, OTHER_PAYMENT = UUID(int=1), UUID(int=2)
REFUND, OTHER_REFUND = UUID(int=3), UUID(int=4)
GRANT, OTHER_GRANT = UUID(int=5), UUID(int=6)
DELIVERY, OTHER_DELIVERY = UUID(int=7), UUID(int=8)
KEY, OTHER_KEY = UUID(int=9), UUID(int=10)
WALLET, OTHER_WALLET = 1, 2

Row = dict[str, Any]

#: The rows that stand, in an order that foreign keys allow.
STANDING: dict[str, Row] = {
    "tenants": {"tenant_id": "acme", "name": "Acme", "created_at": NOW},
    "plans": {
        "tenant_id": "acme",
        "plan_id": "tiers",
        "version": 1,
        "name": "Tiers",
        "payment_currency": "BRL",
        "fixed_fee_minor": 40_000,
        "included_tokens": 8_000_000,
        "tier_size": 8_000_000,
        "tier_fee_minor": 10_000,
        "created_at": NOW,
    },
    "customers": {
        "tenant_id": "acme",
        "customer_id": "ana",
        "plan_id": "tiers",
        "plan_version": 1,
        "time_zone": "America/Sao_Paulo",
        "billed_from": NOW,
        "created_at": NOW,
    },
    "wallets": {"tenant_id": "acme", "customer_id": "ana", "currency": "USD", "created_at": NOW},
    "credit_grants": {
        "tenant_id": "acme",
        "grant_id": GRANT,
        "wallet_id": WALLET,
        "source": "promo",
        "priority": 20,
        "amount": 10,
        "reason": "new_user_bonus",
        "created_at": NOW,
    },
    "credit_holds": {
        "tenant_id": "acme",
        "hold_id": "h1",
        "customer_id": "ana",
        "wallet_id": WALLET,
        "amount": 5,
        "captured": 1,
        "state": "open",
        "opened_at": NOW,
        "expires_at": DECEMBER,
        "idempotency_key": "hold:1",
        "asked": Jsonb({"amount": "5"}),
    },
    "credit_captures": {
        "tenant_id": "acme",
        "event_key": "k1",
        "customer_id": "ana",
        "hold_id": "h1",
        "taken": 1,
        "at": NOW,
    },
    "ledger_entries": {
        "tenant_id": "acme",
        "wallet_id": WALLET,
        "seq": 1,
        "amount": 10,
        "balance_after": 10,
        "kind": "grant",
        "contra": "grants:promo",
        "idempotency_key": "first",
        "occurred_at": NOW,
        "recorded_at": NOW,
        "grant_id": GRANT,
        "period_start": NOVEMBER,
    },
    "prices": {
        "scope": "",
        "category": "llm",
        "provider": "openai",
        "model": "gpt-4",
        "unit": "token",
        "currency": "USD",
        "unit_price": "0.00003",
        "per": 1,
        "ladder_span": "event",
        "is_provider_default": False,
        "is_ended": False,
        "effective_from": NOVEMBER,
        "revision": 0,
        "created_at": NOW,
    },
    "usage_events": {
        "tenant_id": "acme",
        "key": "k1",
        "customer_id": "ana",
        "status": "charged",
        "occurred_at": NOW,
        "recorded_at": NOW,
        "charged_at": NOW,
        "period_start": NOVEMBER,
        "is_late": False,
        "tokens": 1,
        "cost": 0,
        "items": Jsonb([]),
        "fingerprint": b"f",
        "fingerprint_version": 1,
    },
    "parked_inputs": {
        "input_hash": b"1",
        "raw": b"{",
        "reason": "event_malformed",
        "detail": "not JSON",
        "first_seen_at": NOW,
        "last_seen_at": NOW,
    },
    "periods": {
        "tenant_id": "acme",
        "customer_id": "ana",
        "starts_at": NOVEMBER,
        "ends_at": DECEMBER,
        "plan_id": "tiers",
        "plan_version": 1,
        "time_zone": "America/Sao_Paulo",
        "opened_at": NOVEMBER,
    },
    "period_quantities": {
        "tenant_id": "acme",
        "customer_id": "ana",
        "period_start": NOVEMBER,
        "price_id": 1,
        "quantity": 1,
    },
    "payments": {
        "tenant_id": "acme",
        "payment_id": PAYMENT,
        "customer_id": "ana",
        "period_start": NOVEMBER,
        "kind": "tier",
        "tier": 1,
        "generation": 0,
        "amount_minor": 10_000,
        "currency": "BRL",
        "state": "due",
        "due_at": NOW,
        "stripe_payment_intent_id": "pi_1",
        "created_at": NOW,
        "updated_at": NOW,
    },
    "payment_attempts": {
        "tenant_id": "acme",
        "payment_id": PAYMENT,
        "attempt": 1,
        "state": "submitting",
        "idempotency_key": "pay:1:confirm:1",
        "parameters": Jsonb({}),
        "payment_method_id": "pm_1",
        "started_at": NOW,
    },
    "payment_log": {
        "tenant_id": "acme",
        "payment_id": PAYMENT,
        "at": NOW,
        "source": "usage",
        "to_state": "due",
        "attempt": 0,
        "why": "8,000,001 tokens were used",
    },
    "payment_methods": {
        "tenant_id": "acme",
        "payment_method_id": "pm_1",
        "customer_id": "ana",
        "brand": "visa",
        "last4": "4242",
        "exp_month": 12,
        "exp_year": 2030,
        "attached_at": NOW,
    },
    "customer_holds": {
        "tenant_id": "acme",
        "customer_id": "ana",
        "reason": "hard_decline",
        "since": NOW,
        "detail": "the card was reported lost",
    },
    "refunds": {
        "tenant_id": "acme",
        "refund_id": REFUND,
        "payment_id": PAYMENT,
        "amount_minor": 10_000,
        "reason": "requested_by_customer",
        "idempotency_key": "refund:1",
        "state": "submitting",
        "due_at": NOW,
        "created_at": NOW,
        "updated_at": NOW,
    },
    "disputes": {
        "tenant_id": "acme",
        "stripe_dispute_id": "dp_1",
        "payment_id": PAYMENT,
        "amount_minor": 10_000,
        "status": "needs_response",
        "opened_at": NOW,
        "updated_at": NOW,
    },
    "top_up_rules": {
        "tenant_id": "acme",
        "wallet_id": WALLET,
        "threshold": 5,
        "credit_amount": 20,
        "amount_minor": 10_000,
        "currency": "BRL",
        "monthly_cap_minor": 10_000,
        "is_active": True,
        "updated_at": NOW,
    },
    "alerts": {
        "tenant_id": "acme",
        "kind": "cap_reached",
        "subject": "ana",
        "detail": "20 payments in a day",
        "raised_at": NOW,
        "last_at": NOW,
    },
    "collected_counts": {
        "tenant_id": "acme",
        "customer_id": "ana",
        "starts_at": NOW,
        "payments": 1,
        "amount_minor": 10_000,
    },
    "webhook_events": {
        "event_id": "evt_1",
        "type": "payment_intent.succeeded",
        "payload": Jsonb({}),
        "created_at": NOW,
        "received_at": NOW,
        "source": "delivered",
        "due_at": NOW,
        "payment_id": PAYMENT,
    },
    "envelope_attempts": {"envelope_hash": b"1", "attempts": 1, "last_at": NOW},
    "usage_inbox": {
        "tenant_id": "acme",
        "inbox_id": 1,
        "customer_id": "ana",
        "event": Jsonb({"tenant_id": "acme", "customer_id": "ana"}),
        "written_at": NOW,
    },
    "month_turns": {"tenant_id": "acme", "customer_id": "ana", "due_at": DECEMBER},
    "subscription_log": {
        "tenant_id": "acme",
        "customer_id": "ana",
        "at": NOW,
        "move": "subscribed",
        "effective_at": NOW,
        "detail": Jsonb({}),
    },
    "corrections": {
        "tenant_id": "acme",
        "kind": "void",
        "event_key": "k1",
        "customer_id": "ana",
        "counted_in": NOVEMBER,
        "told_in": NOVEMBER,
        "tokens": -1,
        "cost": -1,
        "currency": "USD",
        "wallet_id": WALLET,
        "seq": 1,
        "reason": "sent by mistake",
        "at": NOW,
    },
    "statement_numbers": {"tenant_id": "acme", "last_number": 1},
    "statements": {
        "tenant_id": "acme",
        "number": 1,
        "customer_id": "ana",
        "period_start": OCTOBER,
        "period_end": NOVEMBER,
        "issued_at": NOW,
        "time_zone": "America/Sao_Paulo",
        "plan_id": "tiers",
        "plan_version": 1,
        "tokens": 8_000_001,
        "events": 1,
        "tiers": 1,
    },
    "statement_balances": {
        "tenant_id": "acme",
        "number": 1,
        "account": "due",
        "currency": "BRL",
        "opening": 0,
        "closing": 100,
    },
    "statement_lines": {
        "tenant_id": "acme",
        "number": 1,
        "line": 1,
        "kind": "tier",
        "account": "due",
        "currency": "BRL",
        "amount": 100,
        "about": Jsonb({"tier": 1}),
        "reference": Jsonb({}),
    },
    "archives": {
        "tenant_id": "acme",
        "archive_id": 1,
        "month": "2026-10",
        "path": "/archive/acme/2026-10",
        "begun_at": NOW,
        "written_at": NOW,
        "events": 2,
        "entries": 1,
        "tokens": 1,
        "cost": 1,
        "bytes": 1,
        "sha256": b"1",
    },
    "checkpoints": {
        "tenant_id": "acme",
        "wallet_id": WALLET,
        "seq": 5,
        "entries": 3,
        "usage_hash": 1,
        "kept_hash": 1,
        "occurred_from": OCTOBER,
        "archive_id": 1,
        "at": NOW,
    },
    "webhook_endpoints": {
        "tenant_id": "acme",
        "url": "https://example.com/hooks",
        "secret": "whsec_AAAA",
        "created_at": NOW,
        "updated_at": NOW,
    },
    "alert_deliveries": {
        "tenant_id": "acme",
        "delivery_id": DELIVERY,
        "alert_id": 1,
        "body": "{}",
        "due_at": NOW,
        "created_at": NOW,
    },
    "alert_causes": {"tenant_id": "acme", "kind": "low_balance", "subject": "1", "customer_id": "ana", "since": NOW},
    "usage_log": {
        "tenant_id": "acme",
        "event_key": "k1",
        "customer_id": "ana",
        "step": "deferred",
        "detail": "",
        "at": NOW,
    },
    "quotas": {
        "tenant_id": "acme",
        "quota_id": 1,
        "name": "tokens",
        "kind": "quota",
        "scope": "customer",
        "subject": "",
        "per": "month",
        "time_zone": "UTC",
        "measure": "tokens",
        "limit_value": 100,
        "is_hard": True,
        "created_at": NOW,
        "updated_at": NOW,
    },
    "quota_counts": {
        "tenant_id": "acme",
        "quota_id": 1,
        "subject": "ana",
        "window_start": NOVEMBER.date(),
        "stripe": 0,
        "used": 1,
    },
    "limit_warnings": {
        "tenant_id": "acme",
        "kind": "quota",
        "number": 1,
        "subject": "ana",
        "window_start": NOVEMBER.date(),
        "limit_value": 100,
        "percent": 80,
        "said_at": NOW,
    },
    "api_keys": {
        "tenant_id": "acme",
        "key_id": KEY,
        "name": "web server",
        "secret_hash": b"1" * 32,
        "capabilities": ["billing.view"],
        "created_at": NOW,
        "created_by": "root",
    },
    "tenant_settings": {"tenant_id": "acme", "affordability_buffer": "1.5", "updated_at": NOW},
    "idempotent_requests": {
        "tenant_id": "acme",
        "idempotency_key": "grant-1",
        "operation": "POST /v1/customers/ana/grants",
        "body_hash": b"1" * 32,
        "made_at": NOW,
        "answered_at": NOW,
        "status": 201,
        "answer": "{}",
    },
    "admin_acts": {
        "tenant_id": "acme",
        "act_id": 1,
        "at": NOW,
        "subject": "root",
        "through": "token",
        "action": "credits.grant",
        "target": "ana",
    },
    "audit_differences": {
        "tenant_id": "acme",
        "check_name": "a check",
        "subject": "ana USD",
        "expected": "1",
        "actual": "2",
        "first_seen_at": NOW,
        "last_seen_at": NOW,
    },
}

#: What makes of some a further row that stands, for others to refer to.
BESIDE: dict[str, Row] = {
    "customers": {"customer_id": "zoe"},
    "tenants": {"tenant_id": "beta"},
    "wallets": {"currency": "GBP"},
    "alerts": {"subject": "zoe"},
    "periods": {
        "starts_at": OCTOBER,
        "ends_at": NOVEMBER,
        "opened_at": OCTOBER,
        "closed_at": NOW,
        "statement_number": 1,
    },
}

#: What makes of each a second row beside it, as right as the first.
ANOTHER: dict[str, Row] = {
    "tenants": {"tenant_id": "other"},
    "plans": {"version": 2},
    "customers": {"customer_id": "bob"},
    "wallets": {"currency": "BRL"},
    "credit_grants": {"grant_id": OTHER_GRANT},
    "credit_holds": {"hold_id": "h2", "idempotency_key": "hold:2"},
    "credit_captures": {"event_key": "k2"},
    "ledger_entries": {"seq": 2, "idempotency_key": None},
    "prices": {"revision": 1},
    "usage_events": {"key": "k2"},
    "parked_inputs": {"input_hash": b"2"},
    "periods": {"starts_at": DECEMBER, "ends_at": JANUARY},
    "period_quantities": {"price_id": 2},
    "payments": {"payment_id": OTHER_PAYMENT, "tier": 2, "stripe_payment_intent_id": "pi_2"},
    "payment_attempts": {"attempt": 2, "state": "declined", "finished_at": NOW, "idempotency_key": "pay:1:confirm:2"},
    "payment_log": {"from_state": "due", "to_state": "submitting", "attempt": 1},
    "payment_methods": {"payment_method_id": "pm_2"},
    "customer_holds": {"reason": "disputed"},
    "refunds": {"refund_id": OTHER_REFUND, "idempotency_key": "refund:2"},
    "disputes": {"stripe_dispute_id": "dp_2"},
    "top_up_rules": {"wallet_id": OTHER_WALLET},
    "alerts": {"subject": "bob"},
    "collected_counts": {"customer_id": ""},
    "webhook_events": {"event_id": "evt_2", "due_at": None, "worked_at": NOW, "outcome": "ignored"},
    "envelope_attempts": {"envelope_hash": b"2"},
    "usage_inbox": {"inbox_id": 2},
    "month_turns": {"customer_id": "zoe"},
    "subscription_log": {"move": "paused"},
    "corrections": {"event_key": "k2"},
    "statement_numbers": {"tenant_id": "beta"},
    "statements": {"number": 2, "period_start": NOVEMBER, "period_end": DECEMBER},
    "statement_balances": {"account": "wallet"},
    "statement_lines": {"line": 2},
    "archives": {"archive_id": 2, "finished_at": NOW},
    "checkpoints": {"wallet_id": OTHER_WALLET},
    "webhook_endpoints": {"tenant_id": "beta"},
    "alert_deliveries": {"delivery_id": OTHER_DELIVERY, "alert_id": 2},
    "alert_causes": {"subject": "2"},
    "usage_log": {"step": "settled"},
    "quotas": {"quota_id": 2, "name": "other tokens"},
    "quota_counts": {"subject": "bob"},
    "limit_warnings": {"percent": 100},
    "tenant_settings": {"tenant_id": "beta"},
    "api_keys": {"key_id": OTHER_KEY},
    "idempotent_requests": {"idempotency_key": "grant-2"},
    "admin_acts": {"act_id": 2, "action": "top_up.request"},
    "audit_differences": {"subject": "bob USD"},
}

#: What makes a top-up of a payment of a tier.
TOP_UP: Row = {"kind": "top_up", "tier": 0, "reference": "auto:1", "wallet_id": WALLET, "credit_amount": 20}


def payment_in(state: PaymentState, attempts_made: int = 1) -> Row:
    """What of a payment goes with its state."""
    return {
        "state": state.value,
        "attempts_made": attempts_made,
        "due_at": NOW if state in COLLECTABLE else None,
        "succeeded_at": NOW if state in PAID else None,
        "refunded_minor": {PaymentState.PARTIALLY_REFUNDED: 1, PaymentState.REFUNDED: 10_000}.get(state, 0),
    }


def stand(connection: psycopg.Connection) -> None:
    """All the rows that stand."""
    for table, row in STANDING.items():
        insert(connection, table, row)
        if table in BESIDE:
            insert(connection, table, row | BESIDE[table])


def insert(connection: psycopg.Connection, table: str, row: Row) -> None:
    """One row as it is, with an id of ours where one is given."""
    names = sql.SQL(", ").join(map(sql.Identifier, row))
    values = sql.SQL(", ").join(sql.Placeholder() * len(row))
    statement = sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE VALUES ({})")
    connection.execute(statement.format(sql.Identifier(table), names, values), list(row.values()))


def another(table: str, **changes: Any) -> Row:
    """A further row of a table, right but for the changes."""
    if table not in STANDING:
        return changes
    return STANDING[table] | ANOTHER[table] | changes
