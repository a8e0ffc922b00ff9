"""The counter: what is left, may I, what would it cost, what happened and why; holds, quotas and prices with it."""
