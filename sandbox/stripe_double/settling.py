"""What happens at Stripe without a request of ours: outcomes that come later, customers who authenticate, new cards."""

from sandbox.stripe_double import setup_intents
from sandbox.stripe_double.cards import AUTHENTICATION_FAILED, SETUP_AUTHENTICATION_FAILED, CardDecline
from sandbox.stripe_double.confirmation import declined, succeed
from sandbox.stripe_double.errors import invalid_request
from sandbox.stripe_double.objects import Charge, PaymentIntent
from sandbox.stripe_double.render import payment_method_json
from sandbox.stripe_double.state import Store


def settle_processing(store: Store, intent_id: str, decline: CardDecline | None) -> None:
    """End the wait of an intent that is `processing`: by this decline, or by success."""
    intent = store.payment_intent(intent_id)
    _require(intent, "processing")
    charge = store.charge(str(intent.latest_charge))
    charge.is_pending, charge.decline = False, decline
    _end(store, intent, charge)


def authenticate(store: Store, intent_id: str, *, is_successful: bool) -> None:
    """The customer does what a PaymentIntent or SetupIntent that `requires_action` asks for, or fails to."""
    if intent_id in store.setup_intents:
        _authenticate_setup(store, intent_id, is_successful=is_successful)
        return
    intent = store.payment_intent(intent_id)
    _require(intent, "requires_action")
    method = store.payment_method(str(intent.payment_method))
    if is_successful:
        succeed(store, intent, store.add_charge(intent, method, None))
    else:
        declined(store, intent, method, AUTHENTICATION_FAILED, None)


def update_card(store: Store, method_id: str, exp_month: int, exp_year: int) -> None:
    """The bank has issued the card anew, and its network told Stripe."""
    method = store.payment_method(method_id)
    before = {"card": {"exp_month": method.exp_month, "exp_year": method.exp_year}}
    method.exp_month, method.exp_year = exp_month, exp_year
    store.emit("payment_method.automatically_updated", payment_method_json(method), before)


def _end(store: Store, intent: PaymentIntent, charge: Charge) -> None:
    if charge.decline:
        declined(store, intent, charge.method, charge.decline, charge)
    else:
        succeed(store, intent, charge)


def _authenticate_setup(store: Store, intent_id: str, *, is_successful: bool) -> None:
    intent = store.setup_intent(intent_id)
    if intent.status != "requires_action":
        raise invalid_request(f"{intent.id} is {intent.status}, not requires_action.")
    method = store.payment_method(str(intent.payment_method))
    if is_successful:
        setup_intents.succeed(store, intent, method)
    else:
        setup_intents.declined(intent, method, SETUP_AUTHENTICATION_FAILED)


def _require(intent: PaymentIntent, status: str) -> None:
    if intent.status != status:
        raise invalid_request(f"{intent.id} is {intent.status}, not {status}.")
