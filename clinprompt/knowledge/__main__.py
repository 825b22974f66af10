"""`python -m clinprompt.knowledge`: judge sentences on a card's classes, without images or a language model."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from clinprompt import cli
from clinprompt.errors import BadParams
from clinprompt.files import write_text

app = cli.application(__doc__)


@app.callback()
def _commands() -> None:
    """Without this, an application of one command would not take the command's name."""


@app.command(help="accept or reject each sentence of a table, with a reason and the scores")
def check(
    texts: Annotated[Path, typer.Argument(metavar="TEXTS.csv", help="columns class and text; others are kept")],
    card: Annotated[Path, typer.Option(metavar="CARD.yaml", help="the dataset card that has the classes")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="OUT.csv", help="write there, and print the counts; by default print the table"),
    ] = None,
) -> None:
    """Write the table with `accepted`, `reason`, `unjudged` and the scores beside each sentence."""
    from clinprompt.data.load import load_card
    from clinprompt.knowledge.texts import judged, read_texts

    if out is not None and out.resolve() == texts.resolve():
        raise BadParams(f"--out: {out} is the table that is read; name another file.")
    of = load_card(card)
    frame, ids = read_texts(texts, of)
    table = judged(frame, ids, of)
    text = table.to_csv(index=False, lineterminator="\n")
    if out is None:
        sys.stdout.write(text)
        return
    write_text(out, text)
    sys.stdout.write(f"{out}: {int(table['accepted'].sum())} of {len(table)} sentences accepted\n")
    for reason, count in table["reason"].value_counts().items():
        sys.stdout.write(f"  {reason}: {count} rejected\n")
    for check, count in table["unjudged"].str.split().explode().value_counts().items():
        sys.stdout.write(f"  {check}: could not be judged for {count}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit code."""
    return cli.main(app, argv, "python -m clinprompt.knowledge")


if __name__ == "__main__":
    sys.exit(main())
