"""Who is charged, on which terms and in which periods, and the ledger of what they have: all else stands on it."""
