"""The commands on results: reports, advice, exports, evidence, the published data.

The analysis is imported where a command needs it: a sweep does without, and starts sooner.
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
from virtbed_contract.kernel.files import write_text

app = typer.Typer()


def results(name: str) -> Path:
    """Return a results folder: itself, or that of a plan; exit with a clear message if neither."""
    folder = Path(name)
    with suppress(OSError, ValueError):  # a name that no file can have
        if any((folder / part).exists() for part in ("design.json", "trials")):
            return folder
    try:
        path = plan_path(name)
    except PlanError as error:
        refuse(PlanError(f"{error}; or a results folder, which holds design.json or trials/"))
    except CheckoutError as error:
        refuse(error)
    try:
        return REPOSITORY / "results" / load_plan(path).name
    except (PlanError, PlatformError, CheckoutError) as error:
        refuse(error)


@app.command()
def report(name: SweepArgument) -> None:
    """Write the report of a sweep again, finished or not.

    Exit status: 0 written, 2 there is nothing to report.
    """
    say_report(results(name))


def say_report(folder: Path) -> None:
    """Write a sweep's report and say where; exit with a clear message where there is none."""
    from virtbed_analysis import AnalysisError
    from virtbed_analysis import report as write_report

    try:
        paths = write_report(folder)
    except (AnalysisError, OSError) as error:
        refuse(error)
    console.print(f"report: {paths.html}", highlight=False)


def _per_cent(text: str) -> float:
    """Return "3%", or "3", as a share."""
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
    application: Annotated[str, typer.Option("--app", help="The application to place.")],
    scale: Annotated[str, typer.Option(help="trained, mlperf or tiny.")] = "trained",
    scenario: Annotated[str, typer.Option(help="As measured.")] = "single_stream",
    slo_ms: Annotated[
        float | None,
        typer.Option(
            min=0, help="Bound on an instance's p99 in ms, queue included; not in offline."
        ),
    ] = None,
    cores_max: Annotated[int | None, typer.Option(min=1, help="At most so many cores.")] = None,
    platform: Annotated[
        list[str] | None, typer.Option(help="Only this platform; may be repeated.")
    ] = None,
    price_table: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False,
            help="CSV: platform, cores, processor, price_per_hour. The cheapest is chosen.",
        ),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            parser=_per_cent, metavar="PERCENT",
            help="The share of time, or cost, that does not matter; the plan's, unless given.",
        ),
    ] = None,
    host: OfHost = "",
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Say what to choose for an application: platform, size, mode, threads and processor.

    With prices the cheapest per million requests, else with a bound the fewest cores that keep it,
    else the fastest; of equals the cheapest or smallest. An instance breaks the bound if its own
    99th percentile is beyond it, queue included; a cell that was seen to break it is left out.
    Fastest is by e2e time in single_stream, by latency in server and multi_stream, by throughput in
    offline.

    Exit status: 0 an answer, or which cells it is between; 1 no evidence; 2 refused.
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
            help="Two results folders, as an unpacked archive has one; with --with, all those of "
            "the first side.",
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
            help="The least change worth knowing; the first plan's, unless given.",
        ),
    ] = None,
    fail_above: Annotated[
        float | None,
        typer.Option(
            parser=_per_cent, metavar="PERCENT",
            help="Judge whether a cost, or a time that has an interval, rose by more.",
        ),
    ] = None,
    page: Annotated[Path | None, typer.Option(help="Write it as an HTML page, too.")] = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Compare sweeps: two hosts, two kernels, before and after.

    For each cell of both sides: the second's time over the first's, and whether what the platform
    costs against bare metal has changed. What differs between the sides is named. One sweep a
    side says nothing of how days differ; with several, the sweep is the unit.

    virtbed compare before1 before2 --with after1 --with after2

    Exit status: 0 compared, and with --fail-above nothing rose so far; 1 no cell in common; 2
    refused; with --fail-above, 3 something clearly rose by more, 4 undecided: an interval
    is too wide or missing, or a cell or trials of the second gave no result.
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


# Exit statuses of what a comparison says of a rise.
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
    """Write the samples of one sweep or several (hosts, shards) as one tidy Parquet file.

    One row per request, with all that is known of its trial. `virtbed schema samples` says what
    each column holds; so does the file's metadata.

    Exit status: 0 written, 2 the sweeps cannot be pooled (unlike images or versions).
    """
    from virtbed_analysis import AnalysisError, load, write_parquet

    try:
        samples = load(*sweeps)
        write_parquet(samples, output)
    except (AnalysisError, OSError) as error:
        refuse(error)
    trials = samples.select("host", "plan_digest", "trial").n_unique()
    console.print(f"{samples.height} samples of {trials} trials: {output}", highlight=False)


@app.command()
def archive(
    name: SweepArgument,
    output: Annotated[
        Path | None,
        typer.Option(help="The file to write; if not given, the folder's name and .zip."),
    ] = None,
) -> None:
    """Make one file of a sweep: results, evidence, plan, locks, report, metadata and checksums.

    A zip file and a Research Object Crate. Equal input gives equal bytes; `virtbed verify` checks.

    Exit status: 0 written, 2 there is nothing that could be archived.
    """
    from virtbed_analysis import AnalysisError
    from virtbed_analysis import archive as write_archive

    locks = {path.name: path for path in (REPOSITORY / "requirements").glob("*.txt")}
    folder = results(name).resolve()
    try:
        file = output or folder.with_name(f"{folder.name}.zip")
        count = write_archive(folder, file, locks)
    except (AnalysisError, OSError) as error:
        refuse(error)
    console.print(f"archive: {file} ({count} files)", highlight=False)


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="An archive.")],
) -> None:
    """Check an archive: every checksum, nothing missing or added, and the report made again.

    Exit status: 0 whole, 1 something is wrong with it, 2 it is no archive.
    """
    from virtbed_analysis import AnalysisError, archive_problems

    try:
        found = list(archive_problems(file))
    except (AnalysisError, OSError) as error:
        refuse(error)
    for problem in found:
        console.print(problem, highlight=False, markup=False)
    if found:
        raise typer.Exit(TRIALS_FAILED)
    console.print(f"{file} is whole, and its results give the report that is in it")


@app.command()
def published(
    table: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="The timings, one per row (CSV).")
    ],
    as_json: AsJson = False,
) -> None:
    """Analyse the published measurements of the study's laboratory as if they were a sweep.

    Prints every ratio to bare metal as published (the first runs pooled with the rest), what the
    data itself shows against them, and its answers to the findings (first runs left out).

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
    console.print(f"{content['timings']} timings of {content['cells']} cells: {content['source']}")
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
    """Explain a trial's evidence: where it was put, where it ran, and what else moved.

    Exit status: 0 attested, 1 not attested, 2 no evidence there.
    """
    try:
        attested, lines = explain(trial)
    except AttestError as error:
        refuse(error)
    for line in lines:
        console.print(line, highlight=False, markup=False)
    raise typer.Exit(0 if attested else TRIALS_FAILED)
