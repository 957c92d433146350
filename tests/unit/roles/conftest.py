"""Loader of roles' modules, with the contract where Ansible puts it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import ansible.module_utils

REPOSITORY = Path(__file__).resolve().parents[3]

# Ansible ships the contract as part of its module_utils: imitate that.
ansible.module_utils.__path__.append(str(REPOSITORY / "contract"))


def module(role: str, name: str) -> ModuleType:
    """Load a module from a role's library folder."""
    path = REPOSITORY / "roles" / role / "library" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded  # dataclasses resolve their annotations there
    spec.loader.exec_module(loaded)
    return loaded
