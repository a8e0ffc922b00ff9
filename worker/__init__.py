"""The running process: Celery's app, its schedule, its life, and its intake."""
