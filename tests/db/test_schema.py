"""What the schema itself refuses: for each constraint, index and trigger one try to break it."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import errors, sql
from psycopg.types.json import Jsonb

from billing.payments import COLLECTABLE, PAID, RANKS, PaymentState, is_forward
from billing.plans import GRACE_HOURS_MAX, GRACE_HOURS_MIN
from tests.db.valid_rows import (
    ANOTHER,
    DECEMBER,
    DELIVERY,
    GRANT,
    JANUARY,
    KEY,
    NOVEMBER,
    NOW,
    OCTOBER,
    OTHER_PAYMENT,
    PAYMENT,
    REFUND,
    STANDING,
    TOP_UP,
    WALLET,
    another,
    insert,
    payment_in,
    stand,
)

Case = tuple[str, str, dict[str, Any]]

SUBMITTED = (PaymentState.SUBMITTING, PaymentState.PROCESSING)
NOBODYS = UUID(int=9)


def _written(**fields: str) -> Jsonb:
    """An event in the inbox, of the customer who stands there unless told otherwise."""
    return Jsonb({"tenant_id": "acme", "customer_id": "ana"} | fields)


#: As `BROKEN`, for what goes with a payment's state and kind.
BROKEN_PAYMENTS: list[Case] = [
    ("payments_pkey", "payments", {"payment_id": PAYMENT}),
    ("payments_natural_key", "payments", {"tier": 1}),
    ("payments_intent", "payments", {"stripe_payment_intent_id": "pi_1"}),
    ("payments_customers_fkey", "payments", {"customer_id": "nobody"}),
    ("payments_kind_check", "payments", {"kind": "gift", "tier": 0}),
    ("payments_state_check", "payments", {"state": "paid", "due_at": None}),
    ("payments_amount_check", "payments", {"amount_minor": 0}),
    ("payments_unowed_check", "payments", {"kind": "subscription", "tier": 0, "unowed_at": NOW}),
    ("payments_unowed_check", "payments", TOP_UP | {"unowed_at": NOW}),
    ("payments_tier_check", "payments", {"generation": -1}),
    ("payments_tier_check", "payments", {"tier": 0}),
    ("payments_tier_check", "payments", TOP_UP | {"tier": 1}),
    ("payments_tier_check", "payments", {"kind": "subscription"}),
    ("payments_top_up_check", "payments", {"kind": "top_up", "tier": 0}),
    ("payments_top_up_check", "payments", TOP_UP | {"reference": ""}),
    ("payments_top_up_check", "payments", TOP_UP | {"wallet_id": None}),
    ("payments_top_up_check", "payments", TOP_UP | {"credit_amount": 0}),
    ("payments_top_up_check", "payments", TOP_UP | {"credit_amount": None}),
    ("payments_top_up_check", "payments", {"reference": "other"}),
    ("payments_top_up_check", "payments", {"credit_amount": 1}),
    ("payments_wallets_fkey", "payments", TOP_UP | {"wallet_id": 99}),
    ("payments_top_up_check", "payments", TOP_UP | {"kind": "subscription"}),
    ("payments_top_up_check", "payments", TOP_UP | {"kind": "tier", "tier": 2}),
    *[
        ("payments_paid_check", "payments", payment_in(state) | {"succeeded_at": None, "refunded_minor": 0})
        for state in sorted(PAID)
    ],
    *[
        ("payments_paid_check", "payments", payment_in(state) | {"succeeded_at": NOW})
        for state in PaymentState
        if state not in PAID
    ],
    *[("payments_due_check", "payments", payment_in(state) | {"due_at": None}) for state in sorted(COLLECTABLE)],
    *[
        ("payments_due_check", "payments", payment_in(state) | {"due_at": NOW})
        for state in PaymentState
        if state not in COLLECTABLE
    ],
    *[("payments_submitted_check", "payments", payment_in(state, 0)) for state in SUBMITTED],
    *[
        ("payments_submitted_check", "payments", payment_in(state) | {"stripe_payment_intent_id": None})
        for state in SUBMITTED
    ],
    ("payments_refunded_check", "payments", {"refunded_minor": -1}),
    ("payments_refunded_check", "payments", {"refunded_minor": 1}),
    ("payments_refunded_check", "payments", payment_in(PaymentState.REFUNDED) | {"refunded_minor": 10_001}),
    ("payments_refunded_check", "payments", payment_in(PaymentState.REFUNDED) | {"refunded_minor": 9_999}),
    ("payments_refunded_check", "payments", payment_in(PaymentState.PARTIALLY_REFUNDED) | {"refunded_minor": 0}),
    ("payments_refunded_check", "payments", payment_in(PaymentState.PARTIALLY_REFUNDED) | {"refunded_minor": 10_000}),
    ("payments_credit_check", "payments", TOP_UP | {"credit_given": 1}),
    ("payments_credit_check", "payments", TOP_UP | {"credit_given": "-0.000000000001"}),
    (
        "payments_credit_check",
        "payments",
        TOP_UP | payment_in(PaymentState.SUCCEEDED) | {"credit_given": "20.000000000001"},
    ),
    ("payments_credit_check", "payments", payment_in(PaymentState.SUCCEEDED) | {"credit_given": "0.000000000001"}),
    ("payment_attempts_pkey", "payment_attempts", {"attempt": 1}),
    ("payment_attempts_payments_fkey", "payment_attempts", {"payment_id": NOBODYS}),
    ("payment_attempts_open", "payment_attempts", {"state": "submitting", "finished_at": None}),
    ("payment_attempts_open", "payment_attempts", {"state": "processing", "finished_at": None}),
    ("payment_attempts_state_check", "payment_attempts", {"state": "lost"}),
    ("payment_attempts_attempt_check", "payment_attempts", {"attempt": 0}),
    *[
        ("payment_attempts_finished_check", "payment_attempts", {"state": state, "finished_at": NOW})
        for state in ("submitting", "processing")
    ],
    *[
        ("payment_attempts_finished_check", "payment_attempts", {"state": state, "finished_at": None})
        for state in ("succeeded", "declined", "abandoned")
    ],
]

UNWRITTEN = dict.fromkeys(("written_at", "events", "entries", "tokens", "cost", "bytes", "sha256"))
NEXT_PLAN = {"next_plan_id": "tiers", "next_plan_version": 1, "next_plan_at": DECEMBER}
VOIDED = {"status": "voided", "voided_at": NOW, "void_reason": "sent by mistake"}
ENDING = {"valid_from": NOVEMBER, "expires_at": DECEMBER, "breaks_at": DECEMBER}

#: As `BROKEN`, for grants, corrections and statements.
BROKEN_MONTHS: list[Case] = [
    ("credit_grants_pkey", "credit_grants", {"grant_id": GRANT}),
    ("credit_grants_wallets_fkey", "credit_grants", {"wallet_id": 99}),
    ("credit_grants_source_check", "credit_grants", {"source": "usage"}),
    ("credit_grants_amounts_check", "credit_grants", {"amount": 0}),
    ("credit_grants_amounts_check", "credit_grants", {"paid_debt": "-0.000000000001"}),
    ("credit_grants_validity_check", "credit_grants", {"expires_at": DECEMBER}),
    ("credit_grants_validity_check", "credit_grants", {"breaks_at": DECEMBER}),
    ("credit_grants_validity_check", "credit_grants", ENDING | {"breaks_at": NOW}),
    ("credit_grants_validity_check", "credit_grants", ENDING | {"valid_from": DECEMBER}),
    ("month_turns_pkey", "month_turns", {"customer_id": "ana"}),
    ("month_turns_customers_fkey", "month_turns", {"customer_id": "nobody"}),
    ("subscription_log_pkey", "subscription_log", {"entry_id": 1}),
    ("subscription_log_customers_fkey", "subscription_log", {"customer_id": "nobody"}),
    ("subscription_log_move_check", "subscription_log", {"move": "regretted"}),
    ("corrections_pkey", "corrections", {"correction_id": 1}),
    ("corrections_voided", "corrections", {"event_key": "k1"}),
    ("corrections_customers_fkey", "corrections", {"customer_id": "nobody"}),
    ("corrections_kind_check", "corrections", {"kind": "whim"}),
    ("corrections_currency_check", "corrections", {"currency": None}),
    ("corrections_entry_check", "corrections", {"wallet_id": None}),
    ("corrections_entry_check", "corrections", {"seq": None}),
    ("corrections_entry_check", "corrections", {"wallet_id": None, "seq": None}),
    ("statement_numbers_pkey", "statement_numbers", {"tenant_id": "acme"}),
    ("statement_numbers_tenants_fkey", "statement_numbers", {"tenant_id": "nobody"}),
    ("statements_pkey", "statements", {"number": 1}),
    ("statements_tenant_id_customer_id_period_start_key", "statements", {"period_start": OCTOBER}),
    ("statements_periods_fkey", "statements", {"period_start": DECEMBER}),
    ("statements_number_check", "statements", {"number": 0}),
    ("statement_balances_pkey", "statement_balances", {"account": "due"}),
    ("statement_balances_statements_fkey", "statement_balances", {"number": 9}),
    ("statement_balances_account_check", "statement_balances", {"account": "savings"}),
    ("statement_lines_pkey", "statement_lines", {"line": 1}),
    ("statement_lines_statements_fkey", "statement_lines", {"number": 9}),
    ("statement_lines_kind_check", "statement_lines", {"kind": "gift"}),
    ("statement_lines_account_check", "statement_lines", {"account": "savings"}),
    ("statement_lines_amount_check", "statement_lines", {"account": None}),
    ("statement_lines_currency_check", "statement_lines", {"currency": None}),
]

#: Which constraint (or unique index), on which table, and the change to a valid row that it refuses.
BROKEN: list[Case] = [
    ("installation_pkey", "installation", {"is_only": True}),
    ("installation_only_one_check", "installation", {"is_only": False}),
    ("price_book_pkey", "price_book", {"is_only": True}),
    ("price_book_only_one_check", "price_book", {"is_only": False}),
    ("tenants_pkey", "tenants", {"tenant_id": "acme"}),
    ("tenants_tenant_id_check", "tenants", {"tenant_id": ""}),
    ("plans_pkey", "plans", {"version": 1}),
    ("plans_tenants_fkey", "plans", {"tenant_id": "nobody"}),
    ("plans_not_negative_check", "plans", {"fixed_fee_minor": -1}),
    ("plans_not_negative_check", "plans", {"included_tokens": -1}),
    ("plans_not_negative_check", "plans", {"tier_size": None, "tier_fee_minor": -1}),
    ("plans_tier_size_check", "plans", {"tier_size": 0}),
    ("plans_tier_fee_check", "plans", {"tier_fee_minor": 0}),
    ("plans_dunning_days_check", "plans", {"dunning_days": [0]}),
    ("plans_dunning_days_check", "plans", {"dunning_days": [1, -1]}),
    ("plans_dunning_days_check", "plans", {"dunning_days": list(range(1, 12))}),
    ("plans_dunning_hour_check", "plans", {"dunning_hour": -1}),
    ("plans_dunning_hour_check", "plans", {"dunning_hour": 24}),
    ("plans_open_tiers_max_check", "plans", {"open_tiers_max": 0}),
    ("plans_free_credits_check", "plans", {"free_credits": "-0.000000000001"}),
    ("plans_anchor_check", "plans", {"anchor": "fiscal"}),
    ("plans_proration_check", "plans", {"proration": "hourly"}),
    ("plans_late_events_check", "plans", {"late_events": "ignore"}),
    ("plans_unowed_tiers_check", "plans", {"unowed_tiers": "forget"}),
    ("plans_grace_hours_check", "plans", {"grace_hours": GRACE_HOURS_MIN - 1}),
    ("plans_grace_hours_check", "plans", {"grace_hours": GRACE_HOURS_MAX + 1}),
    ("plans_day_limits_check", "plans", {"day_payments_max": 0}),
    ("plans_day_limits_check", "plans", {"day_minor_max": 0}),
    ("customers_pkey", "customers", {"customer_id": "ana"}),
    ("customers_plans_fkey", "customers", {"plan_version": 9}),
    ("customers_next_plan_fkey", "customers", NEXT_PLAN | {"next_plan_version": 9}),
    ("customers_anchor_day_check", "customers", {"anchor_day": 0}),
    ("customers_anchor_day_check", "customers", {"anchor_day": 32}),
    *[("customers_next_plan_check", "customers", NEXT_PLAN | {column: None}) for column in NEXT_PLAN],
    ("wallets_pkey", "wallets", {"wallet_id": 1}),
    ("wallets_tenant_id_customer_id_currency_key", "wallets", {"currency": "USD"}),
    ("wallets_customers_fkey", "wallets", {"customer_id": "nobody"}),
    ("wallets_balance_check", "wallets", {"balance": 1}),
    ("wallets_balance_check", "wallets", {"used_total": 1}),
    ("wallets_balance_check", "wallets", {"received_total": 1}),
    ("wallets_reserved_check", "wallets", {"reserved": "-0.000000000001"}),
    ("wallets_debt_check", "wallets", {"debt": "-0.000000000001"}),
    ("wallets_last_seq_check", "wallets", {"last_seq": -1}),
    ("wallets_overdraft_check", "wallets", {"overdraft": "-0.000000000001"}),
    ("credit_holds_pkey", "credit_holds", {"hold_id": "h1"}),
    ("credit_holds_idempotency_key", "credit_holds", {"idempotency_key": "hold:1"}),
    ("credit_holds_customers_fkey", "credit_holds", {"customer_id": "nobody"}),
    ("credit_holds_wallets_fkey", "credit_holds", {"wallet_id": 99}),
    ("credit_holds_state_check", "credit_holds", {"state": "lost", "closed_at": NOW}),
    ("credit_holds_amounts_check", "credit_holds", {"amount": 0, "captured": 0, "state": "used_up", "closed_at": NOW}),
    ("credit_holds_amounts_check", "credit_holds", {"captured": "-0.000000000001"}),
    ("credit_holds_amounts_check", "credit_holds", {"captured": "5.000000000001"}),
    ("credit_holds_used_up_check", "credit_holds", {"captured": 5}),
    ("credit_holds_used_up_check", "credit_holds", {"state": "used_up", "closed_at": NOW}),
    ("credit_holds_closed_check", "credit_holds", {"closed_at": NOW}),
    ("credit_holds_closed_check", "credit_holds", {"state": "released"}),
    ("credit_holds_expires_check", "credit_holds", {"expires_at": NOW}),
    ("credit_captures_pkey", "credit_captures", {"event_key": "k1"}),
    ("credit_captures_taken_check", "credit_captures", {"taken": "-0.000000000001"}),
    ("credit_captures_mark_check", "credit_captures", {"taken": 0, "mark": "lost"}),
    *[
        ("credit_captures_marked_check", "credit_captures", {"mark": mark})
        for mark in ("expired", "other_wallet", "released", "unknown")
    ],
    ("ledger_entries_pkey", "ledger_entries", {"seq": 1}),
    ("ledger_entries_idempotency_key", "ledger_entries", {"idempotency_key": "first"}),
    ("ledger_entries_kind_check", "ledger_entries", {"kind": "gift"}),
    ("ledger_entries_seq_check", "ledger_entries", {"seq": 0}),
    ("ledger_entries_usage_check", "ledger_entries", {"kind": "usage", "amount": 1, "event_key": "k1"}),
    ("ledger_entries_usage_check", "ledger_entries", {"kind": "usage", "amount": -1, "event_key": None}),
    ("prices_pkey", "prices", {"price_id": 1}),
    ("prices_product_key", "prices", {"revision": 0}),
    ("prices_positive_check", "prices", {"unit_price": "-0.01"}),
    ("prices_positive_check", "prices", {"per": 0}),
    ("prices_positive_check", "prices", {"revision": -1}),
    ("prices_ladder_span_check", "prices", {"ladder_span": "year"}),
    ("usage_events_pkey", "usage_events", {"key": "k1"}),
    ("usage_events_status_check", "usage_events", {"status": "free"}),
    ("usage_events_parked_check", "usage_events", {"status": "parked"}),
    ("usage_events_parked_check", "usage_events", {"park_reason": "unpriced"}),
    ("usage_events_charged_check", "usage_events", {"period_start": None}),
    ("usage_events_charged_check", "usage_events", {"charged_at": None}),
    ("usage_events_not_negative_check", "usage_events", {"cost": "-0.000000000001"}),
    ("usage_events_not_negative_check", "usage_events", {"tokens": -1}),
    ("usage_events_currency_check", "usage_events", {"cost": 1, "currency": None}),
    ("usage_events_voided_check", "usage_events", VOIDED | {"voided_at": None}),
    ("usage_events_voided_check", "usage_events", VOIDED | {"void_reason": None}),
    ("usage_events_voided_check", "usage_events", VOIDED | {"status": "charged"}),
    ("usage_events_voided_check", "usage_events", {"void_reason": "sent by mistake"}),
    ("parked_inputs_pkey", "parked_inputs", {"input_hash": b"1"}),
    ("parked_inputs_times_seen_check", "parked_inputs", {"times_seen": 0}),
    ("periods_pkey", "periods", {"starts_at": NOVEMBER, "ends_at": DECEMBER}),
    ("periods_customers_fkey", "periods", {"customer_id": "nobody"}),
    ("periods_plans_fkey", "periods", {"plan_version": 9}),
    ("periods_never_overlap", "periods", {"starts_at": NOW}),
    ("periods_span_check", "periods", {"starts_at": JANUARY, "ends_at": JANUARY}),
    ("periods_not_negative_check", "periods", {"tokens": -1}),
    ("periods_not_negative_check", "periods", {"events": -1}),
    ("periods_not_negative_check", "periods", {"tiers_reached": -1}),
    ("periods_closed_check", "periods", {"opened_at": None, "closed_at": NOW}),
    ("periods_stated_check", "periods", {"statement_number": 2}),
    ("period_quantities_pkey", "period_quantities", {"price_id": 1}),
    ("period_quantities_periods_fkey", "period_quantities", {"period_start": DECEMBER}),
    ("period_quantities_not_negative_check", "period_quantities", {"quantity": "-0.000000000001"}),
    *BROKEN_MONTHS,
    *BROKEN_PAYMENTS,
    ("payment_log_pkey", "payment_log", {"entry_id": 1}),
    ("payment_log_payments_fkey", "payment_log", {"payment_id": NOBODYS}),
    ("payment_methods_pkey", "payment_methods", {"payment_method_id": "pm_1"}),
    ("payment_methods_customers_fkey", "payment_methods", {"customer_id": "nobody"}),
    ("payment_methods_hold_check", "payment_methods", {"held_at": NOW}),
    ("payment_methods_hold_check", "payment_methods", {"hold_reason": "lost_card"}),
    ("customer_holds_pkey", "customer_holds", {"reason": "hard_decline"}),
    ("customer_holds_customers_fkey", "customer_holds", {"customer_id": "nobody"}),
    ("customer_holds_reason_check", "customer_holds", {"reason": "whim"}),
    ("refunds_pkey", "refunds", {"refund_id": REFUND}),
    ("refunds_tenant_id_idempotency_key_key", "refunds", {"idempotency_key": "refund:1"}),
    ("refunds_payments_fkey", "refunds", {"payment_id": NOBODYS}),
    ("refunds_state_check", "refunds", {"state": "lost"}),
    ("refunds_amount_check", "refunds", {"amount_minor": 0}),
    ("refunds_due_check", "refunds", {"state": "submitting", "due_at": None}),
    ("refunds_due_check", "refunds", {"state": "pending", "due_at": None}),
    ("collected_counts_not_negative_check", "collected_counts", {"payments": -1}),
    ("collected_counts_not_negative_check", "collected_counts", {"amount_minor": -1}),
    ("disputes_pkey", "disputes", {"stripe_dispute_id": "dp_1"}),
    ("disputes_payments_fkey", "disputes", {"payment_id": NOBODYS}),
    ("disputes_status_check", "disputes", {"status": "drawn"}),
    ("disputes_amount_check", "disputes", {"amount_minor": 0}),
    ("top_up_rules_pkey", "top_up_rules", {"wallet_id": 1}),
    ("top_up_rules_wallets_fkey", "top_up_rules", {"wallet_id": 9}),
    ("top_up_rules_amounts_check", "top_up_rules", {"credit_amount": 0}),
    ("top_up_rules_amounts_check", "top_up_rules", {"amount_minor": 0}),
    ("top_up_rules_amounts_check", "top_up_rules", {"monthly_cap_minor": 9_999}),
    ("alerts_pkey", "alerts", {"alert_id": 1}),
    ("alerts_unseen", "alerts", {"subject": "ana"}),
    ("alerts_tenants_fkey", "alerts", {"tenant_id": "nobody"}),
    ("alerts_kind_check", "alerts", {"kind": "rumour"}),
    ("collecting_switch_pkey", "collecting_switch", {"is_only": True}),
    ("collecting_switch_only_one_check", "collecting_switch", {"is_only": False}),
    ("collecting_switch_paused_check", "collecting_switch", {"paused_at": NOW}),
    ("collecting_switch_paused_check", "collecting_switch", {"paused_reason": "the bank asked"}),
    ("collected_counts_pkey", "collected_counts", {"customer_id": "ana"}),
    ("collected_counts_tenants_fkey", "collected_counts", {"tenant_id": "nobody"}),
    ("webhook_events_pkey", "webhook_events", {"event_id": "evt_1"}),
    ("webhook_events_source_check", "webhook_events", {"source": "guessed"}),
    ("webhook_events_worked_check", "webhook_events", {"worked_at": None}),
    ("webhook_events_worked_check", "webhook_events", {"due_at": NOW}),
    ("archives_pkey", "archives", {"archive_id": 1}),
    ("archives_unfinished", "archives", {"finished_at": None}),
    ("archives_tenants_fkey", "archives", {"tenant_id": "nobody"}),
    ("archives_written_check", "archives", {"sha256": None}),
    ("archives_written_check", "archives", {"written_at": None}),
    ("archives_written_check", "archives", UNWRITTEN | {"finished_at": NOW}),
    ("archives_numbers_check", "archives", {"events": -1, "entries": -1}),
    ("archives_numbers_check", "archives", {"entries": 3}),
    ("checkpoints_pkey", "checkpoints", {"wallet_id": WALLET}),
    ("checkpoints_wallets_fkey", "checkpoints", {"wallet_id": 99}),
    ("checkpoints_archives_fkey", "checkpoints", {"archive_id": 99}),
    ("checkpoints_numbers_check", "checkpoints", {"entries": 0}),
    ("checkpoints_numbers_check", "checkpoints", {"entries": 6}),
    ("periods_archived_check", "periods", {"archive_id": 1}),
    ("audit_turn_pkey", "audit_turn", {"is_only": True}),
    ("audit_turn_only_one_check", "audit_turn", {"is_only": False}),
    ("last_seen_pkey", "last_seen", {"is_only": True}),
    ("last_seen_only_one_check", "last_seen", {"is_only": False}),
    ("shadow_lists_pkey", "shadow_lists", {"name": "next-year"}),
    ("shadow_lists_tenants_fkey", "shadow_lists", {"tenant_id": "nobody"}),
    ("shadow_lists_name_check", "shadow_lists", {"name": ""}),
    ("shadow_lists_span_check", "shadow_lists", {"stopped_at": OCTOBER}),
    ("shadow_periods_pkey", "shadow_periods", {"period_start": NOVEMBER}),
    ("shadow_periods_shadow_lists_fkey", "shadow_periods", {"name": "unknown"}),
    ("shadow_sums_pkey", "shadow_sums", {"day": NOVEMBER.date()}),
    ("shadow_sums_shadow_lists_fkey", "shadow_sums", {"name": "unknown"}),
    ("shadow_sums_events_check", "shadow_sums", {"events": 0, "unrated": 0}),
    ("shadow_sums_events_check", "shadow_sums", {"unrated": 2}),
    ("shadow_sums_events_check", "shadow_sums", {"unrated": -1}),
    ("tenant_settings_pkey", "tenant_settings", {"tenant_id": "acme"}),
    ("tenant_settings_tenants_fkey", "tenant_settings", {"tenant_id": "nobody"}),
    ("tenant_settings_not_negative_check", "tenant_settings", {"free_tier_credits": -1}),
    ("tenant_settings_not_negative_check", "tenant_settings", {"audit_alert_value_percent": -1}),
    ("tenant_settings_buffer_check", "tenant_settings", {"affordability_buffer": "0.99"}),
    ("tenant_settings_low_balance_check", "tenant_settings", {"low_balance": Jsonb("5")}),
    ("tenant_settings_low_requests_check", "tenant_settings", {"low_requests_per_minute": 0}),
    ("price_replays_pkey", "price_replays", {"is_only": True}),
    ("price_replays_only_one_check", "price_replays", {"is_only": False}),
    ("price_replays_order_check", "price_replays", {"is_only": True, "done_price_id": 1}),
    ("price_replays_place_check", "price_replays", {"is_only": True, "place_key": "k1"}),
    ("price_replays_place_check", "price_replays", {"is_only": True, "place_recorded_at": NOW, "place_key": "k1"}),
    ("alert_looks_pkey", "alert_looks", {"is_only": True}),
    ("alert_looks_only_one_check", "alert_looks", {"is_only": False}),
    ("alert_looks_wallet_check", "alert_looks", {"is_only": True, "wallet_id": 1}),
    ("alert_looks_grant_check", "alert_looks", {"is_only": True, "grant_id": GRANT}),
    ("alert_looks_grant_check", "alert_looks", {"is_only": True, "grant_ends_at": NOW, "grant_id": GRANT}),
    ("audit_differences_pkey", "audit_differences", {"difference_id": 1}),
    ("audit_differences_standing", "audit_differences", {"subject": "ana USD"}),
    ("audit_differences_times_check", "audit_differences", {"times": 0}),
    ("envelope_attempts_pkey", "envelope_attempts", {"envelope_hash": b"1"}),
    ("webhook_endpoints_pkey", "webhook_endpoints", {"tenant_id": "acme"}),
    ("webhook_endpoints_tenants_fkey", "webhook_endpoints", {"tenant_id": "nobody"}),
    ("webhook_endpoints_url_check", "webhook_endpoints", {"url": "ftp://example.com"}),
    ("webhook_endpoints_previous_check", "webhook_endpoints", {"previous_secret": "whsec_AAAA"}),
    ("webhook_endpoints_previous_check", "webhook_endpoints", {"previous_until": NOW}),
    ("webhook_endpoints_disabled_check", "webhook_endpoints", {"disabled_at": NOW}),
    ("webhook_endpoints_disabled_check", "webhook_endpoints", {"disabled_reason": "gone"}),
    ("webhook_endpoints_failures_check", "webhook_endpoints", {"failures": -1}),
    ("alert_deliveries_pkey", "alert_deliveries", {"delivery_id": DELIVERY}),
    ("alert_deliveries_tenant_id_alert_id_key", "alert_deliveries", {"alert_id": 1}),
    ("alert_deliveries_alerts_fkey", "alert_deliveries", {"alert_id": 9}),
    ("alert_deliveries_state_check", "alert_deliveries", {"state": "lost", "due_at": None, "finished_at": NOW}),
    ("alert_deliveries_due_check", "alert_deliveries", {"due_at": None}),
    ("alert_deliveries_due_check", "alert_deliveries", {"finished_at": NOW}),
    ("alert_deliveries_due_check", "alert_deliveries", {"state": "delivered", "finished_at": NOW}),
    ("alert_deliveries_due_check", "alert_deliveries", {"state": "given_up", "due_at": None}),
    ("alert_deliveries_tries_check", "alert_deliveries", {"tries": -1}),
    ("alert_causes_pkey", "alert_causes", {"subject": "1"}),
    ("alert_causes_tenants_fkey", "alert_causes", {"tenant_id": "nobody"}),
    ("alert_causes_kind_check", "alert_causes", {"kind": "weather"}),
    ("wallets_low_below_check", "wallets", {"low_below": "-0.000000000001"}),
    ("usage_log_pkey", "usage_log", {"entry_id": 1}),
    ("usage_log_customers_fkey", "usage_log", {"customer_id": "nobody"}),
    ("usage_log_step_check", "usage_log", {"step": "parked"}),
    ("quota_book_pkey", "quota_book", {"is_only": True}),
    ("quota_book_only_one_check", "quota_book", {"is_only": False}),
    ("quotas_pkey", "quotas", {"quota_id": 1}),
    ("quotas_name", "quotas", {"name": "tokens"}),
    ("quotas_tenants_fkey", "quotas", {"tenant_id": "nobody"}),
    ("quotas_name_check", "quotas", {"name": ""}),
    ("quotas_kind_check", "quotas", {"kind": "wish"}),
    ("quotas_scope_check", "quotas", {"scope": "world"}),
    ("quotas_subject_check", "quotas", {"scope": "tenant", "subject": "ana"}),
    ("quotas_per_check", "quotas", {"per": "year"}),
    ("quotas_measure_check", "quotas", {"measure": "words"}),
    ("quotas_currency_check", "quotas", {"measure": "cost"}),
    ("quotas_currency_check", "quotas", {"currency": "USD"}),
    ("quotas_limit_check", "quotas", {"limit_value": "-0.000000000001"}),
    ("quotas_budget_check", "quotas", {"kind": "budget", "is_hard": False}),
    ("quotas_budget_check", "quotas", {"kind": "budget", "feature": "chat"}),
    ("quotas_cap_check", "quotas", {"kind": "cap"}),
    ("quotas_cap_check", "quotas", {"kind": "cap", "subject": "ana", "is_hard": False}),
    ("quotas_cap_check", "quotas", {"kind": "cap", "subject": "ana", "scope": "user"}),
    ("quota_counts_pkey", "quota_counts", {"subject": "ana"}),
    ("quota_counts_quotas_fkey", "quota_counts", {"quota_id": 9}),
    ("quota_counts_stripe_check", "quota_counts", {"stripe": -1}),
    ("limit_warnings_pkey", "limit_warnings", {"percent": 80}),
    ("limit_warnings_tenants_fkey", "limit_warnings", {"tenant_id": "nobody"}),
    ("limit_warnings_kind_check", "limit_warnings", {"kind": "mood"}),
    ("limit_warnings_percent_check", "limit_warnings", {"percent": 90}),
    ("api_keys_pkey", "api_keys", {"key_id": KEY}),
    ("api_keys_tenants_fkey", "api_keys", {"tenant_id": "nobody"}),
    ("api_keys_name_check", "api_keys", {"name": ""}),
    ("api_keys_name_check", "api_keys", {"name": "n" * 129}),
    ("api_keys_secret_hash_check", "api_keys", {"secret_hash": b"1" * 31}),
    ("api_keys_capabilities_check", "api_keys", {"capabilities": []}),
    ("api_keys_capabilities_check", "api_keys", {"capabilities": ["billing.view", "billing.all"]}),
    ("idempotent_requests_pkey", "idempotent_requests", {"idempotency_key": "grant-1"}),
    ("idempotent_requests_tenants_fkey", "idempotent_requests", {"tenant_id": "nobody"}),
    ("idempotent_requests_body_hash_check", "idempotent_requests", {"body_hash": b"1"}),
    ("idempotent_requests_answered_check", "idempotent_requests", {"answer": None}),
    ("idempotent_requests_answered_check", "idempotent_requests", {"answered_at": None}),
    ("idempotent_requests_status_check", "idempotent_requests", {"status": 409}),
    ("admin_acts_pkey", "admin_acts", {"act_id": 1}),
    ("admin_acts_tenants_fkey", "admin_acts", {"tenant_id": "nobody"}),
    ("admin_acts_through_check", "admin_acts", {"through": "window"}),
    ("usage_inbox_pkey", "usage_inbox", {"inbox_id": 1}),
    ("usage_inbox_tenants_fkey", "usage_inbox", {"tenant_id": "nobody", "event": _written(tenant_id="nobody")}),
    ("usage_inbox_event_check", "usage_inbox", {"event": _written(tenant_id="beta")}),
    ("usage_inbox_event_check", "usage_inbox", {"event": _written(customer_id="bob")}),
    ("usage_inbox_event_check", "usage_inbox", {"customer_id": "bob"}),
    ("usage_inbox_event_check", "usage_inbox", {"event": Jsonb({"customer_id": "ana"})}),
    ("usage_inbox_event_check", "usage_inbox", {"event": Jsonb([])}),
    ("usage_inbox_size_check", "usage_inbox", {"event": _written(reason="x" * 65_536)}),
]

#: A plan belongs to its tenant, so this can't be broken alone.
IMPLIED = {"customers_tenants_fkey"}

CONSTRAINTS = """
    SELECT conname FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND contype IN ('p', 'u', 'c', 'f', 'x')
        AND conrelid <> 'alembic_version'::regclass
    UNION
    SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
    WHERE indisunique AND relnamespace = 'public'::regnamespace AND indrelid <> 'alembic_version'::regclass
"""

#: Tables without a tenant that owns the row, and why: whoever distributes by tenant keeps them whole on each node.
GLOBAL = {
    "installation": "which database this is",
    "prices": "everybody's and tenants' stand side by side, told apart by scope; each is read whole",
    "price_book": "the one revision of all prices",
    "quota_book": "the one revision of all quotas",
    "parked_inputs": "found by what they are: of some, nobody knows whose they are",
    "envelope_attempts": "an envelope is not opened before it is counted",
    "audit_turn": "one audit at a time, of all",
    "last_seen": "beat ticks for all",
    "price_replays": "one pass over what waits, whose prices may be everybody's",
    "alert_looks": "one look goes over all wallets",
    "collecting_switch": "one switch and one pace for all",
    "webhook_events": "Stripe's; whose they are is known once they are worked",
}

ALL_TABLES = """
    SELECT oid::regclass::text FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND oid <> 'alembic_version'::regclass
"""

OF_TENANTS = """
    SELECT c.oid::regclass::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND a.attname = 'tenant_id'
        AND a.attnotnull
"""


@pytest.fixture(scope="module")
def standing_database(shared_database: str) -> str:
    """The shared database with one right row in each table."""
    with psycopg.connect(shared_database) as connection:
        stand(connection)
    return shared_database


@pytest.fixture
def standing(standing_database: str) -> Iterator[psycopg.Connection]:
    """A transaction in which one right row stands in each table."""
    with psycopg.connect(standing_database) as connection:
        yield connection
        connection.rollback()


@pytest.mark.parametrize("table", ANOTHER)
def test_a_second_right_row_is_taken(standing: psycopg.Connection, table: str) -> None:
    """Else the tests below would prove nothing: they change one thing about these rows."""
    insert(standing, table, another(table))


@pytest.mark.parametrize(("constraint", "table", "changes"), BROKEN)
def test_each_constraint_refuses(
    standing: psycopg.Connection, constraint: str, table: str, changes: dict[str, Any]
) -> None:
    """The one that is meant, and no other before it."""
    with pytest.raises(errors.IntegrityError) as refused:
        insert(standing, table, another(table, **changes))

    assert refused.value.diag.constraint_name == constraint


@pytest.mark.parametrize(
    ("table", "changes"),
    [
        ("plans", {"dunning_days": []}),
        ("plans", {"dunning_days": list(range(1, 11)), "dunning_hour": 23}),
        ("plans", {"free_credits": None, "day_payments_max": 1, "day_minor_max": 1, "grace_hours": GRACE_HOURS_MIN}),
        ("plans", {"day_minor_max": 1, "grace_hours": GRACE_HOURS_MAX}),
        ("customers", NEXT_PLAN | {"anchor_day": 31}),
        ("usage_events", VOIDED),
        ("periods", {"closed_at": JANUARY, "statement_number": 2}),
        ("periods", {"opened_at": None}),
        ("credit_grants", {"ended_at": NOW, "paid_debt": 10}),
        ("credit_grants", ENDING),
        ("credit_grants", ENDING | {"valid_from": None}),
        ("credit_grants", {"valid_from": DECEMBER}),
        ("credit_holds", {"captured": 0}),
        ("credit_holds", {"captured": 5, "state": "used_up", "closed_at": NOW}),
        ("credit_holds", {"state": "released", "closed_at": NOW}),
        ("credit_captures", {"mark": "beyond"}),
        ("credit_captures", {"taken": 0, "mark": "unknown", "hold_id": "never was"}),
        ("corrections", {"event_key": "k1", "kind": "rerate"}),
        ("corrections", {"cost": 0, "currency": None, "wallet_id": None, "seq": None}),
        ("corrections", {"cost": 0}),
        ("statement_lines", {"kind": "covered", "account": None, "currency": None, "amount": 0}),
        ("payments", {"unowed_at": NOW}),
        ("payments", TOP_UP),
        ("payments", {"tier": 1, "generation": 1}),
        ("payments", TOP_UP | {"reference": "auto:2", "payment_id": NOBODYS}),
        ("payments", payment_in(PaymentState.UNKNOWN) | {"stripe_payment_intent_id": None}),
        ("payments", TOP_UP | payment_in(PaymentState.SUCCEEDED) | {"credit_given": 20}),
        ("payments", TOP_UP | payment_in(PaymentState.REFUNDED)),
        ("payments", payment_in(PaymentState.DISPUTED) | {"refunded_minor": 1}),
        *[("payments", payment_in(state) | {"void_wished_at": NOW, "due_at": NOW}) for state in PaymentState],
        *[("payments", payment_in(state)) for state in PaymentState],
        ("payment_attempts", {"state": "abandoned"}),
        ("payment_methods", {"held_at": NOW, "hold_reason": "lost_card"}),
        ("alerts", {"subject": "ana", "seen_at": NOW}),
        ("alerts", {"subject": "ana", "kind": "open_tiers"}),
        ("archives", {"archive_id": 3}),
        ("periods", {"closed_at": JANUARY, "statement_number": 2, "archive_id": 1}),
        ("audit_differences", {"subject": "ana USD", "resolved_at": NOW}),
        ("collected_counts", {"customer_id": "ana", "starts_at": NOVEMBER}),
        ("top_up_rules", {"monthly_cap_minor": 10_001, "threshold": -5}),
    ],
)
def test_what_is_right_is_taken(standing: psycopg.Connection, table: str, changes: dict[str, Any]) -> None:
    """Just this side of what is refused."""
    insert(standing, table, another(table, **changes))


def test_an_alert_is_raised_again_when_the_first_was_seen(standing: psycopg.Connection) -> None:
    standing.execute("UPDATE alerts SET seen_at = last_at")

    insert(standing, "alerts", STANDING["alerts"])


def test_collecting_begins_switched_on(connection: psycopg.Connection) -> None:
    switch = connection.execute("SELECT is_only, paused_at, next_slot_at FROM collecting_switch").fetchall()

    assert switch == [(True, None, None)]


def test_every_constraint_is_tried(connection: psycopg.Connection) -> None:
    """A new constraint comes with a new line above."""
    there = {str(name) for (name,) in connection.execute(CONSTRAINTS)}

    assert there == {constraint for constraint, _, _ in BROKEN} | IMPLIED


def test_what_must_be_there_is_not_null(standing: psycopg.Connection) -> None:
    """Every column that is NOT NULL refuses NULL, whatever its default."""
    statement = """
        SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnotnull AND a.attidentity = ''
    """
    columns = [row for row in standing.execute(statement).fetchall() if row[0] in STANDING]

    assert len(columns) > 200
    for table, column in columns:
        with pytest.raises(errors.NotNullViolation) as refused, standing.transaction():
            insert(standing, table, another(table, **{column: None}))
        assert (refused.value.diag.table_name, refused.value.diag.column_name) == (table, column)


def test_periods_that_meet_do_not_overlap(standing: psycopg.Connection) -> None:
    """Half-open: December may begin at the moment November ends; another customer's November is no matter."""
    insert(standing, "periods", another("periods", starts_at=DECEMBER, ends_at=JANUARY))
    insert(standing, "customers", another("customers", customer_id="bob"))
    insert(standing, "periods", another("periods", customer_id="bob", starts_at=NOW, ends_at=JANUARY))


FINAL = {
    "quotas": ["UPDATE {} SET measure = 'events'", "UPDATE {} SET name = 'x'", "DELETE FROM {}", "TRUNCATE {} CASCADE"],
    "checkpoints": ["UPDATE {} SET wallet_id = 2", "DELETE FROM {}", "TRUNCATE {} CASCADE"],
    "ledger_entries": ["UPDATE {} SET amount = amount", "DELETE FROM {}", "TRUNCATE {} CASCADE"],
    "prices": ["UPDATE {} SET description = 'other'", "DELETE FROM {}", "TRUNCATE {} CASCADE"],
    "plans": ["UPDATE {} SET name = 'other'", "DELETE FROM {}", "TRUNCATE {} CASCADE"],
    "usage_log": ["UPDATE {} SET detail = 'other'", "DELETE FROM {}", "TRUNCATE {} CASCADE"],
    "payment_log": ["UPDATE {} SET why = 'other'", "DELETE FROM {}", "TRUNCATE {} CASCADE"],
    "subscription_log": ["UPDATE {} SET move = 'ended'", "DELETE FROM {}", "TRUNCATE {} CASCADE"],
    "corrections": ["UPDATE {} SET reason = 'other'", "DELETE FROM {}", "TRUNCATE {} CASCADE"],
    "statements": ["UPDATE {} SET tokens = 0", "DELETE FROM {}", "TRUNCATE {} CASCADE"],
    "statement_balances": ["UPDATE {} SET closing = 0", "DELETE FROM {}", "TRUNCATE {} CASCADE"],
    "statement_lines": ["UPDATE {} SET amount = 0", "DELETE FROM {}", "TRUNCATE {} CASCADE"],
    "tenants": ["UPDATE {} SET tenant_id = 'other'", "DELETE FROM {}", "TRUNCATE {} CASCADE"],
    "customers": ["UPDATE {} SET customer_id = 'other'", "DELETE FROM {}", "TRUNCATE {} CASCADE"],
    "wallets": ["UPDATE {} SET currency = 'EUR'", "DELETE FROM {}", "TRUNCATE {} CASCADE"],
    "api_keys": ["UPDATE {} SET capabilities = capabilities", "DELETE FROM {}", "TRUNCATE {} CASCADE"],
    "admin_acts": ["UPDATE {} SET subject = 'other'", "DELETE FROM {}", "TRUNCATE {} CASCADE"],
}


@pytest.mark.parametrize(("table", "statement"), [(table, one) for table, some in FINAL.items() for one in some])
def test_what_is_written_for_ever_stays(standing: psycopg.Connection, table: str, statement: str) -> None:
    """Entries and prices are neither changed nor removed; who they belong to is not removed."""
    with pytest.raises(errors.IntegrityConstraintViolation, match="never changed or removed"):
        standing.execute(sql.SQL(statement).format(sql.Identifier(table)))


def test_every_table_that_is_guarded_is_tried(connection: psycopg.Connection) -> None:
    statement = "SELECT DISTINCT tgrelid::regclass::text FROM pg_trigger WHERE tgfoid = 'refuse_change'::regproc"

    assert {table for (table,) in connection.execute(statement)} == FINAL.keys()


def test_postgres_ranks_states_as_python_does(connection: psycopg.Connection) -> None:
    ranks = connection.execute("SELECT state, payment_rank(state) FROM unnest(%s::text[]) AS state", ([*RANKS],))

    assert dict(ranks.fetchall()) == RANKS
    assert RANKS.keys() == set(PaymentState)


@pytest.mark.parametrize("before", PaymentState)
def test_a_payment_moves_only_forward(standing: psycopg.Connection, before: PaymentState) -> None:
    """Every move that `is_forward` allows is made, and every other is refused, with more, fewer, as many attempts."""
    insert(standing, "payments", another("payments", **payment_in(before, 2)))
    moves = [(attempts, after) for attempts in (1, 2, 3) for after in PaymentState]

    made = [move for move in moves if _moves(standing, payment_in(move[1], move[0]))]

    assert made == [move for move in moves if is_forward((2, before), move)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((1, PaymentState.SUCCEEDED), (1, PaymentState.DUE)),
        ((1, PaymentState.VOIDED), (1, PaymentState.DUE)),
        ((1, PaymentState.SUCCEEDED), (1, PaymentState.VOIDED)),
        ((2, PaymentState.SUBMITTING), (1, PaymentState.SUCCEEDED)),
    ],
)
def test_a_payment_never_goes_back(
    standing: psycopg.Connection, before: tuple[int, PaymentState], after: tuple[int, PaymentState]
) -> None:
    """Not even where the Python side was wrong about it; and the message names both ends."""
    insert(standing, "payments", another("payments", **payment_in(before[1], before[0])))

    with pytest.raises(errors.IntegrityConstraintViolation) as refused:
        _move(standing, payment_in(after[1], after[0]))

    ends = f"from {before[1]} (attempt {before[0]}) to {after[1]} (attempt {after[0]})"
    assert refused.value.diag.message_primary == f"payment {OTHER_PAYMENT} can't go back {ends}"


def test_attempts_alone_never_fall(standing: psycopg.Connection) -> None:
    """The state need not be named in the statement."""
    insert(standing, "payments", another("payments", **payment_in(PaymentState.DUE, 2)))

    with pytest.raises(errors.IntegrityConstraintViolation, match="can't go back"):
        standing.execute("UPDATE payments SET attempts_made = attempts_made - 1 WHERE attempts_made = 2")


def _moves(connection: psycopg.Connection, columns: dict[str, Any]) -> bool:
    """Whether the trigger lets the payment move so; it is where it was afterwards."""
    try:
        with connection.transaction(force_rollback=True):
            _move(connection, columns)
    except errors.IntegrityConstraintViolation:
        return False
    return True


def _move(connection: psycopg.Connection, columns: dict[str, Any]) -> None:
    changes = sql.SQL(", ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in columns)
    statement = sql.SQL("UPDATE payments SET {} WHERE payment_id = %s").format(changes)
    connection.execute(statement, [*columns.values(), OTHER_PAYMENT])


def test_the_price_book_moves_with_every_price(standing: psycopg.Connection) -> None:
    """Or a process that keeps prices in memory would never look again."""
    before = standing.execute("SELECT revision FROM price_book").fetchone()

    insert(standing, "prices", another("prices"))

    after = standing.execute("SELECT revision FROM price_book").fetchone()
    assert before is not None
    assert after == (before[0] + 1,)


@pytest.mark.parametrize(
    ("statement", "is_moved"),
    [
        (
            "INSERT INTO wallets (tenant_id, customer_id, currency, created_at) VALUES ('acme', 'ana', 'EUR', now())",
            True,
        ),
        ("UPDATE customers SET time_zone = 'UTC'", True),
        ("UPDATE customers SET next_plan_id = plan_id, next_plan_version = 1, next_plan_at = now()", True),
        ("UPDATE periods SET closed_at = ends_at", True),
        ("UPDATE periods SET ends_at = ends_at - interval '1 day'", True),
        ("UPDATE periods SET plan_version = plan_version", True),
        ("UPDATE periods SET tokens = tokens + 1, events = events + 1, tiers_reached = 1", False),
        ("UPDATE periods SET opened_at = now(), statement_number = NULL", False),
        ("UPDATE wallets SET balance = balance - 1, used_total = used_total + 1, last_seq = 2", False),
        ("UPDATE wallets SET open_grants = '[]'", False),
        ("UPDATE credit_grants SET ended_at = now()", False),
    ],
)
def test_the_account_moves_with_what_is_kept_of_it(
    standing: psycopg.Connection, statement: str, is_moved: bool
) -> None:
    """Processes keep zone, plan, wallets and periods of a customer, and compare; what moves all day is not kept."""
    revision = "SELECT account_revision FROM wallets WHERE currency = 'USD'"
    before = standing.execute(revision.encode()).fetchone()

    standing.execute(statement.encode())

    assert (standing.execute(revision.encode()).fetchone() != before) == is_moved


@pytest.mark.parametrize(
    ("changes", "is_moved"),
    [
        ({}, True),
        ({"scope": "user", "subject": "u1"}, True),
        ({"subject": "bob"}, False),
        ({"subject": "ana"}, False),
    ],
)
def test_the_quota_book_moves_with_what_processes_keep(
    standing: psycopg.Connection, changes: dict[str, Any], is_moved: bool
) -> None:
    """What is for everybody; and the first in a scope that is somebody's own. Who else has one is looked up."""
    insert(standing, "quotas", another("quotas", quota_id=3, name="eve's, ended", subject="eve", ended_at=NOW))
    before = standing.execute("SELECT revision FROM quota_book").fetchone()

    insert(standing, "quotas", another("quotas", **changes))

    assert (standing.execute("SELECT revision FROM quota_book").fetchone() != before) == is_moved


@pytest.mark.parametrize("change", ["limit_value = 7", "is_hard = false", "ended_at = updated_at"])
def test_the_quota_book_moves_with_a_change(standing: psycopg.Connection, change: str) -> None:
    before = standing.execute("SELECT revision FROM quota_book").fetchone()

    standing.execute(f"UPDATE quotas SET {change}".encode())

    assert standing.execute("SELECT revision FROM quota_book").fetchone() != before


@pytest.mark.parametrize("table", ["wallets", "periods"])
def test_the_account_moves_with_a_new_row(standing: psycopg.Connection, table: str) -> None:
    revision = "SELECT account_revision FROM wallets WHERE currency = 'USD'"
    before = standing.execute(revision).fetchone()

    insert(standing, table, another(table))

    assert standing.execute(revision).fetchone() != before


def test_every_table_is_a_tenants_or_named_as_everybodys(connection: psycopg.Connection) -> None:
    """A new table has a tenant in each row, or gives its reason in `GLOBAL`."""
    tables = {str(table) for (table,) in connection.execute(ALL_TABLES)}
    of_tenants = {str(table) for (table,) in connection.execute(OF_TENANTS)}

    assert tables - of_tenants == GLOBAL.keys()
    assert of_tenants & GLOBAL.keys() == set()


def test_the_tenant_leads_every_key_of_its_data(connection: psycopg.Connection) -> None:
    """So that the data can be distributed by tenant: primary and unique keys, constraints and bare indexes alike."""
    tables = {str(table) for (table,) in connection.execute(OF_TENANTS)}
    indexes = connection.execute("""
        SELECT indrelid::regclass::text, indexrelid::regclass::text, indisprimary,
            pg_get_indexdef(indexrelid, 1, false)
        FROM pg_index WHERE indisunique AND indrelid IN (SELECT oid FROM pg_class WHERE relkind IN ('r', 'p'))
    """).fetchall()
    led = [index for index in indexes if index[0] in tables]

    assert {table for table, _, is_primary, _ in led if is_primary} == tables
    assert [name for _, name, _, first in led if first != "tenant_id"] == []


def test_every_foreign_key_of_a_tenants_data_stays_with_the_tenant(connection: psycopg.Connection) -> None:
    """The tenant stands in the same place on both ends: no row refers to another tenant's, or to everybody's."""
    tables = {str(table) for (table,) in connection.execute(OF_TENANTS)}
    keys = connection.execute("""
        SELECT k.conrelid::regclass::text, k.conname, k.confrelid::regclass::text, a.attname, b.attname
        FROM pg_constraint k
        JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1]
        JOIN pg_attribute b ON b.attrelid = k.confrelid AND b.attnum = k.confkey[1]
        WHERE k.contype = 'f' AND k.connamespace = 'public'::regnamespace
    """).fetchall()

    assert len(keys) > 20
    assert [name for _, name, _, *ends in keys if ends != ["tenant_id", "tenant_id"]] == []
    assert [name for table, name, target, *_ in keys if {table, target} - tables] == []


def test_every_exclusion_of_a_tenants_data_excludes_within_the_tenant(connection: psycopg.Connection) -> None:
    """Where the tenant does not lead, for speed, it is compared all the same, for equality."""
    exclusions = connection.execute("""
        SELECT k.conname, EXISTS (
            SELECT FROM unnest(k.conkey, k.conexclop) AS part(attnum, operator)
            JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = part.attnum
            JOIN pg_operator o ON o.oid = part.operator
            WHERE a.attname = 'tenant_id' AND o.oprname = '='
        )
        FROM pg_constraint k WHERE k.contype = 'x' AND k.connamespace = 'public'::regnamespace
    """).fetchall()

    assert exclusions == [("periods_never_overlap", True)]


def test_no_column_of_a_unique_key_may_be_null(connection: psycopg.Connection) -> None:
    """A NULL never conflicts, and something would be charged twice; unless the index leaves NULLs out."""
    nullable = connection.execute("""
        SELECT i.indexrelid::regclass::text, a.attname FROM pg_index i
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey::int2[])
        JOIN pg_class c ON c.oid = i.indexrelid AND c.relnamespace = 'public'::regnamespace
        WHERE i.indisunique AND NOT a.attnotnull
            AND coalesce(pg_get_expr(i.indpred, i.indrelid), '') NOT LIKE '%' || a.attname || ' IS NOT NULL%'
    """).fetchall()

    assert nullable == []
