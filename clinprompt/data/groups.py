"""Which images belong together, so that no split may part them: union-find over patients, bytes and pictures."""

from collections.abc import Iterator

import pandas as pd


def group_names(frame: pd.DataFrame, near: pd.DataFrame | None = None) -> pd.Series:
    """The group of each row: rows of one patient, with the same bytes, or of the same picture, are together.

    Args:
        frame: columns id, patient (null: unknown).
        near: pairs of near-duplicates, columns id_a and id_b; ids that the frame lacks join what they pair with.
    """
    parent: dict[str, str] = {}

    def find(node: str) -> str:
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    def join(one: str, other: str) -> None:
        low, high = sorted((find(one), find(other)))
        parent[high] = low  # the smallest name, whatever the order of the rows

    # Patients sort before images, so that a new image of a patient never renames the group.
    units = [
        f"0:{patient}" if isinstance(patient, str) else f"1:{image}" for patient, image in _patient_image_pairs(frame)
    ]
    for unit, (_, image) in zip(units, _patient_image_pairs(frame), strict=True):
        join(unit, f"1:{image}")
    for one, other in [] if near is None else zip(near["id_a"], near["id_b"], strict=True):
        join(f"1:{one}", f"1:{other}")
    return pd.Series([find(unit) for unit in units], index=frame.index, dtype=object)


def patients_or_studies(frame: pd.DataFrame) -> pd.Series:
    """Each row's patient; where that is unknown, the patient of other images of its study, or the study for one.

    Args:
        frame: columns patient and study (null: unknown).
    """
    known = frame[frame["patient"].notna() & frame["study"].notna()]
    told = frame["study"].map(dict(zip(known["study"], known["patient"], strict=True))).astype(object)
    study = "study " + frame["study"].astype(object)  # no patient's id
    return frame["patient"].astype(object).where(frame["patient"].notna(), told.where(told.notna(), study))


def _patient_image_pairs(frame: pd.DataFrame) -> Iterator[tuple[str | None, str]]:
    return zip(frame["patient"], frame["id"], strict=True)
