"""The harness's command line outside of the image, where its frameworks are not installed."""

from __future__ import annotations

import subprocess
import sys

from virtbed_workloads.__main__ import FAILED


def test_outside_of_the_image_the_error_names_the_command_that_runs_it_there() -> None:
    """The command of workloads/README.md, run in the tools' environment."""
    done = subprocess.run(
        [sys.executable, "-m", "virtbed_workloads", "image_classification"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (FAILED, "")
    assert "No module named" in done.stderr
    assert done.stderr.rstrip().endswith("in the image: virtbed run image_classification")
