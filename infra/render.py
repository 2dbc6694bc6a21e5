"""`switchboard render`: what a stack would apply, as YAML files for review, for GitOps and for checkers.

One folder a site, one file an object, and a `kustomization.yaml` a site, so that `kubectl apply --server-side -k
OUT/SITE` applies it. No secret is ever written: neither the values of Secrets nor what the program marks as secret
elsewhere; each is named in the file's head. Twice the same stack file gives the same bytes.

What the operator will make of ModelServers is written too, in a folder of each site that no `kustomization.yaml` names.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from pydantic import BaseModel

from infra.declared import ADDRESS_LATER, Declared
from infra.plugin.paths import format_path
from infra.plugin.wire import Secret, rename_keys
from switchboard.errors import SwitchboardError

CLUSTER = "_cluster"
"""The folder of a site's objects that belong to the whole cluster; no namespace has such a name."""

MADE = "_made"
"""The folder of what the operator makes: to be read and judged, and applied by nobody else."""

LEFT_OUT = "secret-left-out"
MARKER = "rendered.json"
"""The list of the files that a render wrote: by it the next one knows a folder of its own."""

_SECRET_FIELDS = ("data", "stringData")


class Place(BaseModel):
    """A field of a rendered file."""

    file: str
    field: str


class Rendered(BaseModel):
    """The files of a stack, by path, and where they say less than what would be applied."""

    stack: str
    files: dict[str, str]
    left_out: list[Place] = []
    """Secrets: not in the files."""
    unknown: list[Place] = []
    """Values that only a cluster gives: `…address-known-after-up` stands in their place."""

    def summary(self) -> dict[str, Any]:
        """All but the files' texts, for other programs."""
        return {**self.model_dump(), "files": sorted(self.files)}


def render(stack: str, objects: Iterable[Declared]) -> Rendered:
    """The files for these objects.

    Raises:
        SwitchboardError: two objects would have one file, or a name can't be a file's.
    """
    rendered = Rendered(stack=stack, files={})
    resources: dict[str, list[str]] = {}
    for one in objects:
        path = _path(one)
        _add(rendered, path, one)
        listed = resources.setdefault(one.site, [])
        if one.kind != "Secret":  # applied without its values it would look as if it were there
            listed.append(str(PurePosixPath(path).relative_to(one.site)))
        for made in one.becomes():
            _add(rendered, _path(made, MADE), made, f"# the operator makes it of {one.kind} {one.name}\n")
    for site, paths in resources.items():
        rendered.files[f"{site}/kustomization.yaml"] = _dump(
            {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "resources": sorted(paths),
            }
        )
    return rendered


def _add(rendered: Rendered, path: str, one: Declared, head: str = "") -> None:
    if path in rendered.files:
        raise SwitchboardError(
            f"two objects would be written as {path}: {one.kind} {one.name} is there twice"
        )
    manifest, secrets = without_secrets(one.manifest)
    rendered.files[path] = head + _head(secrets) + _dump(manifest)
    rendered.left_out += [Place(file=path, field=field) for field in secrets]
    rendered.unknown += [Place(file=path, field=field) for field in _unknown(manifest)]


def _path(one: Declared, folder: str = "") -> str:
    name = f"{one.kind.lower()}-{one.name}"
    if "/" in one.name or "/" in (one.namespace or ""):
        raise SwitchboardError(
            f"{one.kind} {one.name} of site {one.site} can't be a file: its name has a slash"
        )
    return str(PurePosixPath(one.site, folder, one.namespace or CLUSTER, f"{name}.yaml"))


def without_secrets(manifest: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A manifest without its secrets, and the fields that they were in.

    Values of a Secret are removed with their keys; elsewhere a word stands in a secret's place, so that the object
    is still of its kind.
    """
    fields: list[str] = []
    kept = dict(manifest)
    if kept.get("kind") == "Secret":
        for name in _SECRET_FIELDS:
            values = kept.pop(name, None)
            inner = values.value if isinstance(values, Secret) else values
            if isinstance(inner, Mapping):
                fields += [format_path((name, key)) for key in sorted(inner)]
            elif inner is not None:
                fields.append(name)
        # What kubectl or a chart keeps of an earlier manifest would hold the values again.
        meta = kept.get("metadata")
        if isinstance(meta, Mapping) and isinstance(meta.get("annotations"), Mapping):
            kept["metadata"] = {
                **meta,
                "annotations": {
                    key: value
                    for key, value in meta["annotations"].items()
                    if key != "kubectl.kubernetes.io/last-applied-configuration"
                },
            }
    cleaned = _replace_secrets(kept, (), fields)
    # The spelling of the typed SDKs for a schema's extensions is theirs alone.
    return rename_keys(
        cleaned, lambda key: key.replace("_", "-") if key.startswith("x_kubernetes_") else key
    ), fields


def _replace_secrets(value: Any, path: tuple[str | int, ...], fields: list[str]) -> Any:
    if isinstance(value, Secret):
        fields.append(format_path(path))
        return LEFT_OUT
    if isinstance(value, Mapping):
        return {key: _replace_secrets(item, (*path, key), fields) for key, item in value.items()}
    if isinstance(value, list):
        return [_replace_secrets(item, (*path, index), fields) for index, item in enumerate(value)]
    return value


def _unknown(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[str]:
    """The fields that hold an address which only a cluster gives."""
    if isinstance(value, str) and ADDRESS_LATER in value:
        yield format_path(path)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _unknown(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unknown(item, (*path, index))


def _head(secrets: list[str]) -> str:
    return "".join(f"# left out, a secret: {field}\n" for field in secrets)


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as they are, which is how a configuration file inside a ConfigMap can be read."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def _dump(document: Mapping[str, Any]) -> str:
    return yaml.dump(dict(document), Dumper=_Dumper, sort_keys=True, allow_unicode=True, width=1_000_000)


def write(rendered: Rendered, out: Path, *, force: bool = False) -> None:
    """Write the files below `out`; what an earlier render of the same stack wrote there and isn't any more is removed.

    Raises:
        SwitchboardError: `out` is no folder, or holds files that no render of this stack wrote (unless `force`; those
            are never removed), or a link in a file's way leads out of it.
    """
    try:
        earlier = _earlier(rendered.stack, out, force=force)
        for path in sorted({*earlier, *rendered.files, MARKER}):
            _refuse_links(out, path)
        for path in sorted(earlier - rendered.files.keys()):
            (out / path).unlink(missing_ok=True)
            _remove_empty((out / path).parent, out)
        for path, text in rendered.files.items():
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            (out / path).write_text(text, encoding="utf-8")
        marker = {"stack": rendered.stack, "files": sorted(rendered.files)}
        (out / MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise SwitchboardError(
            f"can't write {error.filename or out}: {error.strerror}", "choose another folder with --out"
        ) from None


def _earlier(stack: str, out: Path, *, force: bool) -> set[str]:
    """The files that an earlier render of the stack wrote in `out`."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return set()
    other = "--force writes there all the same, and removes nothing"
    try:
        marker = json.loads((out / MARKER).read_text(encoding="utf-8"))
        owner, files = str(marker["stack"]), {str(path) for path in marker["files"]}
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, KeyError):
        if out.is_dir() and force:
            return set()
        what = "it holds files that no render wrote" if out.is_dir() else "it is a file"
        raise SwitchboardError(
            f"{out} is not a rendered folder: {what}", f"name an empty folder; {other}"
        ) from None
    if owner != stack:
        if force:
            return set()
        raise SwitchboardError(f"{out} holds stack {owner}, not {stack}", f"name another folder; {other}")
    # The list may have been edited: nothing outside the folder is ours.
    return {
        path
        for path in files
        if not PurePosixPath(path).is_absolute() and ".." not in PurePosixPath(path).parts
    }


def _refuse_links(out: Path, path: str) -> None:
    """What is behind a link isn't a render's to write or remove."""
    place = out
    for part in PurePosixPath(path).parts:
        place /= part
        if place.is_symlink():
            raise SwitchboardError(
                f"{place} is a link: files are written and removed in {out} itself alone",
                "remove the link, or choose another folder with --out",
            )


def _remove_empty(folder: Path, root: Path) -> None:
    while folder != root and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
