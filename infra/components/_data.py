"""What data an object holds or sees, said on the object itself: by these words the policies judge where it may be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pulumi_kubernetes.meta.v1 import ObjectMetaArgs

from infra.components.exceptions import exceptions
from infra.components.site import SiteNamespace, site_labels
from switchboard import labels
from switchboard.data import DataClass, regions_text


@dataclass(frozen=True)
class Data:
    """A class of data and, where it is bound to regions, those in which it may be."""

    of: DataClass
    regions: frozenset[str] = frozenset()

    @property
    def labels(self) -> dict[str, str]:
        return {labels.DATA_CLASS: str(self.of)}

    @property
    def annotations(self) -> dict[str, str]:
        return {labels.DATA_REGIONS: regions_text(self.regions)} if self.of.bound_to_regions else {}


PULLED_ONCE = "a digest means one content, and a pod must start again on its node while the registry is away"
NO_REGISTRY = "the embedded cloud has no registry: an image is a name for what this machine has"

INTERNAL = Data(DataClass.INTERNAL)
"""Models, metrics, configuration."""


def joined(several: Iterable[Data]) -> Data:
    """What handles data of several kinds: of the greatest class, and only where each that is bound may be.

    >>> joined([INTERNAL, Data(DataClass.CUSTOMER, frozenset({"a", "b"})), Data(DataClass.CUSTOMER, frozenset({"b"}))])
    Data(of=<DataClass.CUSTOMER: 'customer'>, regions=frozenset({'b'}))
    """
    found = tuple(several)
    bound = [data.regions for data in found if data.of.bound_to_regions]
    greatest = max((data.of for data in found), key=lambda of: of.rank, default=DataClass.PUBLIC)
    return Data(greatest, frozenset.intersection(*bound) if bound else frozenset())


def meta(
    namespace: SiteNamespace,
    name: str | None,
    match: Mapping[str, str],
    data: Data,
    annotations: Mapping[str, str] | None = None,
) -> ObjectMetaArgs:
    """Metadata of an object of the namespace that holds `data` (a workload, a ConfigMap, a claim)."""
    return namespace.meta(name, {**match, **data.labels}, {**data.annotations, **(annotations or {})})


def workload_meta(
    namespace: SiteNamespace,
    name: str,
    match: Mapping[str, str],
    data: Data,
    *,
    checkov: Mapping[str, str] | None = None,
    kube_score: Mapping[str, str] | None = None,
    policy: Mapping[str, str] | None = None,
    notes: Mapping[str, str] | None = None,
) -> ObjectMetaArgs:
    """Metadata of a workload; `checkov`, `kube_score` and `policy` are its own exceptions (see
    `infra.components.exceptions`) beside the usual, `notes` other annotations."""
    embedded = namespace.site.embedded is not None
    of_images = dict.fromkeys(("CKV_K8S_15", "CKV_K8S_43"), NO_REGISTRY) if embedded else {}
    pulls = {"container-image-pull-policy": NO_REGISTRY if embedded else PULLED_ONCE}
    made = exceptions(
        checkov={**of_images, **(checkov or {})},
        kube_score={**pulls, **(kube_score or {})},
        policy=policy,
    )
    return meta(namespace, name, match, data, {**made, **(notes or {})})


def pod_meta(
    namespace: SiteNamespace,
    match: Mapping[str, str],
    data: Data,
    *,
    region: str | None = None,
    annotations: Mapping[str, str] | None = None,
) -> ObjectMetaArgs:
    """Metadata of a pod template; `region` is where its pods run, the site's unless it is an edge's."""
    where = {labels.REGION: region or namespace.site.region}
    return ObjectMetaArgs(
        labels={**match, **site_labels(namespace.site), **where, **data.labels},
        annotations={**data.annotations, **(annotations or {})} or None,
    )
