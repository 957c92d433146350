"""Modules of roles, loaded as Ansible loads them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import ansible.module_utils

REPOSITORY = Path(__file__).resolve().parents[3]

# Ansible puts the contract next to its own module_utils when it ships a module; so do we.
ansible.module_utils.__path__.append(str(REPOSITORY / "contract"))


def module(role: str, name: str) -> ModuleType:
    """Return a role's module."""
    path = REPOSITORY / "roles" / role / "library" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded  # where dataclasses look their annotations up
    spec.loader.exec_module(loaded)
    return loaded
