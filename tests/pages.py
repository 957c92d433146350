"""The files of the checkout and the pages of the documentation, for tests."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from functools import cache
from types import ModuleType

from virtbed.checkout import REPOSITORY

NAMES = subprocess.run(
    ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
    cwd=REPOSITORY, capture_output=True, text=True, check=True,
).stdout.split("\0")  # fmt: skip
PAGES = [name for name in NAMES if name.endswith(".md") and (REPOSITORY / name).is_file()]
FOR_USERS = [name for name in PAGES if name.startswith("docs/") or "/" not in name]
FENCE = re.compile(r"^ *```(\w*)[^\n]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


@cache
def text(name: str) -> str:
    """Return the text of a file of the checkout."""
    return (REPOSITORY / name).read_text(encoding="utf-8")


def tool(name: str) -> ModuleType:
    """Import a script of docs/tools, which is in no package."""
    return script(f"docs/tools/{name}.py")


def script(name: str) -> ModuleType:
    """Import a Python file of the checkout that is in no package."""
    path = REPOSITORY / name
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # dataclasses look their module up
    specification.loader.exec_module(module)
    return module
