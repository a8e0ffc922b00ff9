"""The month: subscriptions, periods that begin and are closed, statements, and what is archived after them."""
