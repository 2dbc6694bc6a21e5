"""The gateway: Envoy in front of the model servers, and the agent that tells it which pods serve what."""
