"""The container runtime of the embedded cloud: a container is a tree of processes in namespaces of its own.

`Runtime` (one a node) starts, adopts, watches and removes containers; `resolve` says what runs in place of an image.
No daemon: each container has one small shim process, which outlives the node agent.
"""

from infra.local.runtime.images import resolve
from infra.local.runtime.leftovers import cleanup, leftovers
from infra.local.runtime.runtime import Runtime
from infra.local.runtime.sessions import Session
from infra.local.runtime.spec import (
    ContainerSpec,
    ContainerState,
    ExecResult,
    ExitStatus,
    Image,
    Limits,
    Mount,
    NoSuchContainer,
    StartError,
    Stats,
    UnknownImage,
)

__all__ = [
    "ContainerSpec",
    "ContainerState",
    "ExecResult",
    "ExitStatus",
    "Image",
    "Limits",
    "Mount",
    "NoSuchContainer",
    "Runtime",
    "Session",
    "StartError",
    "Stats",
    "UnknownImage",
    "cleanup",
    "leftovers",
    "resolve",
]
