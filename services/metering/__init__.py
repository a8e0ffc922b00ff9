"""Usage: from bytes to charges, each once; what is parked, waits, is undone or rated again."""
