"""ModelServers: what runs of them, how many, and what is said of it."""
