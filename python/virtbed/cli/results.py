"""The commands that read results: report, advise, compare, export, archive, verify, attest, …

Each command imports virtbed_analysis itself: a sweep works without that package, and starts sooner
if it is not imported.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from virtbed.checkout import REPOSITORY, CheckoutError
from virtbed.cli.console import TRIALS_FAILED, AsJson, OfHost, SweepArgument, console, refuse
from virtbed.plan import PlanError, load_plan, plan_path
from virtbed.platforms import PlatformError
from virtbed.render.evidence import AttestError, explain
from virtbed.render.results import (
    advice_legend,
    advice_lines,
    advice_name,
    advice_table,
    comparison_tables,
    mark_lines,
    ratio_tables,
    verdict_table,
)  # fmt: skip
from virtbed_contract.counts import count
from virtbed_contract.kernel.files import write_text

app = typer.Typer()


def results(name: str) -> Path:
    """Return the results folder that SWEEP names; refuse a name that is neither folder nor plan.

    Args:
        name: Path of a results folder, or a plan's name or path.
    """
    folder = Path(name)
    with suppress(OSError, ValueError):  # a name that no file can have
        if any((folder / part).exists() for part in ("design.json", "trials")):
            return folder
    try:
        path = plan_path(name)
    except PlanError as error:
        refuse(PlanError(f"{error}; or a results folder, which has design.json or trials/"))
    except CheckoutError as error:
        refuse(error)
    try:
        return REPOSITORY / "results" / load_plan(path).name
    except (PlanError, PlatformError, CheckoutError) as error:
        refuse(error)


@app.command()
def report(name: SweepArgument) -> None:
    """Write the report (report.html, report.json) of a sweep again.

    The sweep need not be finished, and may be running. Example: `virtbed report quick`.

    Exit status: 0 written, 2 there is nothing to report.
    """
    say_report(results(name))


def say_report(folder: Path) -> None:
    """Write a sweep's report and print its path; refuse a folder without results."""
    from virtbed_analysis import AnalysisError
    from virtbed_analysis import report as write_report

    try:
        paths = write_report(folder)
    except (AnalysisError, OSError) as error:
        refuse(error)
    console.print(f"report: {paths.html}", highlight=False)


def _per_cent(text: str) -> float:
    """Parse "3%" or "3" as the share 0.03."""
    try:
        share = float(text.strip().removesuffix("%")) / 100
    except ValueError:
        share = -1.0
    if not 0 <= share < 10:
        raise typer.BadParameter(f"{text!r} found, a percentage needed, as in 3%")
    return share


@app.command()
def advise(
    name: SweepArgument,
    application: Annotated[
        str, typer.Option("--app", help="The application that you want to run.")
    ],
    scale: Annotated[
        str, typer.Option(help="Its scale in the sweep: trained, mlperf or tiny.")
    ] = "trained",
    scenario: Annotated[
        str, typer.Option(help="Its scenario in the sweep.")
    ] = "single_stream",
    slo_ms: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Upper bound on an instance's 99th percentile of latency in ms, time in the queue "
            "included. Not available in scenario offline.",
        ),
    ] = None,
    cores_max: Annotated[
        int | None, typer.Option(min=1, help="Consider only instances of at most this many cores.")
    ] = None,
    platform: Annotated[
        list[str] | None, typer.Option(help="Consider only this platform; may be repeated.")
    ] = None,
    price_table: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False,
            help="CSV file with the columns platform, cores, processor, price_per_hour; with it "
            "the cheapest cell is chosen.",
        ),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            parser=_per_cent, metavar="PERCENT",
            help="Difference in time, or in cost, that does not matter to you. Default: the plan's "
            "margin.",
        ),
    ] = None,
    host: OfHost = "",
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Recommend platform, size, mode, threads and processor for an application.

    With --price-table it chooses the cheapest cell per million requests; otherwise with --slo-ms
    the fewest cores that keep the bound; otherwise the fastest. Among equals it takes the cheapest
    or the smallest. An instance breaks the bound if its own 99th percentile, queue included, is
    above it; a cell in which that was observed is left out. Fastest means: by time end to end in
    single_stream, by latency in server and multi_stream, by throughput in offline.

    Example: `virtbed advise quick --app image_classification`.

    Exit status: 0 it recommends one cell, or names those that it cannot tell apart; 1 the sweep has
    no evidence for an answer; 2 refused.
    """
    from virtbed_analysis import AnalysisError, Question, read_prices, read_sweep
    from virtbed_analysis import advise as give_advice

    folder = results(name)
    try:
        prices = read_prices(price_table) if price_table else {}
        sweep = read_sweep(folder, host)
        question = Question(
            application, scale, scenario, slo_ms, cores_max, tuple(platform or ()), prices,
            sweep.margin if margin is None else margin,
        )  # fmt: skip
        advice = give_advice(sweep, question)
    except (AnalysisError, OSError) as error:
        refuse(error)
    answered = advice["answer"] != "none"
    if as_json:
        typer.echo(json.dumps(advice, indent=1))
    else:
        for line in advice_lines(advice):
            console.print(line)
        if advice["candidates"]:
            console.print(advice_table(advice))
            console.print(advice_legend(advice))
        for line in mark_lines(advice["candidates"]):
            console.print(line)
        for left in advice["left_out"]:
            console.print(f"left out: {advice_name(left['cell'])}: {left['reason']}")
    raise typer.Exit(0 if answered else TRIALS_FAILED)


@app.command()
def compare(
    first: Annotated[
        list[Path],
        typer.Argument(
            metavar="FIRST... [SECOND]", exists=True, file_okay=False,
            help="Two results folders, such as unpacked archives; with --with, all results folders "
            "of the first side.",
        ),
    ],
    second: Annotated[
        list[Path] | None,
        typer.Option(
            "--with", exists=True, file_okay=False,
            help="A results folder of the second side; may be repeated.",
        ),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            parser=_per_cent, metavar="PERCENT",
            help="The smallest change worth knowing. Default: the margin of the first plan.",
        ),
    ] = None,
    fail_above: Annotated[
        float | None,
        typer.Option(
            parser=_per_cent, metavar="PERCENT",
            help="Also decide whether any cost, or any time that has an interval, rose by more "
            "than this; see the exit status.",
        ),
    ] = None,
    page: Annotated[
        Path | None, typer.Option(help="Also write the comparison to this file, as HTML.")
    ] = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Compare sweeps: two hosts, two kernels, before and after a change.

    For each cell that both sides have, it prints the second side's time divided by the first's, and
    whether the platform's cost against bare metal changed. It also lists what differs between the
    sides (hosts, kernels, images, ...). One sweep per side cannot show how much days differ from
    each other; give several sweeps per side, and the sweep becomes the unit of the statistics:

    virtbed compare before1 before2 --with after1 --with after2

    Exit status: 0 compared, and with --fail-above nothing rose by more; 1 no cell in common; 2
    refused; with --fail-above also: 3 something clearly rose by more, 4 undecided, because an
    interval is too wide or missing, or because a cell or trials of the second side gave no result.
    """
    from virtbed_analysis import AnalysisError, render_comparison
    from virtbed_analysis import compare as compare_sweeps

    sides = (first, second) if second else (first[:1], first[1:])
    if not second and len(first) != 2:
        refuse(
            ValueError(f"{len(first)} results folders found, two needed, or more and --with SECOND")
        )
    try:
        content = compare_sweeps(*sides, margin=margin, fail_above=fail_above)
        if page:
            write_text(page, render_comparison(content))
    except (AnalysisError, OSError) as error:
        refuse(error)
    if as_json:
        typer.echo(json.dumps(content, indent=1))
    else:
        _say_comparison(content)
        if page:
            console.print(f"page: {page}", highlight=False)
    if not content["cells"]:
        raise typer.Exit(TRIALS_FAILED)
    raise typer.Exit(_RISE[content["fail"]["verdict"]] if content["fail"] else 0)


# Exit status by a comparison's verdict on --fail-above.
_RISE = {"not above": 0, "above": 3, "cannot tell": 4}


def _say_comparison(content: dict[str, Any]) -> None:
    from virtbed_analysis import rise_words

    console.print(content["summary"], highlight=False)
    for row in content["differs"]:
        sides = (", ".join(row[side]) or "-" for side in ("first", "second"))
        console.print(f"differs: {row['item']}: {' | '.join(sides)}", highlight=False)
    for row in content["unlike"]:
        console.print(
            f"differs within the {row['side']}: {row['item']}: {' | '.join(row['values'])}",
            highlight=False,
        )
    for table in comparison_tables(content):
        console.print(table)
    for line in mark_lines(content["cells"]):
        console.print(line, highlight=False)
    for row in content["cells"]:
        if any(side["lost"] for side in row["lost"].values()):
            shares = (
                f"{lost['lost']} of {lost['of']} in the {s}" for s, lost in row["lost"].items()
            )
            console.print(
                f"trials without usable times: {row['platform']} {row['mode']} "
                f"(cores: {row['cores']}), {row['application']}: {', '.join(shares)}",
                highlight=False,
            )
    if content["fail"]:
        console.print(rise_words(content["fail"]), highlight=False)


@app.command()
def export(
    sweeps: Annotated[
        list[Path], typer.Argument(exists=True, file_okay=False, help="Results folders.")
    ],
    output: Annotated[Path, typer.Option(help="The file to write.")] = Path("samples.parquet"),
) -> None:
    """Write the samples of one or several sweeps (hosts, shards) to one tidy Parquet file.

    One row per request, with the properties of its trial. `virtbed schema samples` describes the
    columns, and so does the file's metadata. Example: `virtbed export results/A results/B`.

    Exit status: 0 written, 2 the sweeps cannot be pooled (different images or versions).
    """
    from virtbed_analysis import AnalysisError, load, write_parquet

    try:
        samples = load(*sweeps)
        write_parquet(samples, output)
    except (AnalysisError, OSError) as error:
        refuse(error)
    trials = samples.select("host", "plan_digest", "trial").n_unique()
    written = f"{count(samples.height, 'sample')} of {count(trials, 'trial')}"
    console.print(f"{written}: {output}", highlight=False)


@app.command()
def archive(
    name: SweepArgument,
    output: Annotated[
        Path | None,
        typer.Option(help="The file to write. Default: the results folder's name with .zip."),
    ] = None,
) -> None:
    """Pack a sweep into one file: results, evidence, plan, locks, report, metadata, checksums.

    The archive is a zip file and a Research Object Crate (RO-Crate). The same input gives the same
    bytes. `virtbed verify` checks an archive. Example: `virtbed archive quick`.

    Exit status: 0 written, 2 there is nothing to archive.
    """
    from virtbed_analysis import AnalysisError
    from virtbed_analysis import archive as write_archive

    locks = {path.name: path for path in (REPOSITORY / "requirements").glob("*.txt")}
    folder = results(name).resolve()
    try:
        file = output or folder.with_name(f"{folder.name}.zip")
        files = write_archive(folder, file, locks)
    except (AnalysisError, OSError) as error:
        refuse(error)
    console.print(f"archive: {file} ({count(files, 'file')})", highlight=False)


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="An archive.")],
) -> None:
    """Check an archive: checksums, missing and added files, and whether its report is reproduced.

    The report is computed again from the archive's results, and compared with the report in it.
    Example: `virtbed verify results/quick.zip`.

    Exit status: 0 the archive is intact, 1 something is wrong with it, 2 the file is no archive.
    """
    from virtbed_analysis import AnalysisError, archive_problems

    try:
        problems = list(archive_problems(file))
    except (AnalysisError, OSError) as error:
        refuse(error)
    for problem in problems:
        console.print(problem, highlight=False, markup=False)
    if problems:
        raise typer.Exit(TRIALS_FAILED)
    console.print(f"{file} is whole, and its results give the report that is in it")


@app.command()
def published(
    table: Annotated[
        Path,
        typer.Argument(
            exists=True, dir_okay=False, help="CSV file of the timings, one row per timing."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Analyse the published timings of the study (arXiv 2112.09780) as if they were a sweep.

    It prints every ratio to bare metal as published (first runs pooled with the rest), the
    weaknesses that the data itself shows, and its answers to the study's findings (first runs left
    out). Example: `virtbed published TIMINGS.csv`.

    Exit status: 0 analysed, 2 the table cannot be read.
    """
    from virtbed_analysis import AnalysisError, analyse_published

    try:
        content = analyse_published(table)
    except (AnalysisError, OSError) as error:
        refuse(error)
    if as_json:
        typer.echo(json.dumps(content, indent=1))
        return
    given = f"{count(content['timings'], 'timing')} of {count(content['cells'], 'cell')}"
    console.print(f"{given}: {content['source']}")
    for ratios in ratio_tables(content):
        console.print(ratios)
    for weakness in content["weaknesses"]:
        console.print(f"warning: {weakness['text']}", style="yellow", highlight=False, markup=False)
    console.print(verdict_table(content["verdicts"], content["confidence"]))


@app.command()
def attest(
    trial: Annotated[
        Path, typer.Argument(exists=True, help="results/SWEEP/trials/ID, or a file in it.")
    ],
) -> None:
    """Explain a trial's evidence: where it was placed, where it ran, and what disturbed it.

    Example: `virtbed attest results/quick/trials/ID`.

    Exit status: 0 attested, 1 not attested, 2 the trial has no evidence.
    """
    try:
        attested, lines = explain(trial)
    except AttestError as error:
        refuse(error)
    for line in lines:
        console.print(line, highlight=False, markup=False)
    raise typer.Exit(0 if attested else TRIALS_FAILED)
