"""The applications give right answers under JAX too, because their models are backend-neutral."""

import json
import os
import subprocess
import sys

import pytest

from virtbed_workloads.registry import APPLICATIONS

JAX = "/tmp/jax"  # where `virtbed in-image` binds .venv/jax
SCRIPT = """
import json, sys
from virtbed_workloads import backend
from virtbed_workloads.registry import APPLICATIONS

application = APPLICATIONS[sys.argv[1]].create("trained")
application.load()
answers = {}
for name, request in application.inputs().items():
    answer = application.postprocess(application.infer(application.preprocess(request)))
    check = application.check(name, answer)
    answers[name] = [check.right, application.describe(answer), check.expected]
backend.verify("cpu")
print(json.dumps([backend.frameworks(), answers]))
"""


@pytest.mark.parametrize("name", [n for n, entry in APPLICATIONS.items() if not entry.hidden])
def test_trained_weights_give_right_answers_under_jax(name: str) -> None:
    path = os.pathsep.join([JAX, *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, name],
        env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": path},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    frameworks, answers = json.loads(done.stdout.splitlines()[-1])
    assert frameworks["backend"] == "jax" and "jax" in frameworks
    assert answers and all(right for right, *_ in answers.values()), answers
