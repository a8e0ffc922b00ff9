"""Trying to break it: real processes, killed at the worst moments, and what Stripe took compared with what was owed."""
