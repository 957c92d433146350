from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from virtbed import ledger as ledgers
from virtbed.lease import Holder, LeaseError, locked
from virtbed.ledger import Digests, Ledger, LedgerDamagedError, LedgerError, opened

IDENTITY = {"plan": "sha256:1", "image": "sha256:2", "accelerator": "tcg", "host": "bench"}
TRIALS = [("a", 1, "bm"), ("b", 2, "cn"), ("c", 3, "cn")]


def test_a_done_trial_stays_done(tmp_path: Path) -> None:
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
        assert ledger.counts() == {"done": 1, "failed": 1, "todo": 1}
        assert ledger.attempt("b") == 2
        assert ledger.seconds() == {"bm": 12.0}


def test_a_sweep_can_be_continued_with_more_replicates_and_not_with_fewer(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.begin(IDENTITY, TRIALS)
        ledger.close("a", "done", 12.0)
    with Ledger(path) as ledger:
        ledger.begin(IDENTITY, [*TRIALS, ("d", 4, "bm")])
        assert ledger.counts() == {"done": 1, "todo": 3}
        with pytest.raises(LedgerError, match="has 4 trials, now 3 are requested, without d"):
            ledger.begin(IDENTITY, TRIALS)


@pytest.mark.parametrize("key", sorted(IDENTITY))
def test_another_sweep_in_the_same_folder_is_refused(tmp_path: Path, key: str) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.begin(IDENTITY, TRIALS)
        with pytest.raises(LedgerError, match=f"started with {key} {IDENTITY[key]}, now it is new"):
            ledger.begin(IDENTITY | {key: "new"}, TRIALS)
        assert ledger.counts() == {"todo": 3}


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


def test_threads_share_a_ledger_and_every_write_counts(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.begin(IDENTITY, TRIALS)
        with ThreadPoolExecutor(30) as pool:
            numbers = list(pool.map(lambda _: ledger.attempt("a"), range(600)))
        assert sorted(numbers) == list(range(1, 601)) and ledger.attempts("a") == 600


def test_a_thread_sees_no_unfinished_write_of_another_one(tmp_path: Path) -> None:
    writing, goes_on = Event(), Event()

    def rows() -> Iterator[tuple[str, int, str]]:
        yield "a", 1, "bm"
        writing.set()
        assert goes_on.wait(20)
        raise ValueError("the second trial is not known")

    def write(ledger: Ledger) -> None:
        with pytest.raises(ValueError), ledger._writing() as db:
            db.executemany("INSERT INTO trial (id, position, platform) VALUES (?, ?, ?)", rows())

    with Ledger(tmp_path / "ledger.sqlite") as ledger, ThreadPoolExecutor(2) as pool:
        writes = pool.submit(write, ledger)
        assert writing.wait(20)
        reads = pool.submit(ledger.counts)
        time.sleep(0.05)  # time to read too early
        goes_on.set()
        writes.result(20)
        assert reads.result(20) == {}  # it read after the other one's write was undone


def test_a_thread_does_not_wait_for_others_without_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgers, "_TURN_S", 0.01)
    with Ledger(tmp_path / "ledger.sqlite") as ledger, ThreadPoolExecutor(1) as pool:
        with ledger._writing(), pytest.raises(LedgerError, match="other threads have used it"):
            pool.submit(ledger.done).result(20)
        assert pool.submit(ledger.done).result(20) == set()


def test_processes_with_many_threads_write_to_one_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    script = (
        "import sys; from concurrent.futures import ThreadPoolExecutor; from pathlib import Path\n"
        "from virtbed.ledger import Ledger\n"
        "with Ledger(Path(sys.argv[1])) as ledger, ThreadPoolExecutor(8) as pool:\n"
        "    list(pool.map(lambda _: ledger.attempt('a'), range(80)))"
    )
    with Ledger(path) as ledger:
        ledger.begin(IDENTITY, TRIALS)
        running = [subprocess.Popen([sys.executable, "-c", script, path]) for _ in range(3)]
        assert [process.wait(60) for process in running] == [0, 0, 0]
        assert ledger.attempts("a") == 240


def of_another_version(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE trial (id TEXT PRIMARY KEY, status TEXT)")


def filled(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.begin(IDENTITY, [(f"trial-{n}", n, "bm") for n in range(2000)])


def cut(path: Path) -> None:
    filled(path)
    os.truncate(path, path.stat().st_size // 2)


def overwritten(path: Path) -> None:
    filled(path)
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * 20_000)


@pytest.mark.parametrize(
    "damage",
    [lambda path: path.write_bytes(os.urandom(5000)), lambda path: path.write_text("garbage"),
     of_another_version, cut, overwritten],
)  # fmt: skip
def test_a_damaged_ledger_is_reported_and_moved_aside(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    path = tmp_path / "ledger.sqlite"
    for number in (1, 2):
        damage(path)
        before = path.read_bytes()
        with pytest.raises(LedgerDamagedError, match=r"ledger\.sqlite"):
            Ledger(path)
        ledger, wrong = opened(path, Ledger)
        with ledger:
            assert ledger.new()
        assert f"it is kept as ledger.sqlite.damaged-{number}" in wrong
        assert path.with_name(f"ledger.sqlite.damaged-{number}").read_bytes() == before
        path.unlink()


def test_a_whole_ledger_is_opened_as_it_is(tmp_path: Path) -> None:
    filled(tmp_path / "ledger.sqlite")
    ledger, wrong = opened(tmp_path / "ledger.sqlite", Ledger)
    with ledger:
        assert (ledger.new(), wrong) == (False, "")


def test_a_ledger_that_cannot_be_written_is_reported_and_does_not_count_as_damaged(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ledger.sqlite"
    filled(path)
    with Ledger(path) as ledger, sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        ledger._db.execute("PRAGMA busy_timeout=50")
        with pytest.raises(LedgerError, match=r"database is locked; .*nothing is lost") as refused:
            ledger.attempt("trial-1")
        other.execute("ROLLBACK")
    assert not isinstance(refused.value, LedgerDamagedError)
    with pytest.raises(LedgerError, match="unable to open") as refused:
        Ledger(tmp_path / "none" / "ledger.sqlite")
    assert not isinstance(refused.value, LedgerDamagedError)


def test_a_later_close_without_digests_keeps_them_and_forget_removes_them(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.begin(IDENTITY, TRIALS)
        ledger.close("a", "done", 1.0, digests=Digests("r", "e"))
        ledger.measure("a", {"x": 1.0})
        ledger.close("a", "done", 1.0, reason="its second attempt failed")
        assert ledger.digests() == {"a": Digests("r", "e")}
        ledger.forget("a")
        assert (ledger.done(), ledger.digests(), ledger.measured()) == (set(), {}, {})
        ledger.at_least("a", 3)
        ledger.at_least("a", 2)
        assert ledger.attempt("a") == 4


HERE = Holder.here()
SOON = time.time() + 1000


def test_two_controllers_cannot_take_one_sweep(tmp_path: Path) -> None:
    child = subprocess.Popen(["sleep", "600"])
    try:
        started = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]
        other = replace(HERE, pid=child.pid, started=started)
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            ledger.begin(IDENTITY, TRIALS)
            assert ledger.take(other, SOON) == []
            ledger.lease(["b"])
            assert ledger.counts() == {"todo": 2, "leased": 1}
            with pytest.raises(LeaseError, match=f"process {child.pid} on .*lease ends in"):
                ledger.take(HERE, SOON)
            with pytest.raises(LeaseError, match="taken over"):
                ledger.renew(HERE, SOON)
            child.kill()
            child.wait()
            assert ledger.take(HERE, SOON) == ["b"]
            assert ledger.counts() == {"todo": 3}
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize(
    ("other", "expires", "refused"),
    [
        (replace(HERE, host="elsewhere"), SOON, True),  # whether it has ended cannot be seen
        (replace(HERE, host="elsewhere"), time.time() - 1, False),
        (replace(HERE, boot="another"), SOON, False),  # the host was booted since
        (replace(HERE, started="1"), SOON, False),  # another process has its number now
        (HERE, SOON, False),
    ],
    ids=["elsewhere", "expired", "booted since", "another process", "this process"],
)
def test_a_lease_is_valid_while_its_holder_may_be_running(
    tmp_path: Path, other: Holder, expires: float, refused: bool
) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.begin(IDENTITY, TRIALS)
        ledger.take(other, expires)
        if refused:
            with pytest.raises(LeaseError, match="carried out by process"):
                ledger.take(HERE, SOON)
            return
        with ledger.left():
            ledger.take(HERE, SOON)
            ledger.renew(HERE, SOON)
        ledger.take(replace(HERE, host="elsewhere"), SOON)  # nobody holds it


def test_workers_of_several_hosts_do_not_end_each_others_leases(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger, Ledger(path) as of_another:
        ledger.begin(IDENTITY, TRIALS)
        ledger.take(HERE, SOON)
        ledger.lease(["a"])
        of_another.lease(["b"])
        ledger.free(["a"])
        assert ledger.counts() == {"todo": 2, "leased": 1}
        of_another.renew(HERE, SOON - 500, no_sooner=True)  # its step is a shorter one
        assert ledger._rows("SELECT expires FROM holder") == [(SOON,)]
        ledger.renew(HERE, SOON - 500)
        assert ledger._rows("SELECT expires FROM holder") == [(SOON - 500,)]


def test_a_locked_folder_is_refused_to_another_process(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from virtbed.lease import locked\n"
        "with locked(Path(sys.argv[1])): print('held')"
    )

    def other() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, tmp_path]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    (tmp_path / ".lock").touch(mode=0o644)  # as it once was made
    with locked(tmp_path):
        # Whoever can open it can lock it, and keep every controller out.
        assert (tmp_path / ".lock").stat().st_mode & 0o777 == 0o600
        assert "is being carried out by another process" in other().stderr
    assert other().stdout == "held\n"


def test_a_full_disk_is_reported_and_loses_nothing_written_before(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    script = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from virtbed.ledger import Ledger, LedgerDamagedError, LedgerError\n"
        f"ledger = Ledger(Path(sys.argv[1])); ledger.begin({IDENTITY!r}, {TRIALS!r})\n"
        "ledger.attempt('a'); ledger.close('a', 'done', 1.0)\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "size = sum(p.stat().st_size for p in Path(sys.argv[1]).parent.iterdir())\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))\n"
        "try:\n"
        "    for number in range(10_000): ledger.attempt('b')\n"
        "except LedgerError as error: print(type(error).__name__, error)\n"
        "ledger._db.close()\n"
    )
    command = [sys.executable, "-c", script, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("LedgerError ") and "nothing is lost" in done.stdout, done.stderr
    ledger, wrong = opened(path, Ledger)
    with ledger:
        assert (ledger.done(), wrong) == ({"a"}, "")
        assert ledger.attempts("b") > 0
