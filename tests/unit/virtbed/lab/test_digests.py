from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from virtbed.checkout import REPOSITORY
from virtbed.lab import LabError, image, recipe
from virtbed.lab.prepared import snapshot_key
from virtbed.lab.recipe import Recipe
from virtbed.lab.shape import Shape
from virtbed.platforms import load_platforms

PLAIN = Recipe()


def test_a_recipe_names_one_image() -> None:
    assert Recipe().digest() == PLAIN.digest()
    others = [Recipe("trixie"), Recipe(engines=False), Recipe(disk="30G")]
    assert len({each.digest() for each in (PLAIN, *others)}) == 4


@pytest.mark.parametrize("name", ["_SERVER", "_ENGINES", "_MASKED", "_DISABLED", "_RAMDISK"])
def test_every_part_of_a_recipe_changes_the_digest(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = PLAIN.digest()
    monkeypatch.setattr(recipe, name, (*getattr(recipe, name), "another"))
    assert PLAIN.digest() != before


def test_a_file_of_the_tree_changes_the_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    before = PLAIN.digest()
    monkeypatch.setitem(recipe._FILES, "etc/hostname", "other\n")
    assert PLAIN.digest() != before


def test_a_bare_server_has_no_package_that_the_roles_install() -> None:
    assert not set(recipe._ENGINES) & set(Recipe(engines=False).packages)
    assert "docker-cli" in Recipe("trixie").packages
    assert "docker-cli" not in PLAIN.packages


def test_an_equipped_server_has_every_package_that_the_roles_install() -> None:
    """Otherwise the setup of each server would download it, which takes minutes there."""
    roles = load_platforms().roles.values()
    wanted = {name.format(init="systemd") for role in roles for name in role.packages}
    engines = [engine for role in roles for engine in role.engines.values()]
    wanted |= {name.strip() for e in engines if e.package for name in e.package.split(",")}
    host = yaml.safe_load((REPOSITORY / "roles/host_packages/vars/main.yml").read_text())
    wanted |= set(host["__host_packages_names"])
    for suite in ("bookworm", "trixie"):
        there = set(Recipe(suite).packages)
        lacking = [name for name in wanted if not {n.strip() for n in name.split("|")} & there]
        assert lacking == [], suite


def test_everything_that_a_snapshot_depends_on_changes_its_key() -> None:
    shape = Shape()
    plain = ("image", shape, "booted", "tcg", "7.2")
    keys = {snapshot_key(*plain)}  # type: ignore[arg-type]
    changes = ["other", replace(shape, iommu=True), "set up", "kvm", "10.0"]
    for place, other in enumerate(changes):
        keys.add(snapshot_key(*plain[:place], other, *plain[place + 1 :]))  # type: ignore[arg-type]
    assert len(keys) == 1 + len(changes)


def test_an_image_is_published_complete_or_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Recipe, building: Path, __: image.Say) -> None:
        (building / "vmlinuz").touch()
        raise LabError("no network")

    monkeypatch.setattr(image, "_require", lambda: None)
    monkeypatch.setattr(image, "_fill", broken)
    with pytest.raises(LabError, match="no network"):
        image.build(PLAIN, print, tmp_path)
    assert image.find(PLAIN, tmp_path) is None
    assert [p for p in (tmp_path / "images").iterdir() if p.is_dir()] == []


def test_an_image_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Path] = []
    monkeypatch.setattr(image, "_require", lambda: None)
    monkeypatch.setattr(image, "_fill", lambda _, building, __: built.append(building))
    first = image.build(PLAIN, print, tmp_path)
    assert image.build(PLAIN, print, tmp_path) == first == image.find(PLAIN, tmp_path)
    assert len(built) == 1
