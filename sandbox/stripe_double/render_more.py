"""The objects around a payment as Stripe shows them: set-ups, refunds, disputes, events, webhook endpoints."""

from sandbox.stripe_double.errors import Json
from sandbox.stripe_double.objects import Dispute, Event, Refund, SetupIntent, WebhookEndpoint
from sandbox.stripe_double.version import STRIPE_VERSION

#: How long a merchant may answer a dispute, as far as the double is concerned.
RESPONSE_DUE_SECONDS = 7 * 24 * 60 * 60

EVIDENCE = (
    "access_activity_log",
    "appeal",
    "billing_address",
    "cancellation_policy",
    "cancellation_policy_disclosure",
    "cancellation_rebuttal",
    "customer_communication",
    "customer_email_address",
    "customer_name",
    "customer_purchase_ip",
    "customer_signature",
    "duplicate_charge_documentation",
    "duplicate_charge_explanation",
    "duplicate_charge_id",
    "product_description",
    "receipt",
    "refund_policy",
    "refund_policy_disclosure",
    "refund_refusal_explanation",
    "service_date",
    "service_documentation",
    "shipping_address",
    "shipping_carrier",
    "shipping_date",
    "shipping_documentation",
    "shipping_tracking_number",
    "uncategorized_file",
    "uncategorized_text",
)


def setup_intent_json(intent: SetupIntent) -> Json:
    return {
        "id": intent.id,
        "object": "setup_intent",
        "allowed_payment_method_types": intent.allowed_payment_method_types,
        "application": None,
        "automatic_payment_methods": intent.automatic_payment_methods,
        "cancellation_reason": intent.cancellation_reason,
        "client_secret": intent.client_secret,
        "created": intent.created,
        "customer": intent.customer,
        "customer_account": None,
        "description": intent.description,
        "excluded_payment_method_types": None,
        "flow_directions": None,
        "last_setup_error": intent.last_setup_error,
        "latest_attempt": None,
        "livemode": False,
        "mandate": None,
        "metadata": dict(intent.metadata),
        "next_action": intent.next_action,
        "on_behalf_of": None,
        "payment_method": intent.payment_method,
        "payment_method_configuration_details": None,
        "payment_method_options": {
            "card": {"mandate_options": None, "network": None, "request_three_d_secure": "automatic"}
        },
        "payment_method_types": ["card"],
        "single_use_mandate": None,
        "status": intent.status,
        "usage": intent.usage,
    }


def refund_json(refund: Refund) -> Json:
    return {
        "id": refund.id,
        "object": "refund",
        "amount": refund.amount,
        "balance_transaction": None,
        "charge": refund.charge.id,
        "created": refund.created,
        "currency": refund.charge.intent.currency,
        "destination_details": {
            "type": "card",
            "card": {"reference_status": "pending", "reference_type": "acquirer_reference_number", "type": "refund"},
        },
        "metadata": dict(refund.metadata),
        "payment_intent": refund.charge.intent.id,
        "reason": refund.reason,
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": "succeeded",
        "transfer_reversal": None,
    }


def dispute_json(dispute: Dispute) -> Json:
    charge, brand = dispute.charge, dispute.charge.method.card.brand
    return {
        "id": dispute.id,
        "object": "dispute",
        "amount": dispute.amount,
        "balance_transactions": [],
        "charge": charge.id,
        "created": dispute.created,
        "currency": charge.intent.currency,
        "enhanced_eligibility_types": [],
        "evidence": {**dict.fromkeys(EVIDENCE), "enhanced_evidence": {}},
        "evidence_details": {
            "due_by": dispute.created + RESPONSE_DUE_SECONDS,
            "enhanced_eligibility": {},
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
            "submission_method": "not_submitted",
        },
        "is_charge_refundable": False,
        "livemode": False,
        "metadata": {},
        "network_reason_code": None,
        "payment_intent": charge.intent.id,
        "payment_method_details": {
            "type": "card",
            "card": {"brand": brand, "case_type": "chargeback", "network": brand, "network_reason_code": None},
        },
        "reason": dispute.reason,
        "status": dispute.status,
    }


def event_json(event: Event) -> Json:
    previous = {} if event.previous is None else {"previous_attributes": event.previous}
    return {
        "id": event.id,
        "object": "event",
        "api_version": STRIPE_VERSION,
        "created": event.created,
        "data": {"object": event.shown, **previous},
        "livemode": False,
        "pending_webhooks": len(event.waiting),
        "request": {"id": event.request_id, "idempotency_key": event.idempotency_key},
        "type": event.type,
    }


def webhook_endpoint_json(endpoint: WebhookEndpoint) -> Json:
    """Without its secret, which Stripe tells only when the endpoint is made."""
    return {
        "id": endpoint.id,
        "object": "webhook_endpoint",
        "api_version": None,
        "application": None,
        "created": endpoint.created,
        "description": endpoint.description,
        "enabled_events": list(endpoint.enabled_events),
        "livemode": False,
        "metadata": dict(endpoint.metadata),
        "status": "enabled",
        "url": endpoint.url,
    }
