"""The commands `virtbed lab …`: bench hosts in a box (QEMU), to try and to test virtbed."""

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
    "IOMMU. They are for trying and testing virtbed; times measured there are not results.",
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the server.")]
_DEFAULT = Shape()


@app.command()
def up(
    name: Name = "lab",
    suite: Annotated[Suite, typer.Option(help="Debian's suite.")] = "bookworm",
    sockets: Annotated[int, typer.Option(help="Number of sockets.")] = _DEFAULT.sockets,
    cores: Annotated[int, typer.Option(help="Cores per socket.")] = _DEFAULT.cores,
    threads: Annotated[int, typer.Option(help="Threads per core.")] = _DEFAULT.threads,
    nodes: Annotated[int, typer.Option(help="Number of NUMA nodes.")] = _DEFAULT.nodes,
    memory_mib: Annotated[
        int, typer.Option(help="Memory in MiB, of all nodes together.")
    ] = _DEFAULT.memory_mib,
    svm: Annotated[
        bool, typer.Option(help="With hardware virtualization (AMD SVM) inside.")
    ] = _DEFAULT.svm,
    iommu: Annotated[bool, typer.Option(help="With an IOMMU.")] = _DEFAULT.iommu,
    spare: Annotated[
        bool, typer.Option(help="With a PCI device that nothing uses, to assign to a guest.")
    ] = _DEFAULT.spare,
    bare: Annotated[
        bool, typer.Option(help="Without the packages that virtbed's roles install.")
    ] = False,
) -> None:
    """Start a server, wait until it has booted, and write an inventory for it.

    The first start builds the server's image, which needs root and takes minutes. The server runs
    until `virtbed lab down`. At the end the command prints the inventory, for `virtbed doctor
    --inventory INVENTORY`.

    Exit status: 0 the server has booted and answers, 2 it does not.
    """
    with _refusing():
        check_name(name)  # before the build, which takes minutes
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
    """Stop a server and remove its disk.

    Exit status: 0 the server is gone, 2 there is no server of this name.
    """
    with _refusing():
        _server(name).remove()


@app.command()
def clean() -> None:
    """Stop all servers, and remove the lab's images and snapshots.

    Exit status: 0 everything is removed, 2 a server could not be stopped.
    """
    with _refusing():
        remove_all()


@app.command(context_settings={"ignore_unknown_options": True})
def ssh(
    name: Name = "lab",
    command: Annotated[
        list[str] | None, typer.Argument(help="Command to run there; without it, a shell.")
    ] = None,
) -> None:
    """Log in to a server as root, or run a command there.

    Exit status: that of the command.
    """
    with _refusing():
        argv = _server(name).ssh(*(command or ()))
    os.execvp(argv[0], argv)  # nosec B606 # ssh, which this command is for


@app.command()
def status() -> None:
    """List the running servers: their hardware, SSH port and inventory."""
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
    """Turn an error of the lab into a refusal: one line, and exit status 2."""
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
            f"running servers found: {', '.join(running) or 'none'}; {name} needed: start it with "
            f"virtbed lab up {name}"
        )
    return running[name]
