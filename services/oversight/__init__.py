"""Looking after it all: the audit, alerts and their delivery, health, figures for a monitor."""
