"""What the process is told: settings, the clock, how to log. The only room that reads the environment."""
