"""The programs that the embedded cloud runs: found where they are, built or unpacked where they aren't.

    tools = ensure(progress)          # everything, made if need be; SwitchboardError says what is missing
    tools = locate(["etcd"])          # what is there already, never builds
    tools.path("etcd"), tools.bin_dirs

Where a tool comes from and which versions fit is in `recipes`; a version is raised in the `go.mod` of its folder.
"""

from infra.local.toolchain.build import ensure
from infra.local.toolchain.lookup import Found, Toolchain, locate

__all__ = ["Found", "Toolchain", "ensure", "locate"]
