"""Every command in the documentation exists, and those that need no host are run.

They run with a made-up host report and made-up results.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.commands import run
from tests.pages import FENCE, FOR_USERS, text, tool
from tests.unit.analysis.conftest import Folder
from tests.unit.virtbed.conftest import report as host_report
from typer.testing import CliRunner

from virtbed import bench
from virtbed.bench import Bench
from virtbed.checkout import REPOSITORY
from virtbed.cli import app


def commands_of(page: str) -> Iterator[str]:
    """Yield the commands of a page: after a prompt, indented, or in a line of text."""
    for language, block in FENCE.findall(page):
        if language == "console":
            yield from re.findall(r"^ *[#$] (.+?)(?:  +#.*)?$", block, re.MULTILINE)
        elif language in ("", "sh"):
            yield from re.findall(r"^ *((?:virtbed|make) .+?)(?:  +#.*)?$", block, re.MULTILINE)
    rest = FENCE.sub("", page)
    yield from re.findall(
        r"^ {4,}((?:virtbed|make|ansible-playbook) .+?)(?:  +#.*)?$", rest, re.MULTILINE
    )
    yield from re.findall(r"`((?:virtbed|make|ansible-playbook|pytest) [^`]+)`", rest)


def words_of(command: str) -> list[str]:
    one = re.split(r"[;&|]", command)[-1] if "&&" in command else command
    return shlex.split(one.replace("\n", " ").replace("…", "X"))


COMMANDS = sorted({c for name in FOR_USERS for c in commands_of(text(name))})
MADE_UP = re.compile(r"[A-Z…][A-Z]*$")  # a placeholder where a command's name would be


def unknown(words: list[str]) -> str:
    """Return the parts of a command that do not exist; empty if all exist."""
    first, *rest = words
    if first == "make":
        targets = set(re.findall(r"^([a-z]+|\.venv/\.made):", text("Makefile"), re.MULTILINE))
        goals = [w for w in rest if "=" not in w and w not in ("release", "X")]
        return ", ".join(w for w in goals if w not in targets)
    if first in ("ansible-playbook", "pytest"):
        paths = [w for w in rest if re.fullmatch(r"[\w./-]+(\.yml|\.py|/[\w/-]+)", w)]
        return ", ".join(w for w in paths if not (REPOSITORY / w).exists())
    command: Any = typer.main.get_command(app)
    while rest and hasattr(command, "commands") and not rest[0].startswith("-"):
        if MADE_UP.match(rest[0]):
            return ""
        if rest[0] not in command.commands:
            return rest[0]
        command, rest = command.commands[rest[0]], rest[1:]
    if rest == ["--help"]:
        return ""
    context = command.context_class(command, **command.context_settings)
    try:  # only the parser, because a placeholder is neither a number nor a file
        command.make_parser(context).parse_args(list(rest))
    except Exception as error:  # the parser's error classes are in a private module of typer
        return str(getattr(error, "message", error))
    return ""


def test_commands_are_found_in_the_docs() -> None:
    assert len(COMMANDS) > 50


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_in_the_docs_exists(command: str) -> None:
    words = words_of(command)
    if words[0] in ("virtbed", "make", "ansible-playbook", "pytest"):
        assert unknown(words) == ""
    else:
        assert words[0] in {"cp", "source", "$EDITOR", "git", "sha256sum", "ssh-keygen"}, command


@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("make testbet", "testbet"),
        ("virtbed sweeep quick", "sweeep"),
        ("virtbed lab upp", "upp"),
        ("virtbed sweep quick --replicate-all", "--replicate-all"),
        ("ansible-playbook playbooks/gone.yml", "playbooks/gone.yml"),
    ],
)
def test_a_command_that_does_not_exist_is_found(command: str, what: str) -> None:
    assert what in unknown(words_of(command))


FREE = {
    "--version", "schema", "plan", "report", "advise", "compare", "export", "archive", "verify",
    "attest", "published",
}  # fmt: skip
PLACEHOLDERS = {"NAME", "COMMAND", "PLAN", "X"}


def free() -> list[str]:
    """Return the commands in the docs that need no host, without the word virtbed."""
    found = set()
    for command in COMMANDS:
        first, *words = words_of(command)
        named_alone = words[1:] == [] and words != ["--version"]
        if first == "virtbed" and words[0] in FREE and not (named_alone or PLACEHOLDERS & {*words}):
            found.add(" ".join(words).replace("/ID", f"/{TRIAL}").replace("A*", "A"))
    return sorted(found)


TRIAL = "cn-vanilla-c01-image_classification-r01"
RESULTS = re.compile(r"quick|study|FOLDER|(results|FIRST|SECOND)/[\w-]+(/quick)?")


def test_every_command_that_needs_no_host_is_in_the_docs() -> None:
    assert {command.split()[0] for command in free()} == FREE


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with made-up results under every name that commands in the docs use."""
    root = tmp_path_factory.mktemp("docs")
    named = {word for command in free() for word in command.split()[1:]}
    folders = {found[0] for word in named if (found := RESULTS.match(word))}
    for number, name in enumerate(sorted(folders)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        folder = Folder(root / name)
        for platform, mode, ms in (
            ("bm", "pinned", 10.0),
            ("cn", "pinned", 10.2),
            ("cn", "vanilla", 14.0),
        ):
            for replicate in range(1, 6):
                noise = 1 + ((7 * replicate + 3 * number + len(mode)) % 11) / 997
                folder.trial(platform, mode, replicate, {"a.png": [ms * noise] * 3, "b.png": [ms]})
        for file in (root / name).rglob("*.json"):  # each folder is of another host
            file.write_text(file.read_text().replace("bench01", f"bench1{number}"))
    (root / "TIMINGS.csv").write_text(
        "app,cores,mode,platform,row,input,exec_time_s\n"
        "F,2,vanilla,BM,1,a,1.0\nF,2,vanilla,BM,2,b,1.0\n"
        "F,2,vanilla,CN,1,a,2.0\nF,2,vanilla,CN,2,b,2.0\n"
    )
    shutil.copytree(REPOSITORY / "inventory/example", root / "inventory/mine", symlinks=True)
    done = CliRunner().invoke(
        app, ["archive", str(root / "quick"), f"--output={root / 'results/quick.zip'}"]
    )
    assert done.exit_code == 0, done.output
    return root


@pytest.mark.parametrize("command", free())
def test_a_command_that_needs_no_host_succeeds(
    command: str, made_up: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made_up)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(bench, "alone", nullcontext)
    monkeypatch.setattr(Bench, "examine", lambda *_, **__: (host_report(128, "available"), []))
    words = command.split()
    done = CliRunner().invoke(app, words)
    assert done.exit_code in ({0, 3, 4} if "--fail-above" in words else {0}), done.output


@pytest.mark.parametrize("name", [name for name, _ in tool("reference").commands()])
def test_every_command_has_help(name: str) -> None:
    done = CliRunner().invoke(app, [*name.split()[1:], "--help"])
    assert done.exit_code == 0 and "Usage:" in done.output


def test_make_lists_its_targets_and_the_harness_its_applications() -> None:
    assert "testbed" in run("make", "--no-print-directory", "help").stdout
    listed = run(sys.executable, "-m", "virtbed_workloads", "--list").stdout
    assert "image_classification" in listed


def test_make_setup_ends_with_the_next_command_and_make_testbed_does_not() -> None:
    make = ("make", "--no-print-directory", "--dry-run", "--old-file=.venv/.made")
    *_, last = run(*make, "setup", "PLAN=functional").stdout.splitlines()
    assert last.endswith('Next: make sweep PLAN=functional"')
    *_, last = run(*make, "setup", "INVENTORY=inventory/mine").stdout.splitlines()
    assert last.endswith('Next: make sweep PLAN=quick INVENTORY=inventory/mine"')
    assert "Next:" not in run(*make, "testbed").stdout
