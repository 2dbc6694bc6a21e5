"""What rules are about, and what they answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from infra.policy.manifest import Manifest, text


@dataclass(frozen=True)
class Site:
    """What the stack file says of a site."""

    role: str
    region: str
    embedded: bool = False


@dataclass(frozen=True)
class Subject:
    """An object on its way to a site; `site` is its provider's name, `sites` are those of the stack, `maker` the
    ModelServer that the operator makes it of, if it is one of those."""

    manifest: Manifest
    site: str | None
    sites: Mapping[str, Site] = field(default_factory=dict)
    maker: Subject | None = None

    @property
    def kind(self) -> str:
        return text(self.manifest, "kind") or "object"

    @property
    def title(self) -> str:
        """Such as `Deployment switchboard-core/mlflow of site private`."""
        if self.maker is not None:
            return f"{self.maker.title}, its {self.kind}"
        names = (text(self.manifest, "metadata", key) for key in ("namespace", "name"))
        return f"{self.kind} {'/'.join(filter(None, names)) or '(unnamed)'} of site {self.site or '(none)'}"

    @property
    def facts(self) -> Site | None:
        return self.sites.get(self.site or "")


@dataclass(frozen=True)
class Fault:
    """Why an object is refused, and what to change."""

    reason: str
    mend: str


@dataclass(frozen=True)
class Violation:
    """A rule that an object breaks."""

    rule: str
    resource: str
    reason: str
    mend: str

    def __str__(self) -> str:
        return f"{self.resource}: {self.reason}\n  → {self.mend}"


Rule = Callable[[Subject], Iterator[Fault]]
