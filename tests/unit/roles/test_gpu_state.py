"""The module gpu_state, with a made-up NVML."""

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
    """The module's result; raised instead of ending the interpreter."""


def ended(monkeypatch: pytest.MonkeyPatch, **options: Any) -> dict[str, Any]:
    """Return the module's result for these options."""
    from ansible.module_utils import basic
    from ansible.module_utils.testing import patch_module_args

    def end(self: Any, **result: Any) -> None:
        raise Ended(result)

    monkeypatch.setattr(basic, "_ANSIBLE_ARGS", None)
    monkeypatch.setattr(gpu_state.AnsibleModule, "exit_json", end)
    monkeypatch.setattr(gpu_state.AnsibleModule, "fail_json", end)
    arguments = {"gpu": UUID, "bindings": pynvml.__file__, **options}
    with patch_module_args(arguments), pytest.raises(Ended) as raised:
        gpu_state.main()
    returned: dict[str, Any] = raised.value.args[0]
    return returned


def test_the_reading_is_the_contracts_document(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Library())
    monkeypatch.setattr(gpu_state.nvml, "bindings", lambda path: pynvml)
    result = ended(monkeypatch)
    assert not result["changed"]
    assert result["reading"] | {"at_ns": 42} == encode(WHOLE)


@pytest.mark.parametrize(
    ("library", "gpu", "kind"),
    [
        (None, UUID, "library"),
        (Library(fails={"nvmlInitWithFlags": 18}), UUID, "mismatch"),
        (Library(), "GPU-0", "absent"),
        (Library(fails={"nvmlDeviceGetPowerUsage": 15}), UUID, "lost"),
    ],
)
def test_a_gpu_that_does_not_answer_fails_with_its_kind(
    monkeypatch: pytest.MonkeyPatch, library: Library | None, gpu: str, kind: str
) -> None:
    install(monkeypatch, library)
    monkeypatch.setattr(gpu_state.nvml, "bindings", lambda path: pynvml)
    result = ended(monkeypatch, gpu=gpu)
    assert result["kind"] == kind and result["msg"].startswith("gpu_state: ")


def test_a_missing_file_of_bindings_is_an_error_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    result = ended(monkeypatch, bindings=str(tmp_path / "pynvml.py"))
    assert "no " in result["msg"] and "run make setup PLAN=" in result["msg"]
