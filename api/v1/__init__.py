"""The counter where applications ask: what is left, may I, what would it cost, what happened, why."""
