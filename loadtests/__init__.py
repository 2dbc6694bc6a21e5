"""Does it hold: Locust users, shapes and verdicts."""
