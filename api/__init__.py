"""The HTTP face: it reads and answers, and leaves every decision to the services."""
