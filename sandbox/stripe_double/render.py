"""The objects as Stripe shows them: every field that its library expects, null where the double has nothing."""

from collections.abc import Callable, Collection

from sandbox.stripe_double.errors import Json, invalid_request
from sandbox.stripe_double.objects import Charge, Customer, PaymentIntent, PaymentMethod
from sandbox.stripe_double.state import Store

EXPANDABLE: dict[str, frozenset[str]] = {
    "payment_intent": frozenset({"customer", "latest_charge", "payment_method"}),
    "charge": frozenset({"customer", "payment_intent"}),
    "payment_method": frozenset({"customer"}),
    "customer": frozenset(),
    "setup_intent": frozenset({"customer", "payment_method"}),
    "refund": frozenset({"charge", "payment_intent"}),
    "dispute": frozenset({"charge", "payment_intent"}),
    "event": frozenset(),
    "webhook_endpoint": frozenset(),
}


def customer_json(customer: Customer) -> Json:
    return {
        "id": customer.id,
        "object": "customer",
        "address": None,
        "balance": 0,
        "created": customer.created,
        "currency": None,
        "default_source": None,
        "delinquent": False,
        "description": customer.description,
        "discount": None,
        "email": customer.email,
        "invoice_prefix": customer.id[-8:].upper(),
        "invoice_settings": {
            "custom_fields": None,
            "default_payment_method": customer.default_payment_method,
            "footer": None,
            "rendering_options": None,
        },
        "livemode": False,
        "metadata": dict(customer.metadata),
        "name": customer.name,
        "next_invoice_sequence": 1,
        "phone": customer.phone,
        "preferred_locales": [],
        "shipping": None,
        "tax_exempt": "none",
        "test_clock": None,
    }


def payment_method_json(method: PaymentMethod) -> Json:
    return {
        "id": method.id,
        "object": "payment_method",
        "allow_redisplay": "unspecified",
        "billing_details": _billing_details(),
        "card": {
            **_card(method),
            "display_brand": method.card.brand,
            "generated_from": None,
            "networks": {"available": [method.card.brand], "preferred": None},
            "regulated_status": "unregulated",
            "three_d_secure_usage": {"supported": True},
        },
        "created": method.created,
        "customer": method.customer,
        "livemode": False,
        "metadata": dict(method.metadata),
        "type": "card",
    }


def charge_json(charge: Charge) -> Json:
    intent, paid = charge.intent, charge.is_paid
    return {
        "id": charge.id,
        "object": "charge",
        "amount": charge.amount,
        "amount_captured": charge.amount if paid else 0,
        "amount_refunded": charge.amount_refunded,
        "application": None,
        "application_fee": None,
        "application_fee_amount": None,
        "balance_transaction": None,
        "billing_details": _billing_details(),
        "calculated_statement_descriptor": "CENTAVO",
        "captured": paid,
        "created": charge.created,
        "currency": intent.currency,
        "customer": intent.customer,
        "description": intent.description,
        "disputed": charge.dispute is not None,
        "failure_balance_transaction": None,
        "failure_code": charge.decline.code if charge.decline else None,
        "failure_message": charge.decline.message if charge.decline else None,
        "fraud_details": {},
        "livemode": False,
        "metadata": dict(intent.metadata),
        "on_behalf_of": None,
        "outcome": _outcome(charge),
        "paid": paid,
        "payment_intent": intent.id,
        "payment_method": charge.method.id,
        "payment_method_details": {
            "type": "card",
            "card": {
                **_card(charge.method),
                "amount_authorized": charge.amount if paid else None,
                "network": charge.method.card.brand,
                "three_d_secure": None,
            },
        },
        "receipt_email": intent.receipt_email,
        "receipt_number": None,
        "receipt_url": None,
        "refunded": charge.amount_refunded == charge.amount,
        "review": None,
        "shipping": None,
        "source": None,
        "source_transfer": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": intent.statement_descriptor_suffix,
        "status": charge.status,
        "transfer_data": None,
        "transfer_group": None,
    }


def payment_intent_json(intent: PaymentIntent) -> Json:
    return {
        "id": intent.id,
        "object": "payment_intent",
        "allowed_payment_method_types": intent.allowed_payment_method_types,
        "amount": intent.amount,
        "amount_capturable": 0,
        "amount_details": {"tip": {}},
        "amount_received": intent.amount if intent.status == "succeeded" else 0,
        "application": None,
        "application_fee_amount": None,
        "automatic_payment_methods": intent.automatic_payment_methods,
        "canceled_at": intent.canceled_at,
        "cancellation_reason": intent.cancellation_reason,
        "capture_method": "automatic_async",
        "client_secret": intent.client_secret,
        "confirmation_method": "automatic",
        "created": intent.created,
        "currency": intent.currency,
        "customer": intent.customer,
        "customer_account": None,
        "description": intent.description,
        "excluded_payment_method_types": None,
        "last_payment_error": intent.last_payment_error,
        "latest_charge": intent.latest_charge,
        "livemode": False,
        "metadata": dict(intent.metadata),
        "next_action": intent.next_action,
        "on_behalf_of": None,
        "payment_method": intent.payment_method,
        "payment_method_configuration_details": None,
        "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
        "payment_method_types": ["card"],
        "processing": {"type": "card", "card": {}} if intent.status == "processing" else None,
        "receipt_email": intent.receipt_email,
        "review": None,
        "setup_future_usage": None,
        "shipping": None,
        "source": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": intent.statement_descriptor_suffix,
        "status": intent.status,
        "transfer_data": None,
        "transfer_group": None,
    }


def expanded(shown: Json, store: Store, expand: Collection[str]) -> Json:
    """The object with the ids of some fields replaced by the objects themselves."""
    for name in expand:
        if name not in EXPANDABLE[shown["object"]]:
            raise invalid_request(f"This property cannot be expanded here: {name}", param="expand")
        if shown[name] is not None:
            shown = {**shown, name: _look_up(store)[name](shown[name])}
    return shown


def _look_up(store: Store) -> dict[str, Callable[[str], Json]]:
    return {
        "charge": lambda id_: charge_json(store.charge(id_)),
        "customer": lambda id_: customer_json(store.customer(id_)),
        "latest_charge": lambda id_: charge_json(store.charge(id_)),
        "payment_intent": lambda id_: payment_intent_json(store.payment_intent(id_)),
        "payment_method": lambda id_: payment_method_json(store.payment_method(id_)),
    }


def _outcome(charge: Charge) -> Json | None:
    if charge.is_pending:
        return None
    decline = charge.decline
    return {
        "advice_code": decline.advice_code if decline else None,
        "network_advice_code": decline.network_advice_code if decline else None,
        "network_decline_code": decline.network_decline_code if decline else None,
        "network_status": "declined_by_network" if decline else "approved_by_network",
        "reason": decline.reason if decline else None,
        "risk_level": "normal",
        "seller_message": "The bank declined the payment." if decline else "Payment complete.",
        "type": "issuer_declined" if decline else "authorized",
    }


def _card(method: PaymentMethod) -> Json:
    return {
        "brand": method.card.brand,
        "checks": {"address_line1_check": None, "address_postal_code_check": None, "cvc_check": "pass"},
        "country": "BR",
        "exp_month": method.exp_month,
        "exp_year": method.exp_year,
        # The same number has the same fingerprint, whichever payment method holds it.
        "fingerprint": f"fp{method.card.number[-14:]}",
        "funding": "credit",
        "last4": method.card.number[-4:],
        "wallet": None,
    }


def _billing_details() -> Json:
    address = dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state"))
    return {"address": address, "email": None, "name": None, "phone": None, "tax_id": None}
