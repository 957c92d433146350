"""The module that reads a GPU's state on its machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pynvml
import pytest

from virtbed_contract.codec import encode

from ..contract.nvml_library import UUID, Library, install
from ..contract.test_nvml import WHOLE
from .conftest import module

gpu_state = module("gpu_nvidia", "gpu_state")


class Ended(Exception):
    """What the module said at its end, in place of leaving the interpreter."""


def ended(monkeypatch: pytest.MonkeyPatch, **options: Any) -> dict[str, Any]:
    """Return what the module says to these options."""
    from ansible.module_utils import basic
    from ansible.module_utils.testing import patch_module_args

    def end(self: Any, **said: Any) -> None:
        raise Ended(said)

    monkeypatch.setattr(basic, "_ANSIBLE_ARGS", None)
    monkeypatch.setattr(gpu_state.AnsibleModule, "exit_json", end)
    monkeypatch.setattr(gpu_state.AnsibleModule, "fail_json", end)
    given = {"gpu": UUID, "bindings": pynvml.__file__, **options}
    with patch_module_args(given), pytest.raises(Ended) as said:
        gpu_state.main()
    found: dict[str, Any] = said.value.args[0]
    return found


def test_a_state_is_the_contracts(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Library())
    monkeypatch.setattr(gpu_state.nvml, "bindings", lambda path: pynvml)
    said = ended(monkeypatch)
    assert not said["changed"]
    assert said["reading"] | {"at_ns": 42} == encode(WHOLE)


@pytest.mark.parametrize(
    ("library", "gpu", "kind"),
    [
        (None, UUID, "library"),
        (Library(fails={"nvmlInitWithFlags": 18}), UUID, "mismatch"),
        (Library(), "GPU-0", "absent"),
        (Library(fails={"nvmlDeviceGetPowerUsage": 15}), UUID, "lost"),
    ],
)
def test_a_gpu_that_does_not_answer_fails_in_words(
    monkeypatch: pytest.MonkeyPatch, library: Library | None, gpu: str, kind: str
) -> None:
    install(monkeypatch, library)
    monkeypatch.setattr(gpu_state.nvml, "bindings", lambda path: pynvml)
    said = ended(monkeypatch, gpu=gpu)
    assert said["kind"] == kind and said["msg"].startswith("gpu_state: ")


def test_a_host_without_the_image_says_how_to_get_the_bindings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = ended(monkeypatch, bindings=str(tmp_path / "pynvml.py"))
    assert "no " in said["msg"] and "run make setup PLAN=" in said["msg"]
