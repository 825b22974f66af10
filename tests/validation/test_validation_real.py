"""The leaks of the published brain MRI folders, as they are known."""

from pathlib import Path

import pandas as pd
import pytest

from clinprompt.files import sha256_file
from clinprompt.params import load_params
from clinprompt.validation import leaks
from clinprompt.validation.duplicates import find_duplicates
from clinprompt.validation.summary import summarise


@pytest.mark.slow
def test_the_known_duplicates_of_the_brain_mri_set_are_found(real_data: Path, root: Path) -> None:
    folder = real_data / "brain-tumor-mri"
    if not folder.is_dir():
        pytest.skip(f"no brain MRI at {folder}")
    splits = {"Training": "train", "Testing": "test"}
    paths = sorted(path.relative_to(folder) for path in folder.glob("T*/*/*.jpg"))
    rows = [(str(p), sha256_file(folder / p), str(p), p.parts[1], splits[p.parts[0]], None) for p in paths]
    manifest = pd.DataFrame(rows, columns=["path", "id", "file", "label", "split", "patient"])
    limits = load_params(root / "params.yaml").validation
    summary = summarise(manifest, folder, "auto", limits)
    near = find_duplicates(manifest, summary, limits.near_duplicate_bits, limits.near_duplicate_correlation).near
    found = leaks.counts(manifest, near)
    assert len(manifest) == 3264
    assert summary.images["problem"].isna().all()
    assert found["exact_groups"] == 300
    assert found["exact_groups_across_splits"]["train and test"] == 213
    assert found["near_pairs_across_splits"]["train and test"] >= 11
    remaining = leaks.drop(manifest, near).manifest
    assert leaks.twins_across_splits(remaining, near).empty
    assert (remaining["split"] == "test").sum() == 394
