"""Payments: from a row that is due to money that moved, and back again."""
