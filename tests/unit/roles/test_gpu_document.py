"""The CDI document of a GPU for Podman: written for its instance, and removed with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

from virtbed_contract import cdi
from virtbed_contract.codec import encode

from ..contract.test_cdi import CHECK, GPU
from .conftest import REPOSITORY

ROLE = REPOSITORY / "roles/enclosure_podman"


def played(folder: Path, document: Path, *tasks: dict[str, object]) -> None:
    """Run tasks with the role's variables, and the document at another path."""
    play = {
        "hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [*tasks],
        "vars_files": [str(ROLE / "vars/main.yml")],
    }  # fmt: skip
    (folder / "play.yml").write_text(yaml.safe_dump([play]))
    instance = {"id": "podman-pinned-c01-r01", "own_kernel": False, "gpu": encode(GPU)}
    variables = {"virtbed_instance": instance, "__enclosure_podman_cdi": str(document)}
    plugins = {"ANSIBLE_FILTER_PLUGINS": str(REPOSITORY / "playbooks/filter_plugins")}
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), folder / "play.yml",
         "-e", json.dumps(variables)],
        cwd=REPOSITORY, check=False, capture_output=True, text=True, env=os.environ | plugins,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_document_is_written_and_removed_with_its_folder(tmp_path: Path) -> None:
    document = tmp_path / "cdi/virtbed.json"
    play: dict[str, object] = {"ansible.builtin.import_tasks": str(ROLE / "tasks/gpu.yml")}
    played(tmp_path, document, {"name": "Describe", **play})
    written = json.loads(document.read_text())
    assert written == cdi.document(GPU)
    CHECK.validate(written)
    assert document.stat().st_mode & 0o777 == 0o644

    conceal: dict[str, object] = {
        "name": "Conceal", "ansible.builtin.raw": "{{ __enclosure_podman_conceal }}"
    }  # fmt: skip
    played(tmp_path, document, conceal, {**conceal, "name": "Once more"})
    assert not document.parent.exists()


def test_a_folder_with_documents_of_others_stays(tmp_path: Path) -> None:
    folder = tmp_path / "cdi"
    folder.mkdir()
    (folder / "nvidia.yaml").touch()
    (folder / "virtbed.json").touch()
    conceal: dict[str, object] = {
        "name": "Conceal", "ansible.builtin.raw": "{{ __enclosure_podman_conceal }}"
    }  # fmt: skip
    played(tmp_path, folder / "virtbed.json", conceal)
    assert [path.name for path in folder.iterdir()] == ["nvidia.yaml"]
