"""The command line: `centavo …`."""
