"""The harness's command line: arguments, exit codes and output.

The role trial_run and `virtbed run` start it in an instance. Standard output holds JSON documents
or nothing. Libraries print to standard output too, from native code, so descriptor 1 is redirected
to standard error before an application is imported.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from virtbed_contract import identifiers
from virtbed_workloads import __version__, pages
from virtbed_workloads.contract import ApplicationError
from virtbed_workloads.harness import Settings, WrongAnswerError, run_endless, run_trial
from virtbed_workloads.loadgen import RULES, SCENARIOS, Load
from virtbed_workloads.registry import APPLICATIONS, Entry

GOOD, FAILED, USAGE, WRONG_ANSWER = 0, 1, 2, 3


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.list:
        shown = {n: e for n, e in APPLICATIONS.items() if arguments.all or not e.hidden}
        print(_as_json(shown) if arguments.json else _as_table(shown))
        return GOOD
    entry = _entry(parser, arguments.application, arguments.scale)
    pages.choose(arguments.huge_pages)
    settings = Settings(
        name=arguments.application,
        scale=arguments.scale,
        warmup=arguments.warmup,
        load=Load(
            scenario=arguments.scenario,
            rules=arguments.rules,
            samples=arguments.samples,
            seed=arguments.seed,
            target_qps=arguments.target_qps,
            target_latency_ms=arguments.target_latency_ms,
            mlperf_model=entry.mlperf_model,
        ),
        threads=arguments.threads,
        processor=arguments.processor,
        slowdown=arguments.slowdown,
        inputs=arguments.inputs,
        spawned_at_ns=arguments.spawned_at_ns,
    )
    output, fail = _redirect_stdout(), partial(_exit_with, arguments.application)
    with os.fdopen(output, "w", encoding="utf-8") as stream:

        def write(document: dict[str, Any]) -> None:
            json.dump(document, stream)
            stream.write("\n")
            stream.flush()

        try:
            if arguments.endless:
                run_endless(entry, settings, fail, write)
            result = run_trial(entry, settings, fail)
        except Exception as error:
            fail(error)
        write(result)
    return GOOD


def _exit_with(application: str, error: BaseException) -> NoReturn:
    """Print the error to standard error and exit at once.

    `os._exit`, because LoadGen crashes a regular exit in the middle of one of its tests.
    """
    if not isinstance(error, (WrongAnswerError, ApplicationError, ImportError, MemoryError)):
        traceback.print_exception(error)
    wrong = isinstance(error, WrongAnswerError)
    failure = "wrong answer" if wrong else f"{application} failed"
    message = str(error) or type(error).__name__
    if isinstance(error, ModuleNotFoundError):
        message += f"; applications run in the image: virtbed run {application}"
    print(f"{failure}: {message}", file=sys.stderr, flush=True)
    os._exit(WRONG_ANSWER if wrong else FAILED)


def _redirect_stdout() -> int:
    """Redirect descriptor 1 to standard error; return a descriptor of the real standard output."""
    sys.stdout.flush()
    output = os.dup(1)
    os.dup2(2, 1)
    return output


def _entry(parser: argparse.ArgumentParser, application: str | None, scale: str) -> Entry:
    """Look up an application; exit with code 2 and the known names where there is none."""
    names = ", ".join(name for name, entry in APPLICATIONS.items() if not entry.hidden)
    if application is None:
        parser.error(f"no application given; there are: {names}")
    if application not in APPLICATIONS:
        parser.error(f"there is no application {application!r}; there are: {names}")
    entry = APPLICATIONS[application]
    if scale not in entry.scales:
        scales = ", ".join(entry.scales)
        parser.error(f"{application} has no scale {scale!r}; it has: {scales}")
    return entry


def _as_json(entries: dict[str, Entry]) -> str:
    return json.dumps(
        [
            {"name": name, "scales": list(entry.scales), "summary": entry.summary}
            for name, entry in entries.items()
        ],
        indent=2,
    )


def _as_table(entries: dict[str, Entry]) -> str:
    rows = [("application", "scales", "what it does")]
    rows += [(name, ", ".join(e.scales), e.summary) for name, e in entries.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "\n".join(f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}" for a, b, c in rows)


def _at_least(minimum: int) -> Callable[[str], int]:
    """Return an argparse type for whole numbers from ``minimum`` up."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} found, a whole number needed") from None
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{value} found, at least {minimum} needed")
        return value

    return parse


def _share(text: str) -> float:
    """Parse a share from 0 up; an argparse type."""
    return 0.0 if text in ("0", "0.0") else _positive(text)


def _positive(text: str) -> float:
    """Parse a number above 0; an argparse type."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} found, a number needed") from None
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} found, more than 0 needed")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m virtbed_workloads",
        description="Run one deep-learning application in this process, and print its times as "
        f"one JSON document ({identifiers.RESULT}). Everything else goes to standard error.",
        epilog="exit codes: 0 good; 1 the application failed; 2 usage error; 3 a wrong answer. "
        "Example: python3 -m virtbed_workloads image_classification --scale trained --samples 10",
    )
    parser.add_argument("application", nargs="?", help="an application that --list prints")
    parser.add_argument("--scale", default="trained", help="which model (default: %(default)s)")
    parser.add_argument(
        "--samples",
        type=_at_least(1),
        default=20,
        help="number of measured requests, unless --rules study (default: %(default)s)",
    )
    parser.add_argument(
        "--warmup",
        type=_at_least(0),
        default=3,
        help="number of warm-up requests, kept and flagged; at least one per input is made "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--scenario",
        choices=SCENARIOS,
        default="single_stream",
        help="how LoadGen issues requests: one after another; 8 at a time; all at once; or at "
        "random times, --target-qps of them per second (default: %(default)s)",
    )
    parser.add_argument(
        "--rules",
        choices=RULES,
        default="quick",
        help="quick: --samples requests; study: MLPerf's minimum duration (10 minutes) and number "
        "of queries (default: %(default)s)",
    )
    parser.add_argument(
        "--threads",
        choices=("default", "matched"),
        default="default",
        help="sizes of the thread pools: default, as the framework chooses; matched, one thread "
        "per core that affinity and quota leave (default: %(default)s)",
    )
    parser.add_argument(
        "--huge-pages",
        choices=pages.CHOICES,
        default=pages.CHOICES[0],
        help="huge pages of this process: as the kernel is set; never; or malloc, which makes the "
        "C library's allocator request them (default: %(default)s)",
    )
    parser.add_argument(
        "--processor",
        choices=("cpu", "gpu"),
        default="cpu",
        help="where the model must run; the trial fails if it ran elsewhere (default: %(default)s)",
    )
    parser.add_argument(
        "--target-qps", type=_positive, metavar="N", help="requests per second of --scenario server"
    )
    parser.add_argument(
        "--target-latency-ms",
        type=_positive,
        metavar="MS",
        help="bound on the 99th percentile of latency, queue included, of --scenario server",
    )
    parser.add_argument(
        "--slowdown",
        type=_share,
        default=0.0,
        metavar="SHARE",
        help="delay each request by this share of its time (0.1 makes it 1.1 times as long), to "
        "check that the testbed finds it (default: %(default)s)",
    )
    parser.add_argument(
        "--inputs",
        type=Path,
        metavar="DIR",
        help="use the files in DIR as requests; their answers are recorded and not checked",
    )
    parser.add_argument(
        "--seed", type=int, default=2112, help="seed of LoadGen's choices (default: %(default)s)"
    )
    parser.add_argument(
        "--endless",
        action="store_true",
        help="measure nothing: answer requests until this process is killed, and print the number "
        "answered so far once per second; neighbours of a measured instance run it",
    )
    parser.add_argument(
        "--spawned-at-ns",
        type=_at_least(0),
        metavar="NS",
        help="CLOCK_REALTIME in ns, read just before this process was executed",
    )
    parser.add_argument("--list", action="store_true", help="print the applications and scales")
    parser.add_argument("--json", action="store_true", help="with --list: print JSON")
    parser.add_argument(
        "--all", action="store_true", help="with --list: include null, which measures nothing"
    )
    parser.add_argument("--version", action="version", version=__version__)
    return parser


if __name__ == "__main__":
    sys.exit(main())
