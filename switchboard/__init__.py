"""Switchboard's shared vocabulary: what every other package may import, and nothing that imports them.

Errors that a person reads, paths, progress lines, the Kubernetes client, labels and the command's root.
"""

__version__ = "0.1.0"
