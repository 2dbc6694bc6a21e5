"""How it is served: the BentoML services and the gateway."""
