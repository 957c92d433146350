"""The command `virtbed schema`: JSON Schemas of plans, results and the other documents."""

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
    which: Annotated[str, typer.Argument(help=f"The document, one of: {', '.join(_SCHEMAS)}.")],
) -> None:
    """Print the JSON Schema of a document.

    For `samples` it prints the columns of the Parquet file that `virtbed export` writes. Example:
    `virtbed schema result`.
    """
    if which not in _SCHEMAS:
        refuse(PlanError(f"there is no schema {which!r}; one of: {', '.join(_SCHEMAS)}"))
    typer.echo(json.dumps(_SCHEMAS[which](), indent=1))
