"""What reports need of a dataset's card, asked without reading any of its files."""

from clinprompt.data.card import Card


def unmet(card: Card, *, z_scores: bool, adjust_for: str | None) -> str | None:
    """What the card lacks for reports of this style, in words without a full stop; None: nothing."""
    where = f"datasets/{card.name}.yaml"
    if card.record is None:
        return f"{where} has no record, which reports of its subjects are written from"
    if not z_scores:
        return None
    if card.record.reference is None:
        return f"{where}: record.reference: z_scores need the class of healthy subjects; name it, or set them false"
    columns = [measure.column for measure in card.record.measures]
    if adjust_for is not None and adjust_for not in columns:
        return f"{where}: record: adjust_for names {adjust_for!r}, which is none of {', '.join(columns)}"
    return None
