"""What a person does: runbooks that run, and drills."""
