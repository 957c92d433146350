"""The published image: its metadata, and that nothing in it depends on the build's day or host."""

from __future__ import annotations

import json
import re
import subprocess
from datetime import datetime
from pathlib import Path

from virtbed_contract.tree import enter

from ..commands import run

IMAGE = Path("/var/lib/virtbed/images/current-cpu").resolve()
DAY_S = 86400


def test_nothing_in_the_image_depends_on_the_day_or_the_host_of_the_build() -> None:
    root = IMAGE / "rootfs"
    built = datetime.fromisoformat(json.loads((IMAGE / "manifest.json").read_text())["built_at"])
    shadow = (root / "etc/shadow").read_text().splitlines()
    days = {int(line.split(":")[2]) for line in shadow}
    assert len(days) == 1 and days.pop() < built.timestamp() // DAY_S - 365
    ramdisk = next((root / "boot").glob("initrd.img-*")).relative_to(root)
    listed = subprocess.run(
        [*enter(str(root)), "lsinitramfs", "-l", f"/{ramdisk}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    # "-rw-r--r-- 1 root root 5 Jun 10 2023 name"; of the last half year, a time instead of a year.
    years = re.findall(
        r"^\S+ +\d+ \S+ +\S+ +(?:\d+, +)?\d+ \w{3} +\d+ +(\S+) ", listed.stdout, re.M
    )
    assert len(years) > 100 and all(re.fullmatch(r"\d{4}", year) for year in years)
    assert max(map(int, years)) < built.year
    site = next(root.glob("usr/local/lib/python3*/dist-packages"))
    assert not (site / "bin").exists()
    notes = [*site.glob("*.dist-info/direct_url.json"), *site.glob("*.dist-info/uv_cache.json")]
    assert notes == []


def test_an_image_is_compared_by_the_files_next_to_its_tree(tmp_path: Path) -> None:
    for name in ("manifest.json", "sbom.cdx.json", "contents.jsonl.gz"):
        (tmp_path / name).write_bytes((IMAGE / name).read_bytes())
    assert "one image" in run("virtbed", "image", "diff", "cpu", str(tmp_path)).stdout
    parts = json.loads((IMAGE / "sbom.cdx.json").read_text())["components"]
    assert all(part.get("hashes") or part["properties"] for part in parts)
