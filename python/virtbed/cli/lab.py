"""`virtbed lab`: bench hosts in a box, to try virtbed on, and to test it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from virtbed.cli.console import console, errors, refuse
from virtbed.lab import FOLDER, LabError
from virtbed.lab.image import build
from virtbed.lab.recipe import Recipe, Suite
from virtbed.lab.server import Server, check_name, remove_all, servers, start
from virtbed.lab.shape import Shape, accelerator_here
from virtbed.render.table import Table

app = typer.Typer(
    no_args_is_help=True,
    help="Bench hosts in a box: Debian servers under QEMU, with systemd, KVM, NUMA nodes and an "
    "IOMMU. Nothing that is timed there is a result.",
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="The server's name.")]
_DEFAULT = Shape()


@app.command()
def up(
    name: Name = "lab",
    suite: Annotated[Suite, typer.Option(help="Debian's.")] = "bookworm",
    sockets: Annotated[int, typer.Option(help="Processors.")] = _DEFAULT.sockets,
    cores: Annotated[int, typer.Option(help="Cores per socket.")] = _DEFAULT.cores,
    threads: Annotated[int, typer.Option(help="Threads per core.")] = _DEFAULT.threads,
    nodes: Annotated[int, typer.Option(help="NUMA nodes.")] = _DEFAULT.nodes,
    memory_mib: Annotated[int, typer.Option(help="Memory of all nodes.")] = _DEFAULT.memory_mib,
    svm: Annotated[bool, typer.Option(help="Hardware virtualization inside.")] = _DEFAULT.svm,
    iommu: Annotated[bool, typer.Option(help="An IOMMU.")] = _DEFAULT.iommu,
    spare: Annotated[bool, typer.Option(help="A PCI device that nothing uses.")] = _DEFAULT.spare,
    bare: Annotated[bool, typer.Option(help="Without what virtbed's roles install.")] = False,
) -> None:
    """Start a server, and write an inventory of it.

    Its image is built first if there is none, as root, in minutes. It runs until
    `virtbed lab down`.

    Exit status: 0 it answers and has booted, 2 it does not.
    """
    with _refusing():
        check_name(name)  # before minutes of building
        shape = Shape(sockets, cores, threads, nodes, memory_mib, svm, iommu, spare)
        with errors.status(f"starting {name}") as status:

            def say(text: str) -> None:
                status.update(text)
                if not errors.is_terminal:
                    errors.print(text)

            image = build(Recipe(suite, engines=not bare), say)
            server = start(name, image, shape, say, tied=False, accelerator=accelerator_here())
    console.print(f"inventory: {server.inventory}", soft_wrap=True)
    console.print(f"next: virtbed doctor --inventory {server.inventory}", soft_wrap=True)


@app.command()
def down(name: Name = "lab") -> None:
    """End a server, and remove its disk.

    Exit status: 0 it is gone, 2 there is none.
    """
    with _refusing():
        _server(name).remove()


@app.command()
def clean() -> None:
    """End all servers, and remove the lab's images and snapshots.

    Exit status: 0 all is gone, 2 a server does not end.
    """
    with _refusing():
        remove_all()


@app.command(context_settings={"ignore_unknown_options": True})
def ssh(
    name: Name = "lab",
    command: Annotated[
        list[str] | None, typer.Argument(help="Run there; a shell if none is given.")
    ] = None,
) -> None:
    """Log in to a server as root, or run a command there.

    Exit status: the command's.
    """
    with _refusing():
        argv = _server(name).ssh(*(command or ()))
    os.execvp(argv[0], argv)  # nosec B606 # ssh, as asked


@app.command()
def status() -> None:
    """List the servers that run."""
    table = Table("Servers of the lab")
    for heading in ("name", "hardware", "memory", "SSH port", "inventory"):
        table.add_column(heading)
    with _refusing():
        running = servers()
    for server in running:
        shape = server.shape
        hardware = (
            f"{shape.sockets} x {shape.cores} x {shape.threads}, {shape.nodes} "
            f"{'node' if shape.nodes == 1 else 'nodes'}, {server.accelerator}"
        )
        table.add_row(
            server.name, hardware, f"{shape.memory_mib} MiB", str(server.port),
            str(server.inventory),
        )  # fmt: skip
    console.print(table)


@contextmanager
def _refusing() -> Iterator[None]:
    """Exit with a clear message where the lab cannot do something."""
    try:
        yield
    except LabError as error:
        refuse(error)
    except OSError as error:
        refuse(LabError(f"{error}; {FOLDER} must be writable: use sudo, or set VIRTBED_LAB"))


def _server(name: str) -> Server:
    running = {server.name: server for server in servers()}
    if name not in running:
        raise LabError(
            f"servers {', '.join(running) or 'none'} found, {name} needed; "
            f"run virtbed lab up {name}"
        )
    return running[name]
