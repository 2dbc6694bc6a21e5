"""From a spec to the shim's steps: order, who wins a place, what is refused and with which reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.local.runtime.plan import check, environment, steps
from infra.local.runtime.spec import ContainerSpec, Image, Mount, StartError

IMAGE = Image(
    "test", binds=((Path("/usr/bin"), "/usr/bin"),), links=(("/bin", "usr/bin"),), env={"A": "image"}
)


def spec(**more: Any) -> ContainerSpec:
    base = ContainerSpec("u_c_0", IMAGE, ("true",), log_path=Path("/x/0.log"), cgroup="switchboard/t/c")
    return replace(base, **more)


def places(of: ContainerSpec) -> dict[str, tuple[Any, ...]]:
    found = steps(of, "nameserver 127.0.0.53\n", b"TZ")
    return {step[2] if step[0] == "bind" else step[1]: step for step in found}


@pytest.mark.parametrize(
    ("change", "reason", "says"),
    [
        ({"id": "../x"}, "CreateContainerConfigError", "file name"),
        ({"argv": ()}, "CreateContainerError", "no command"),
        ({"argv": ("a\0b",)}, "CreateContainerConfigError", "NUL"),
        ({"env": {"A": "\0"}}, "CreateContainerConfigError", "NUL"),
        ({"cgroup": "/switchboard"}, "CreateContainerConfigError", "relative"),
        ({"cgroup": "a/../../b"}, "CreateContainerConfigError", "relative"),
        ({"working_dir": "app"}, "CreateContainerConfigError", "not absolute"),
        ({"mounts": (Mount(Path("/usr"), "/"),)}, "CreateContainerConfigError", "below /"),
        ({"mounts": (Mount(Path("/usr"), "data"),)}, "CreateContainerConfigError", "absolute"),
        ({"mounts": (Mount(Path("/usr"), "/a/../.."),)}, "CreateContainerConfigError", "absolute"),
        (
            {"mounts": (Mount(Path("/usr"), "/proc/sys"),)},
            "CreateContainerConfigError",
            "nothing can be mounted",
        ),
        (
            {"mounts": (Mount(Path("/usr"), "/.host/usr"),)},
            "CreateContainerConfigError",
            "nothing can be mounted",
        ),
        *(
            (
                {"mounts": (Mount(Path("/usr"), place),)},
                "CreateContainerConfigError",
                f"nothing can be mounted at {place}",
            )
            for place in ("//proc", "//dev", "///dev", "//dev/null", "//.host/x", "/./proc")
        ),
        ({"tmpfs": ("//proc",)}, "CreateContainerConfigError", "nothing can be mounted at //proc"),
        ({"mounts": (Mount(Path("/usr"), "//"),)}, "CreateContainerConfigError", "below /"),
        ({"mounts": (Mount(Path("/nowhere"), "/d"),)}, "CreateContainerConfigError", "/nowhere isn't there"),
    ],
)
def test_refused(change: dict[str, Any], reason: str, says: str) -> None:
    with pytest.raises(StartError) as caught:
        check(spec(**change), 0, 0)
    assert caught.value.reason == reason
    assert says in caught.value.message


def test_without_root_only_the_own_group_can_be_honoured() -> None:
    check(spec(gid=10001, supplemental_groups=(10001,)), 1000, 1000)
    check(spec(gid=10001, supplemental_groups=(5,)), 0, 0)
    with pytest.raises(StartError, match="supplemental groups 5"):
        check(spec(gid=10001, supplemental_groups=(5,)), 1000, 1000)


def test_parents_come_before_what_lies_in_them() -> None:
    mounts = (Mount(Path("/usr"), "/data/a/b"), Mount(Path("/usr"), "/data"))
    order = list(places(spec(mounts=mounts, tmpfs=("/data/a",))))
    assert order.index("/data") < order.index("/data/a") < order.index("/data/a/b")


@pytest.mark.parametrize(
    ("mounts", "place", "kind"),
    [
        ((), "/etc/hosts", "file"),
        ((Mount(Path("/etc/hostname"), "/etc/hosts"),), "/etc/hosts", "bind"),
        ((), "/tmp", "tmpfs"),
        ((Mount(Path("/usr"), "/tmp"),), "/tmp", "bind"),
        ((Mount(Path("/usr"), "/tmp/"),), "/tmp", "bind"),
        ((Mount(Path("/usr"), "//tmp"),), "/tmp", "bind"),
        ((Mount(Path("/usr"), "/bin"),), "/bin", "bind"),
        ((Mount(Path("/usr"), "/etc"),), "/etc", "bind"),
    ],
)
def test_the_pods_mount_wins(mounts: tuple[Mount, ...], place: str, kind: str) -> None:
    assert places(spec(mounts=mounts))[place][0] == kind


def test_a_mount_hides_what_the_image_has_below_it() -> None:
    found = places(spec(mounts=(Mount(Path("/usr"), "/etc"), Mount(Path("/usr"), "/usr"))))
    assert not [place for place in found if place.startswith(("/etc/", "/usr/"))]


def test_a_checkout_in_tmp_stays_visible_below_a_mounted_tmp() -> None:
    image = replace(IMAGE, binds=((Path("/usr"), "/tmp/checkout/infra"),))
    order = list(places(spec(image=image, mounts=(Mount(Path("/usr"), "/tmp"),))))
    assert order.index("/tmp") < order.index("/tmp/checkout/infra")


def test_users_and_environment() -> None:
    of = spec(uid=10001, gid=10001, supplemental_groups=(2000,), hostname="chat-0", env={"A": "pod"})
    found = places(of)
    assert b"app:x:10001:10001:app:/tmp:/bin/sh\n" in found["/etc/passwd"][2]
    assert b"group2000:x:2000:\n" in found["/etc/group"][2]
    assert environment(of) == {"HOME": "/tmp", "HOSTNAME": "chat-0", "A": "pod"}
    assert environment(spec())["HOME"] == "/root"
