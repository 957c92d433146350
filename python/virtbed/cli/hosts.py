"""The commands on a bench host: examine it, put it back, run one application on this machine."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from virtbed import bench
from virtbed.bench import HUNG_AFTER_S, BenchError
from virtbed.checkout import CheckoutError
from virtbed.cli.console import (
    REFUSED,
    TRIALS_FAILED,
    AsJson,
    ExtraVars,
    HungAfter,
    Inventories,
    Limit,
    bench_of,
    console,
    errors,
    refuse,
)  # fmt: skip
from virtbed.here import RunError, command, current_image, run_here
from virtbed.image import DEFAULT, load_variants, variant_of
from virtbed.platforms import PlatformError, load_platforms
from virtbed.render.host import (
    doctor_table,
    facts_table,
    gpu_table,
    tuning_table,
    waking_table,
)
from virtbed.render.trial import phase_table
from virtbed_contract.codec import encode
from virtbed_contract.json_file import plain
from virtbed_contract.sweep import HostReport
from virtbed_workloads.registry import APPLICATIONS

app = typer.Typer()
VISIBLE = [name for name, entry in APPLICATIONS.items() if not entry.hidden]


@app.command()
def doctor(
    inventory: Inventories = None,
    limit: Limit = None,
    extra_vars: ExtraVars = None,
    hung_after: HungAfter = HUNG_AFTER_S,
    image: Annotated[
        str, typer.Option(help="The image that is to run, as in images.yml; each needs its own.")
    ] = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Say which platforms each host can run, and why not the others; change nothing.

    Exit status: 0 if every platform runs (emulated or not), 1 if some cannot, 2 if that is
    not known of a host.
    """
    reports: list[HostReport] = []
    unknown: list[BenchError] = []
    try:
        host = bench_of(inventory, limit, extra_vars, hung_after)
        variant_of(image, load_variants())
        host.require_root("to examine the host")
        with bench.alone():
            names = host.hosts()
            for one in map(host.one_of, names) if len(names) > 1 else [host]:
                try:
                    reports.append(one.examine(restore=False, image=image)[0])
                except BenchError as error:
                    unknown.append(BenchError(f"{one.name}: {error}" if one.name else str(error)))
        entries = load_platforms().entries
    except (BenchError, CheckoutError, PlatformError) as error:
        refuse(error)
    if as_json and reports:
        several = [encode(report) for report in reports]
        typer.echo(json.dumps(several if len(names) > 1 else several[0], indent=1))
    for report in () if as_json else reports:
        console.print(facts_table(report))
        console.print(doctor_table(report, entries))
        if (with_gpu := gpu_table(report, entries)) is not None:
            console.print(with_gpu)
        console.print(tuning_table(report))
        console.print(waking_table(report))
    for wrong in unknown:
        errors.print(f"virtbed: {plain(str(wrong))}", style="red", highlight=False, markup=False)
    if unknown:
        raise typer.Exit(REFUSED)
    raise typer.Exit(0 if all(report.ok for report in reports) else TRIALS_FAILED)


@app.command()
def restore(
    inventory: Inventories = None,
    limit: Limit = None,
    extra_vars: ExtraVars = None,
    hung_after: HungAfter = HUNG_AFTER_S,
) -> None:
    """Put back what a sweep changed of the host (settings, CPUs, daemons), also after a crash.

    A sweep does so itself at its end, and the next one when it starts.

    Exit status: 0 all is as it was, 2 something could not be put back.
    """
    try:
        host = bench_of(inventory, limit, extra_vars, hung_after)
        host.require_root("to put the host's settings back")
        with bench.alone():
            changed = host.restore()
    except (BenchError, CheckoutError) as error:
        refuse(error)
    console.print("restored" if changed else "nothing to restore")


@app.command()
def run(
    application: Annotated[str, typer.Argument(help=f"One of: {', '.join(VISIBLE)}.")],
    scale: Annotated[str, typer.Option(help="trained, mlperf or tiny.")] = "trained",
    scenario: Annotated[
        str, typer.Option(help="single_stream, multi_stream, offline or server.")
    ] = "single_stream",
    rules: Annotated[
        str, typer.Option(help="quick: --samples requests; study: MLPerf's minimums, 10 minutes.")
    ] = "quick",
    samples: Annotated[int, typer.Option(help="Measured requests, by the quick rules.")] = 20,
    warmup: Annotated[int, typer.Option(help="Requests before; at least one per input.")] = 3,
    threads: Annotated[str, typer.Option(help="default, or matched to the cores there are.")] = (
        "default"
    ),
    processor: Annotated[str, typer.Option(help="cpu or gpu; falling back fails.")] = "cpu",
    target_qps: Annotated[float | None, typer.Option(help="Requests per second of server.")] = None,
    target_latency_ms: Annotated[
        float | None, typer.Option(help="Server's bound on the 99th percentile.")
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="Your own requests: the files of this folder."
        ),
    ] = None,
    inventory: Inventories = None,
    as_json: AsJson = False,
) -> None:
    """Run one application on this machine, on no platform, and show where its time goes.

    The frameworks are the image's (`make setup`), the applications this checkout's.

    Exit status: 0 good, 1 the application failed, 2 usage, 3 a wrong answer.
    """
    rates = {"qps": target_qps, "latency-ms": target_latency_ms}
    arguments = [
        application, f"--scale={scale}", f"--scenario={scenario}", f"--rules={rules}",
        f"--samples={samples}", f"--warmup={warmup}", f"--threads={threads}",
        f"--processor={processor}",
        *(f"--target-{name}={rate}" for name, rate in rates.items() if rate is not None),
    ]  # fmt: skip
    try:
        image = current_image(inventory) if inventory else None
        with bench.alone(), errors.status(Text(plain(f"running {application}"))):
            document = run_here(arguments, inputs, image)
    except RunError as error:
        refuse(error, error.code)
    except (BenchError, CheckoutError) as error:
        refuse(error)
    if as_json:
        document.pop("files")
        typer.echo(json.dumps(document, indent=1))
    else:
        console.print(phase_table(document), highlight=False)


@app.command(
    "in-image", hidden=True, context_settings={"ignore_unknown_options": True},
    add_help_option=False,
)  # fmt: skip
def in_image(arguments: Annotated[list[str], typer.Argument()]) -> None:
    """Run the image's Python in this checkout: its tests of the applications, its benchmarks."""
    try:
        argv = command(arguments)
        with bench.alone():
            raise typer.Exit(subprocess.run(argv, check=False).returncode)
    except (RunError, BenchError, CheckoutError) as error:
        refuse(error)
