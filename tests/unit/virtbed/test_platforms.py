"""platforms.yml with the properties of its roles: read, put into words, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from virtbed.checkout import CheckoutError
from virtbed.platforms import PlatformError, load_platforms, read_mapping

ENTRY = {
    "machine": "metal", "enclosure": "box", "words": "box", "boundary": "none",
    "colour": "#8a8a8a", "mark": "s",
}  # fmt: skip
BOX = {"limits": {"vanilla": "quota", "pinned": "set"}, "trial_s": {"real": 2, "emulated": 9}}
METAL = {"limits": {"vanilla": "count", "pinned": "none"}, "trial_s": {"real": 1, "emulated": 1}}


def checkout(root: Path, entries: object, **roles: object) -> Path:
    """Make a checkout of some platforms and the roles behind them."""
    (root / "platforms.yml").write_text(yaml.safe_dump(entries))
    for name, properties in ({"machine_metal": METAL, "enclosure_box": BOX} | roles).items():
        file = root / "roles" / name / "meta" / "virtbed.yml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(properties))
    return root


def test_a_platform_has_its_roles_with_their_words_and_times(tmp_path: Path) -> None:
    guest = {**METAL, "own_kernel": True}
    entries = {"a": ENTRY, "b": {**ENTRY, "machine": "guest", "words": "box in a guest"}}
    found = load_platforms(checkout(tmp_path, entries, machine_guest=guest))
    assert [*found.entries] == ["a", "b"]
    assert found.entries["a"].in_words("vanilla") == "box, CPU quota"
    assert found.entries["b"].in_words("pinned") == "box in a guest, pinned"
    # What runs in a guest comes with the image.
    assert found.host_roles("a") == ["machine_metal", "enclosure_box"]
    assert found.host_roles("b") == ["machine_guest"]
    assert {*found.roles} == {"machine_metal", "machine_guest", "enclosure_box"}
    assert (found.trial_s("a", emulated=False), found.trial_s("a", emulated=True)) == (3, 10)


def test_an_enclosure_without_a_limit_has_the_words_of_its_machine(tmp_path: Path) -> None:
    free = {**BOX, "limits": {"vanilla": "none", "pinned": "set"}}
    found = load_platforms(checkout(tmp_path, {"a": ENTRY}, enclosure_box=free))
    assert found.entries["a"].in_words("vanilla") == "box, other CPUs offline"


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ({"a": {**ENTRY, "enclosure": "gone"}}, r"roles/enclosure_gone/meta/virtbed\.yml"),
        ({"a": "box"}, r"platforms\.yml: a: str found, a mapping needed"),
        ({"a": {**ENTRY, "color": "#ffffff"}}, r"platforms\.yml.*color: unknown key"),
        ({"a": {**ENTRY, "colour": "grey"}}, r"platforms\.yml.*colour"),
        ({"Has Space": ENTRY}, r"platforms\.yml.*name"),
    ],
)
def test_the_message_for_an_unusable_entry_names_the_file_and_the_key(
    tmp_path: Path, entries: object, why: str
) -> None:
    with pytest.raises(PlatformError, match=why):
        load_platforms(checkout(tmp_path, entries))


def test_the_message_for_invalid_role_properties_names_the_file(tmp_path: Path) -> None:
    wrong = {**BOX, "limits": {"vanilla": "half", "pinned": "set"}}
    with pytest.raises(PlatformError, match=r"enclosure_box/meta/virtbed\.yml.*vanilla"):
        load_platforms(checkout(tmp_path, {"a": ENTRY}, enclosure_box=wrong))


def test_without_a_checkout_loading_platforms_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckoutError, match=r"no platforms\.yml found"):
        load_platforms(tmp_path)
    with pytest.raises(PlatformError):
        read_mapping(tmp_path / "platforms.yml")
