"""What the traffic is: from Prometheus, from the gateways themselves where it is away, and what replicas can take."""
