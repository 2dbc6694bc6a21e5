"""What the operator is tried against where there are no machines: nodes and traffic that are simulated, on a real API
server and a real Prometheus."""
