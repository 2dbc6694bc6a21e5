"""What keeps it so: the operator and its policies."""
