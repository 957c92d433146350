"""Hosts of two Debian releases build one image: the same sources and packages, the same digest."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from virtbed.image_diff import BILL, CONTENTS, MANIFEST
from virtbed.lab import FOLDER
from virtbed.lab.image import build
from virtbed.lab.recipe import Recipe
from virtbed.lab.server import Server

from ..commands import run
from .benches import HARDWARE, STATE, bench_image
from .conftest import say
from .sweeps import joined

pytestmark = pytest.mark.full
IMAGE = "images/current-null"
"""A built image, in the state folder."""
# SSL_CERT_FILE is read by uv, which has certificates of its own otherwise.
TRUST = (
    "cat > /etc/ssl/certs/lab.crt; echo SSL_CERT_FILE=/etc/ssl/certs/lab.crt >> /etc/environment"
)


def test_hosts_of_two_releases_build_the_image_of_this_machine(
    server: Callable[..., Server], tmp_path: Path
) -> None:
    """Both build the image null from nothing: packages from Debian's mirror, wheels from PyPI."""
    bench_image(Recipe())
    hosts = {suite: server(build(Recipe(suite), say), memory_mib=3072) for suite in HARDWARE}
    if authorities := os.environ.get("SSL_CERT_FILE"):  # those that this machine trusts
        for host in hosts.values():
            with Path(authorities).open("rb") as file:
                subprocess.run(host.ssh("sh", "-c", TRUST), stdin=file, check=True)
    inventory = joined(hosts.values(), tmp_path / "both")
    say("building the image null on both at the same time")
    run("ansible-playbook", "-i", str(inventory), "-e", "plan=functional", "playbooks/image.yml")
    here = FOLDER / "bench" / IMAGE
    for suite, host in hosts.items():
        lists = tmp_path / suite
        lists.mkdir()
        for name in (MANIFEST, BILL, CONTENTS):
            with (lists / name).open("wb") as file:
                subprocess.run(host.ssh("cat", f"{STATE}/{IMAGE}/{name}"), stdout=file, check=True)
        differs = run("virtbed", "image", "diff", str(here), str(lists), ok=False)
        assert differs.returncode == 0, differs.stdout + differs.stderr
