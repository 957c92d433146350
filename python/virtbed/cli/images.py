"""`virtbed image`: what differs between two images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from virtbed.bench import LOCAL
from virtbed.cli.console import AsJson, Inventories, console, refuse
from virtbed.here import RunError, current_image
from virtbed.image_diff import ImageError, document, folder_of, load, same
from virtbed.render.image_diff import image_words, tables, verdict

app = typer.Typer(no_args_is_help=True, help="The images that sweeps run.")
_IMAGE = (
    "A folder with manifest.json, sbom.cdx.json and contents.jsonl.gz; or, of this host's images, "
    "a digest, a name, or a variant for its current one."
)
DIFFERENT = 1


@app.callback()
def _group() -> None:
    """Keep `diff` a command of its own."""


@app.command()
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help=_IMAGE)],
    b: Annotated[str, typer.Argument(metavar="B", help="The other, named in the same way.")],
    inventory: Inventories = None,
    as_json: AsJson = False,
) -> None:
    """Say what differs between two images: packages, and files added, removed or changed.

    Neither needs its tree: the three files next to it are enough, also another host's.

    Exit status: 0 they are the same, 1 they differ, 2 that is not known.
    """

    def images() -> Path:
        return current_image(inventory or (LOCAL,)).parent

    try:
        left, right = (load(folder_of(name, images)) for name in (a, b))
    except (ImageError, RunError) as error:
        refuse(error)
    if as_json:
        typer.echo(json.dumps(document(left, right), indent=1))
    else:
        console.print(image_words("a", left))
        console.print(image_words("b", right))
        console.print(verdict(left, right))
        if not same(left, right):
            for part in tables(left, right):
                console.print(part)
    raise typer.Exit(0 if same(left, right) else DIFFERENT)
