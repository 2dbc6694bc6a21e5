"""Is the stack file fit to be applied: valid, its secrets set, images pinned, clusters named by their ids?"""

from __future__ import annotations

from infra import config
from infra.doctor.report import Finding, failed, of_error, ok, skipped, warning
from switchboard.errors import SwitchboardError


def judge(stack_name: str, found: config.Stack | SwitchboardError) -> list[Finding]:
    """The findings of a stack file, or the one that says what is wrong with it."""
    if isinstance(found, SwitchboardError):
        return [of_error("stack/file", found, f"correct {config.stack_file(stack_name).name}")]
    return [_file(found), _secrets(stack_name, found), _images(found), _clusters(stack_name, found)]


def _file(stack: config.Stack) -> Finding:
    sites = ", ".join(f"{site.name} ({site.role}, {site.region})" for site in stack.sites)
    return ok("stack/file", f"valid: {sites}")


def _secrets(stack_name: str, stack: config.Stack) -> Finding:
    check = "stack/secrets"
    if not stack.secrets_needed:
        return skipped(check, "it needs none")
    if absent := [key for key in stack.secrets_needed if key not in stack.secrets_set]:
        commands = "; ".join(f"`{config.set_secret(key)} --stack {stack_name}`" for key in absent)
        return failed(check, f"not set: {', '.join(absent)}", commands)
    return ok(check, f"{', '.join(stack.secrets_needed)} set, encrypted")


def _images(stack: config.Stack) -> Finding:
    check = "stack/images"
    if stack.embedded:
        return skipped(check, "the embedded cloud runs programs of this machine in their place")
    images = {
        **{
            name: getattr(stack.images, name)
            for name in ("switchboard", "envoy", "prometheus", "alertmanager")
        },
        **{f"overrides.{part}": image for part, image in stack.images.overrides.items()},
    }
    if loose := [f"{name} ({image})" for name, image in images.items() if "@sha256:" not in image]:
        return failed(
            check,
            f"without a digest: {', '.join(loose)}",
            "name each as registry/name@sha256:…: a tag may be another image tomorrow",
        )
    return ok(check, f"{len(images)} by digest")


def _clusters(stack_name: str, stack: config.Stack) -> Finding:
    check = "stack/cluster ids"
    clusters = [site for site in stack.sites if site.cluster is not None]
    if not clusters:
        return skipped(check, "all sites are embedded")
    if unnamed := [site for site in clusters if site.cluster and site.cluster.id is None]:
        return warning(
            check,
            f"without `id`: {', '.join(each.name for each in unnamed)}; `up` refuses them, since a wrong kubeconfig"
            " wouldn't be noticed",
            f"`switchboard pulumi --stack {stack_name} -- preview` names the command that ties each to its cluster",
        )
    return ok(check, f"{len(clusters)} clusters are known by theirs")
