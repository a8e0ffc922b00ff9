"""The Celery face of the services: name, queue, retry policy, one call."""

from centavo import amqps

amqps.install()
