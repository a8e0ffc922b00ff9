"""The use cases: each opens the transaction, loads and locks, asks the rules, writes."""
