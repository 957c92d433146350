"""The commands `virtbed doctor`, `restore` and `run`: examine a host, restore it, try one app."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Annotated, NoReturn

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
    say_left_out,
)  # fmt: skip
from virtbed.doctor import examine
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
from virtbed.render.hosts import hosts_tables
from virtbed.render.trial import phase_table
from virtbed_contract.codec import encode
from virtbed_contract.hosts import HostReports
from virtbed_contract.json_file import plain
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
        str,
        typer.Option(
            help="Variant of the image (images.yml) that is to run: variants need different disk "
            "space and memory."
        ),
    ] = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Examine each bench host: which platforms it can run, and why not the others.

    It also lists the hardware, the settings that disturb measurements, and timer wake-ups. Of
    several hosts it lists what each lacks first, and what makes them unlike. It changes nothing on
    the hosts, and needs root there. Example: `virtbed doctor --image null`.

    Exit status: 0 every platform can run (emulated or not), 1 some cannot, 2 a host could not be
    examined.
    """
    try:
        host = bench_of(inventory, limit, extra_vars, hung_after)
        variant_of(image, load_variants())
        host.require_root("to examine the host")
        with bench.alone():
            names = host.hosts()
            say_left_out(host)
            if len(names) > 1:
                _several(examine([host.one_of(name) for name in names], image), as_json)
            report, _ = host.examine(restore=False, image=image)
        entries = load_platforms().entries
    except (BenchError, CheckoutError, PlatformError) as error:
        refuse(error)
    if as_json:
        typer.echo(json.dumps(encode(report), indent=1))
    else:
        console.print(facts_table(report))
        console.print(doctor_table(report, entries))
        if (with_gpu := gpu_table(report, entries)) is not None:
            console.print(with_gpu)
        console.print(tuning_table(report))
        console.print(waking_table(report))
    raise typer.Exit(0 if report.ok else TRIALS_FAILED)


def _several(examined: HostReports, as_json: bool) -> NoReturn:
    """Print the reports of several hosts, and exit."""
    if as_json:
        typer.echo(json.dumps(encode(examined), indent=1))
    else:
        for part in hosts_tables(examined, load_platforms().entries):
            console.print(part)
    if any(each.report is None for each in examined.hosts):
        raise typer.Exit(REFUSED)
    raise typer.Exit(0 if examined.ok else TRIALS_FAILED)


@app.command()
def restore(
    inventory: Inventories = None,
    limit: Limit = None,
    extra_vars: ExtraVars = None,
    hung_after: HungAfter = HUNG_AFTER_S,
) -> None:
    """Restore the host settings, CPUs and daemons that a sweep changed, also after a crash.

    A sweep restores them itself when it ends, and restores what a killed sweep left when it starts.
    Use this command if you do not want to start another sweep.

    Exit status: 0 everything is as it was before, 2 something could not be restored.
    """
    try:
        host = bench_of(inventory, limit, extra_vars, hung_after)
        host.require_root("to restore the host's settings")
        with bench.alone():
            changed = host.restore()
    except (BenchError, CheckoutError) as error:
        refuse(error)
    console.print("restored" if changed else "nothing to restore")


@app.command()
def run(
    application: Annotated[
        str, typer.Argument(help=f"The application, one of: {', '.join(VISIBLE)}.")
    ],
    scale: Annotated[
        str,
        typer.Option(
            help="Which model: trained, mlperf (MLPerf's size, seeded weights) or tiny."
        ),
    ] = "trained",
    scenario: Annotated[
        str,
        typer.Option(
            help="How MLPerf LoadGen issues requests: single_stream, multi_stream, offline or "
            "server."
        ),
    ] = "single_stream",
    rules: Annotated[
        str,
        typer.Option(
            help="How long to run: quick takes --samples requests; study takes MLPerf's minimum "
            "duration (10 minutes) and number of requests."
        ),
    ] = "quick",
    samples: Annotated[
        int, typer.Option(help="Number of measured requests, with --rules quick.")
    ] = 20,
    warmup: Annotated[
        int,
        typer.Option(help="Number of requests before the measured ones; at least one per input."),
    ] = 3,
    threads: Annotated[
        str,
        typer.Option(
            help="Sizes of the thread pools: default (the framework's choice) or matched (the "
            "number of cores)."
        ),
    ] = "default",
    processor: Annotated[
        str, typer.Option(help="cpu or gpu. With gpu, the run fails if the CPU would be used.")
    ] = "cpu",
    target_qps: Annotated[
        float | None, typer.Option(help="Requests per second, for scenario server.")
    ] = None,
    target_latency_ms: Annotated[
        float | None,
        typer.Option(help="Bound on the 99th percentile of latency, for scenario server."),
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False,
            help="Folder whose files are the requests, instead of the application's own inputs.",
        ),
    ] = None,
    inventory: Inventories = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Run one application directly on this machine, and show how long each phase takes.

    It needs the image (`make setup`), whose frameworks it uses, but makes no instance: use
    `virtbed sweep` to compare platforms. Example: `virtbed run image_classification`.

    Exit status: 0 good, 1 the application failed, 2 wrong usage, 3 the application gave a wrong
    answer.
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
    "in-image", hidden=True,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)  # fmt: skip
def in_image(arguments: Annotated[list[str], typer.Argument()]) -> None:
    """Run the image's Python in this checkout, for tests of the applications and benchmarks."""
    try:
        argv = command(arguments)
        with bench.alone():
            raise typer.Exit(subprocess.run(argv, check=False).returncode)
    except (RunError, BenchError, CheckoutError) as error:
        refuse(error)
