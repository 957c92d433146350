"""The commands on documents: their schemas."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from virtbed.cli.console import refuse
from virtbed.plan import Plan, PlanError
from virtbed_contract.codec import Json
from virtbed_contract.schemas import SCHEMAS

app = typer.Typer()


def _samples() -> Json:
    from virtbed_analysis import described

    return dict(described())


_SCHEMAS = {"plan": Plan.model_json_schema, **SCHEMAS, "samples": _samples}


@app.command()
def schema(
    which: Annotated[str, typer.Argument(help=f"One of: {', '.join(_SCHEMAS)}.")],
) -> None:
    """Print the JSON Schema of a document, or the columns that `export` writes (samples)."""
    if which not in _SCHEMAS:
        refuse(PlanError(f"no schema {which!r}; one of: {', '.join(_SCHEMAS)}"))
    typer.echo(json.dumps(_SCHEMAS[which](), indent=1))
