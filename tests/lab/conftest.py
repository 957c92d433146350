"""Fixtures for servers in a box: real kernels, systemd, libvirt, Docker, KVM on an emulated CPU."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from virtbed.lab.image import Image, build
from virtbed.lab.prepared import BOOTED, Preparation, start_prepared
from virtbed.lab.recipe import Recipe
from virtbed.lab.server import Server
from virtbed.lab.server import start as boot
from virtbed.lab.shape import Shape, accelerator_here

FAILED = pytest.StashKey[bool]()
OUTCOME = "outcome on a bench host"
"""Name of a property of a test's report: a row of the table at the end."""
CAPTURING: list[Any] = []
"""Pytest's plug-in that captures output."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[FAILED] = True
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run test_image.py first: with several workers, none then waits for the slowest test."""
    items.sort(key=lambda item: item.path.name != "test_image.py")


def pytest_configure(config: pytest.Config) -> None:
    CAPTURING.append(config.pluginmanager.getplugin("capturemanager"))


def say(text: str) -> None:
    """Show progress, although pytest captures output: a boot takes minutes."""
    with CAPTURING[-1].global_and_fixture_disabled():
        print(f"lab: {text}", file=sys.stderr, flush=True)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print which platforms were attested on which server, or why not."""
    ended = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    properties = [
        pair for report in ended if report.when == "call" for pair in report.user_properties
    ]
    table = sorted(row for name, row in properties if name == OUTCOME)
    if not table:
        return
    terminalreporter.section("bench hosts in a box")
    widths = [max(len(row[place]) for row in table) for place in range(3)]
    for *row, outcome in table:
        words = "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True))
        terminalreporter.write_line(f"{words}  {outcome}")


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Callable[..., Server]]:
    """Return a function that starts servers; they are removed after the test.

    Without a preparation a server boots, so that it has a machine id of its own. If the test fails,
    the console logs are kept.
    """
    started: list[Server] = []

    def start(
        image: Image | None = None, preparation: Preparation | None = BOOTED, **shape: Any
    ) -> Server:
        what = (f"test{os.getpid()}-{len(started)}", image or build(Recipe(), say), Shape(**shape))
        options: Any = {"tied": True, "accelerator": accelerator_here()}
        started.append(
            start_prepared(*what, say, preparation=preparation, **options) if preparation
            else boot(*what, say, **options)
        )  # fmt: skip
        return started[-1]

    yield start
    for each in started:
        if request.node.stash.get(FAILED, False):
            say(f"console log: {each.keep_console(request.node.nodeid)}")
        each.remove()
