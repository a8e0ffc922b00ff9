"""The rules of metering, rating and charging. Pure: no I/O, no clock, no environment, no framework."""
