"""The commands `virtbed image …`: compare two images."""

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

app = typer.Typer(
    no_args_is_help=True, help="Commands for the images (root filesystems) that sweeps run."
)
_IMAGE = (
    "The first image: a folder with manifest.json, sbom.cdx.json and contents.jsonl.gz; or an "
    "image of this host by its digest, its name, or its variant (the variant's current image)."
)
DIFFERENT = 1


@app.callback()
def _group() -> None:
    """Make `diff` a subcommand: Typer would run a group's only command without its name."""


@app.command()
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help=_IMAGE)],
    b: Annotated[str, typer.Argument(metavar="B", help="The second image, named in the same way.")],
    inventory: Inventories = None,
    as_json: AsJson = False,
) -> None:
    """Compare two images: packages, and files that were added, removed or changed.

    The root filesystems themselves are not needed. The three files that are stored next to each are
    enough, so you can copy them from another host. Example: `virtbed image diff FOLDER FOLDER`.

    Exit status: 0 the images are the same, 1 they differ, 2 they could not be compared.
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
