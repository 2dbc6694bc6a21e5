"""The stack file as types: what a stack consists of, checked before anything is done.

Both the Pulumi program and the embedded cloud read a stack through this package, so that the sites are described
once, in `Pulumi.<stack>.yaml`. Every error names the key, the value and what would be right, in one line.
"""

from infra.config.file import load, stack_file
from infra.config.people import Person
from infra.config.servers import (
    KINDS,
    PARTS,
    Artifacts,
    Database,
    Images,
    MlflowStore,
    ModelServer,
    Resources,
)
from infra.config.sites import Cluster, Edge, Embedded, Node, Site
from infra.config.stack import PROJECT, SECRETS, Stack, parse, set_secret

__all__ = [
    "KINDS",
    "PARTS",
    "PROJECT",
    "SECRETS",
    "Artifacts",
    "Cluster",
    "Database",
    "Edge",
    "Embedded",
    "Images",
    "MlflowStore",
    "ModelServer",
    "Node",
    "Person",
    "Resources",
    "Site",
    "Stack",
    "load",
    "parse",
    "set_secret",
    "stack_file",
]
