"""Names of tasks. They are API: producers and schedules use them, and they are never renamed in silence."""

RECORD_USAGE = "centavo.record_usage"
PARK_MESSAGE = "centavo.park_message"
SWEEP_PAYMENTS = "centavo.sweep_payments"
COLLECT_PAYMENT = "centavo.collect_payment"
