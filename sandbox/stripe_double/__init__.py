"""A double of Stripe at wire level, for development and tests. It moves no money and speaks on loopback only."""
