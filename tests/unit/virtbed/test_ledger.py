from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from virtbed.ledger import Ledger, LedgerError

IDENTITY = {"plan": "sha256:1", "image": "sha256:2", "accelerator": "tcg", "host": "bench"}
TRIALS = [("a", 1, "bm"), ("b", 2, "cn"), ("c", 3, "cn")]


def test_what_is_done_stays_done(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.begin(IDENTITY, TRIALS)
        assert ledger.attempt("a") == 1
        ledger.close("a", "done", 12.0)
        ledger.attempt("b")
        ledger.close("b", "failed", 3.0)
    with Ledger(path) as ledger:
        ledger.begin(IDENTITY, TRIALS)
        assert ledger.done() == {"a"}
        assert ledger.counts() == {"done": 1, "failed": 1, "planned": 1}
        assert ledger.attempt("b") == 2
        assert ledger.seconds() == {"bm": 12.0}


def test_a_sweep_goes_on_with_more_replicates_and_never_with_fewer(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.begin(IDENTITY, TRIALS)
        ledger.close("a", "done", 12.0)
    with Ledger(path) as ledger:
        ledger.begin(IDENTITY, [*TRIALS, ("d", 4, "bm")])
        assert ledger.counts() == {"done": 1, "planned": 3}
        with pytest.raises(LedgerError, match="has 4 trials, now 3 are asked for, without d"):
            ledger.begin(IDENTITY, TRIALS)


@pytest.mark.parametrize("key", sorted(IDENTITY))
def test_another_sweep_is_not_mixed_in(tmp_path: Path, key: str) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.begin(IDENTITY, TRIALS)
        with pytest.raises(LedgerError, match=f"started with {key} {IDENTITY[key]}, now it is new"):
            ledger.begin(IDENTITY | {key: "new"}, TRIALS)
        assert ledger.counts() == {"planned": 3}


def test_a_kill_loses_nothing_that_was_written(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    script = (
        "import os, signal, sys; from pathlib import Path; from virtbed.ledger import Ledger\n"
        f"l = Ledger(Path(sys.argv[1])); l.begin({IDENTITY!r}, {TRIALS!r})\n"
        "l.attempt('a'); l.close('a', 'done', 1.0); l.attempt('b')\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", script, path], env=os.environ, check=False)
    assert killed.returncode == -signal.SIGKILL
    with Ledger(path) as ledger:
        assert ledger.done() == {"a"}
        assert ledger.attempt("b") == 2
