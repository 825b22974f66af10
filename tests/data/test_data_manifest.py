"""manifest.parquet: equal rows give equal bytes, and a wrong file is refused in one sentence."""

from pathlib import Path

import pandas as pd
import pytest

from clinprompt.data.columns import COLUMNS
from clinprompt.data.manifest import patients, read_manifest, write_manifest
from clinprompt.errors import InputCorrupt, InputMissing


def rows(n: int = 4) -> pd.DataFrame:
    ids = [f"{i:064x}" for i in range(n)]
    return pd.DataFrame(
        {
            "path": [f"a/{i}.png" for i in range(n)],
            "id": ids,
            "file": [f"{i[:2]}/{i}.png" for i in ids],
            "label": ["x", "y"] * (n // 2),
            "split": ["train"] * n,
            "patient": ["0123456789abcdef", None] * (n // 2),
            "site": ["A", None] * (n // 2),
            "sex": ["F", None] * (n // 2),
            "age": [40.5, None] * (n // 2),
            "modality": ["MRI"] * n,
        }
    )


def test_it_survives_and_its_bytes_do_not_depend_on_the_order_of_rows_and_columns(tmp_path: Path) -> None:
    frame = rows().assign(scanner=["A", None, "B", "A"])
    write_manifest(frame, tmp_path / "a.parquet")
    write_manifest(frame.sample(frac=1, random_state=0)[sorted(frame.columns)], tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    back = read_manifest(tmp_path / "a.parquet")
    assert list(back.columns) == [*COLUMNS, "scanner"]
    assert back["age"].tolist()[0] == 40.5
    assert back["site"].isna().tolist() == [False, True] * 2
    assert b"pandas" not in (tmp_path / "a.parquet").read_bytes()


def test_the_unit_of_clustering_is_the_patient_or_else_the_image() -> None:
    frame = rows()
    assert patients(frame).tolist() == ["0123456789abcdef", frame["id"][1], "0123456789abcdef", frame["id"][3]]


def test_a_file_that_is_missing_or_no_parquet(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match="does not exist"):
        read_manifest(tmp_path / "none.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(InputCorrupt, match="not a readable Parquet file"):
        read_manifest(tmp_path / "bad.parquet")


@pytest.mark.parametrize(
    ("frame", "sentence"),
    [
        (rows().drop(columns="patient"), "must begin with path, id"),
        (rows().assign(age=["a", "b", "c", "d"]), "column 'age' must hold numbers"),
        (rows().assign(site=[1, 2, 3, 4]), "column 'site' must hold text"),
        (rows().assign(label=["x", None, "x", "x"]), "column 'label' has an empty cell in row 1"),
        (rows().assign(path=["a", "a", "b", "c"]), "the path in row 1 stands in another row"),
        (rows().assign(path=["b", "a", "c", "d"]), "not sorted"),
        (rows().assign(split=["train", "dev", "val", "test"]), "'dev' is none of train, val, test"),
        (rows().assign(id=["1", *rows()["id"][1:]]), "id in row 0"),
    ],
)
def test_wrong_content_is_named(tmp_path: Path, frame: pd.DataFrame, sentence: str) -> None:
    frame.to_parquet(tmp_path / "m.parquet", index=False)
    with pytest.raises(InputCorrupt, match=sentence):
        read_manifest(tmp_path / "m.parquet")
