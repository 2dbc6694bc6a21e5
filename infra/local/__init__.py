"""The embedded cloud: real Kubernetes control planes and nodes that run containers as processes."""
