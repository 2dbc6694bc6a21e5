"""The bootstrap: a whole environment from the lock file, once; repaired when it is broken, moved or outdated.

The real thing on a checkout of three packages (it fetches uv, as every first run does).
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from infra.local import bootstrap

PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "switchboard"
version = "0"
[project.scripts]
switchboard = "tiny:main"
[tool.setuptools]
py-modules = ["tiny"]
"""


def test_an_old_python_gets_to_the_message() -> None:
    source = Path(bootstrap.__file__).read_text("utf-8")
    tree = ast.parse(source, feature_version=(3, 7))
    imports = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    check = next(node for node in tree.body if isinstance(node, ast.If))
    early = [name.name for node in imports if node.lineno < check.lineno for name in node.names]
    assert early == ["sys"], "what comes before the check must be there in every Python"


def test_the_real_lock_file_names_uv() -> None:
    lines = bootstrap.requirement((bootstrap.ROOT / bootstrap.LOCK).read_text("utf-8"), "uv")
    assert lines.startswith("uv==")
    assert lines.count("--hash=sha256:") > 5
    assert "uvicorn" not in lines
    assert not lines.rstrip().endswith("\\")


@pytest.mark.parametrize(
    ("lock", "lines"),
    [
        (
            "a==1 \\\n    --hash=sha256:0\nuv==2 \\\n    --hash=sha256:1 \\\n    --hash=sha256:2\n    # via x\n",
            3,
        ),
        ("uv==2 ; python_version > '3' \\\n    --hash=sha256:1\nz==1\n", 2),
        ("uv==2\nz==1\n", 1),
    ],
)
def test_a_requirement_is_taken_with_its_hashes(lock: str, lines: int) -> None:
    assert bootstrap.requirement(lock, "uv").count("\n") == lines


def test_a_lock_file_without_uv_is_named() -> None:
    with pytest.raises(bootstrap.BootstrapError, match=r"requirements\.lock names no version of uv"):
        bootstrap.requirement("uvicorn==1\n", "uv")


@pytest.mark.parametrize(
    ("pip", "environment", "settings"),
    [
        (
            "global.index-url='https://mirror.test/simple'\n",
            {},
            {"UV_DEFAULT_INDEX": "https://mirror.test/simple"},
        ),
        (":env:.index-url='https://mirror.test'\n", {}, {"UV_DEFAULT_INDEX": "https://mirror.test"}),
        ("global.index-url='https://a.test'\n", {"UV_DEFAULT_INDEX": "https://b.test"}, {}),
        (
            "global.extra-index-url='\\nhttps://a.test\\nhttps://b.test'\n",
            {},
            {"UV_INDEX": "https://a.test https://b.test"},
        ),
        ("install.trusted-host='a.test'\nglobal.timeout='60'\n", {}, {"UV_INSECURE_HOST": "a.test"}),
        ("", {}, {}),
    ],
)
def test_pips_registry_is_used_by_uv_too(
    pip: str, environment: dict[str, str], settings: dict[str, str]
) -> None:
    assert bootstrap.uv_settings(pip, environment) == settings


def test_what_the_machine_lacks_is_named_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SWITCHBOARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SWITCHBOARD_TOOLS", raising=False)
    with pytest.raises(bootstrap.BootstrapError) as caught:
        bootstrap.check_machine()
    for word in ("git", "make", "a C compiler", "Go ≥ 1.26", "alertmanager"):
        assert word in str(caught.value)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkout with its environment made by two runs at once."""
    root = tmp_path_factory.mktemp("checkout")
    (root / "pyproject.toml").write_text(PROJECT)
    (root / "tiny.py").write_text("def main():\n    print('here')\n")
    lock = (bootstrap.ROOT / bootstrap.LOCK).read_text("utf-8")
    (root / bootstrap.LOCK).write_text(
        "".join(bootstrap.requirement(lock, n) for n in ("pip", "setuptools", "uv"))
    )
    runs = [_start(root), _start(root)]
    outputs = [run.communicate(timeout=300)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    assert sorted("waiting for it" in output for output in outputs) == [False, True], outputs
    assert sum("✓ install the packages" in output for output in outputs) == 1, outputs
    return root


def _start(root: Path, uv: Path | None = None) -> subprocess.Popen[str]:
    """Start a run; with `uv` it is as on a Python without ensurepip (Debian splits it off) that has uv on PATH.

    That way takes a second; the usual one, by which the checkout above is made, takes five.
    """
    code = (
        f"import sys; sys.path.insert(0, {str(bootstrap.ROOT)!r})\n"
        + ("sys.modules['ensurepip'] = None\n" if uv else "")
        + "from pathlib import Path\nfrom infra.local import bootstrap\n"
        f"sys.exit(bootstrap.main(Path({str(root)!r})))"
    )
    path = os.pathsep.join([*([str(uv.parent)] if uv else []), os.environ["PATH"]])
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _run(root: Path, uv: Path | None = None) -> str:
    process = _start(root, uv)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    return output


def _says(root: Path) -> str:
    return subprocess.run([root / ".venv/bin/switchboard"], capture_output=True, text=True, check=True).stdout


def test_the_environment_works_and_is_compiled(checkout: Path) -> None:
    assert _says(checkout) == "here\n"
    packages = next((checkout / ".venv" / "lib").glob("python3.*/site-packages"))
    sources = {file for file in packages.rglob("*.py") if "setuptools" in file.parts}
    compiled = [file for file in packages.rglob("*.pyc") if "setuptools" in file.parts]
    assert len(compiled) >= 0.9 * len(sources), "pods can't write bytecode: it must be there"
    assert not (checkout / ".venv-uv.txt").exists()


def test_a_second_run_does_nothing(checkout: Path) -> None:
    before = (checkout / ".venv" / bootstrap.STAMP).stat().st_mtime_ns
    assert _run(checkout) == ""
    assert (checkout / ".venv" / bootstrap.STAMP).stat().st_mtime_ns == before


def test_what_is_not_in_the_lock_file_goes_and_what_is_missing_comes(checkout: Path) -> None:
    packages = next((checkout / ".venv" / "lib").glob("python3.*/site-packages"))
    shutil.rmtree(packages / "setuptools")
    for info in packages.glob("setuptools-*.dist-info"):
        shutil.rmtree(info)
    (checkout / ".venv" / bootstrap.STAMP).unlink()  # as a run leaves it that was cut off
    assert "✓ install the packages" in _run(checkout)
    assert (packages / "setuptools" / "__init__.py").exists()


def test_a_moved_checkout_gets_an_environment_of_its_own(checkout: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(checkout, moved, symlinks=True)
    assert "was moved: making it anew" in _run(moved, uv=checkout / ".venv/bin/uv")
    assert _says(moved) == "here\n"
    assert bootstrap.usable(moved / ".venv"), "the next run takes it as it is"
    assert bootstrap.up_to_date(moved)
    assert str(moved) in (moved / ".venv/bin/switchboard").read_text().splitlines()[0]


def test_a_lost_python_is_noticed(checkout: Path, tmp_path: Path) -> None:
    root = tmp_path / "lost"
    shutil.copytree(checkout, root, symlinks=True)
    (root / ".venv/bin/python").unlink()
    (root / ".venv/bin/python").symlink_to("/nowhere/python3")
    assert not bootstrap.up_to_date(root)
    assert not bootstrap.usable(root / ".venv")


@pytest.mark.parametrize("name", [bootstrap.LOCK, "pyproject.toml", ".venv/pyvenv.cfg"])
def test_a_change_of_what_it_was_made_from_is_noticed(checkout: Path, tmp_path: Path, name: str) -> None:
    assert bootstrap.up_to_date(checkout)
    root = tmp_path / "changed"
    (root / ".venv").mkdir(parents=True)
    for file in (bootstrap.LOCK, "pyproject.toml", ".venv/pyvenv.cfg"):
        shutil.copy(checkout / file, root / file)
    before = bootstrap.stamp(root)
    with (root / name).open("a") as stream:
        stream.write("\n")
    assert bootstrap.stamp(root) != before


@pytest.mark.parametrize(
    ("package", "pattern", "wrong", "step", "reason"),
    [
        ("uv", r"==", "==99999.", "make the virtual environment", "uv==99999"),
        ("setuptools", r"==", "==99999.", "install the packages", "setuptools==99999"),
        ("setuptools", r"sha256:\w+", f"sha256:{'0' * 64}", "install the packages", "Hash mismatch"),
    ],
    ids=["no such uv", "no such package", "a package that isn't the locked one"],
)
def test_a_failed_installation_says_what_to_do(
    tmp_path: Path, checkout: Path, package: str, pattern: str, wrong: str, step: str, reason: str
) -> None:
    for name in ("pyproject.toml", "tiny.py"):
        shutil.copy(checkout / name, tmp_path)
    lock = (checkout / bootstrap.LOCK).read_text()
    lines = bootstrap.requirement(lock, package)
    (tmp_path / bootstrap.LOCK).write_text(lock.replace(lines, re.sub(pattern, wrong, lines)))
    process = _start(tmp_path, uv=checkout / ".venv/bin/uv")
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 1
    assert f"✗ {step}" in output
    assert reason in output
    assert output.splitlines()[-1].startswith("  → check the network")
    assert "Traceback" not in output
    assert not (tmp_path / ".venv" / bootstrap.STAMP).exists()
    assert not (tmp_path / ".venv-uv.txt").exists()
