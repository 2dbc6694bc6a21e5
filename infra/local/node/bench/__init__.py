"""What a node costs: the CPU of many idle pods with probes, and the time from a pod's binding to its readiness.

    python -m infra.local.node.bench --pods 100 --window 60

One run starts a control plane and a node of its own, and leaves nothing behind. It starts pods one by one and compares
with the same program started by hand; then, for each kind of probe (none, exec, HTTP, TCP), it has `--pods` idle pods
asked every 10 s, and measures what the agent, its shims and what they start use over the window. Needs root.
"""
