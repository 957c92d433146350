"""The harness's command line where its frameworks are not, which are in the image alone."""

from __future__ import annotations

import subprocess
import sys

from virtbed_workloads.__main__ import FAILED


def test_outside_of_the_image_it_is_said_where_the_frameworks_are() -> None:
    """As a reader of workloads/README.md types it, in the tools' environment."""
    done = subprocess.run(
        [sys.executable, "-m", "virtbed_workloads", "image_classification"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (FAILED, "")
    assert "No module named" in done.stderr
    assert done.stderr.rstrip().endswith("in the image: virtbed run image_classification")
