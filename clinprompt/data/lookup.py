"""The files behind images' ids: reports and logs name images by the first digits of their SHA-256 alone."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from clinprompt import cli
from clinprompt.data.manifest import read_manifest, shown_id
from clinprompt.errors import InputMissing

app = cli.application()


@app.command(help=__doc__)
def _lookup(
    dataset: Annotated[str, typer.Argument(help="the name of its card")],
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="the first digits of ids, or whole ones")],
    manifest: Annotated[Path | None, typer.Option(help="by default runs/DATASET/ingest/manifest.parquet")] = None,
) -> None:
    file = manifest or Path("runs") / dataset / "ingest" / "manifest.parquet"
    rows = read_manifest(file)
    for wanted in ids:
        found = rows[rows["id"].str.startswith(wanted.lower())]
        if found.empty:
            raise InputMissing(f"{file} has no image whose id begins with {wanted!r}.")
        for _, row in found.iterrows():
            shown = row["id"] if len(wanted) > len(shown_id(row["id"])) else shown_id(row["id"])
            sys.stdout.write("\t".join([shown, row["split"], row["label"], row["path"]]) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Print id, split, label and path of each image that is asked for; the exit code."""
    return cli.main(app, argv, "python -m clinprompt.data.lookup")


if __name__ == "__main__":
    sys.exit(main())
