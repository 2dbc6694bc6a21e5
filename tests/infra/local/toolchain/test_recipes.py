"""The tables hold together, and a cache key follows everything that a result depends on."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path

import pytest

from infra.local.toolchain.recipes import RECIPES, TOOLS, GoBuild, GoRecipe, module_version, recipe_of

GO_RECIPES = [recipe for recipe in RECIPES if isinstance(recipe, GoRecipe)]


def test_every_tool_is_made_by_one_recipe_except_envoy() -> None:
    makers = {name: [recipe.name for recipe in RECIPES if name in recipe.provides] for name in TOOLS}
    assert makers.pop("envoy") == []
    assert all(len(names) == 1 for names in makers.values()), makers
    assert {name for recipe in RECIPES for name in recipe.provides} <= set(TOOLS)


@pytest.mark.parametrize("name", sorted(TOOLS))
def test_what_is_built_fits(name: str) -> None:
    recipe = recipe_of(name)
    if isinstance(recipe, GoRecipe):
        assert recipe.builds[0].version() in TOOLS[name].fits


@pytest.mark.parametrize("recipe", GO_RECIPES, ids=lambda recipe: recipe.name)
def test_a_key_names_the_version_of_the_go_mod(recipe: GoRecipe) -> None:
    assert re.fullmatch(rf"{recipe.name}-\d+\.\d+\.\d+-[0-9a-f]{{12}}", recipe.key())
    assert recipe.key() == recipe.key()


@pytest.fixture
def recipe(tmp_path: Path) -> GoRecipe:
    """etcd's recipe on a copy of its folder."""
    etcd = next(recipe for recipe in GO_RECIPES if recipe.name == "etcd")
    shutil.copytree(etcd.builds[0].folder, tmp_path / "etcd")
    return dataclasses.replace(etcd, builds=(dataclasses.replace(etcd.builds[0], folder=tmp_path / "etcd"),))


def _with(recipe: GoRecipe, **changes: object) -> GoRecipe:
    return dataclasses.replace(recipe, builds=(dataclasses.replace(recipe.builds[0], **changes),))  # type: ignore[arg-type]


def test_a_key_is_the_same_wherever_the_checkout_is(recipe: GoRecipe) -> None:
    original = next(other for other in GO_RECIPES if other.name == "etcd")
    assert recipe.key() == original.key()


@pytest.mark.parametrize("file", ["go.mod", "go.sum"])
def test_a_changed_module_file_changes_the_key(recipe: GoRecipe, file: str) -> None:
    before = recipe.key()
    with (recipe.builds[0].folder / file).open("a") as stream:
        stream.write("\n// changed\n")
    assert recipe.key() != before


def test_changed_flags_programs_and_tags_change_the_key(recipe: GoRecipe) -> None:
    keys = {
        recipe.key(),
        _with(recipe, ldflags="-w").key(),
        _with(recipe, programs=(("etcd", "other"),)).key(),
        _with(recipe, tags=("netgo",)).key(),
        _with(recipe, tags=("netgo", "remove_all_sd")).key(),
    }
    assert len(keys) == 5


def test_a_module_that_is_not_required_is_named(tmp_path: Path) -> None:
    go_mod = tmp_path / "go.mod"
    go_mod.write_text("module m\n\nrequire example.test/there v1.2.3 // indirect\n")
    assert module_version(go_mod, "example.test/there") == (1, 2, 3)
    with pytest.raises(ValueError, match=r"example\.test/away"):
        module_version(go_mod, "example.test/away")


def test_linker_flags_carry_the_version(tmp_path: Path) -> None:
    (tmp_path / "go.mod").write_text("module m\nrequire (\n\texample.test/tool v1.37.2 // indirect\n)\n")
    build = GoBuild(tmp_path, "example.test/tool", (), "-X v=v{version} -X major={major} -X minor={minor}")
    assert build.linker_flags() == "-X v=v1.37.2 -X major=1 -X minor=37"


@pytest.mark.parametrize(
    ("module", "version"), [("v0.300.1", (3, 0, 1)), ("v0.305.0", (3, 5, 0)), ("v0.313.2", (3, 13, 2))]
)
def test_prometheus_goes_by_its_own_number_not_by_its_modules(
    tmp_path: Path, module: str, version: tuple[int, int, int]
) -> None:
    prometheus = next(recipe for recipe in GO_RECIPES if recipe.name == "prometheus")
    (tmp_path / "go.mod").write_text(f"module m\nrequire github.com/prometheus/prometheus {module}\n")
    build = dataclasses.replace(prometheus.builds[0], folder=tmp_path)
    assert build.version() == version
    assert build.linker_flags().endswith("version.Version=" + ".".join(map(str, version)))
