"""What `data.new` asks and says of tables, and tables as spreadsheets and Windows write them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from desk import Desk

from clinprompt.data.layouts.table import read_table
from clinprompt.data.load import load_card
from clinprompt.data.names import matching_key
from clinprompt.errors import InputCorrupt


def _table(desk: Desk, header: str, rows: Sequence[str], name: str = "list.csv") -> None:
    (desk.images / name).write_text("\n".join([header, *rows]), encoding="utf-8")


def test_an_id_that_names_two_images_is_asked(desk: Desk, asked: Callable[..., None]) -> None:
    desk.draw(*(f"{folder}/{i}.png" for folder in ("heatmaps", "original") for i in range(12)))
    _table(desk, "id,label", [f"{i},{'ab'[i % 2]}" for i in range(12)])
    asked("'0' in the column 'id' may be heatmaps/0.png or original/0.png", "--exclude")
    assert desk.new("--exclude", "heatmaps") == 0
    assert load_card(Path("datasets/mine.yaml")).reader.options["prefix"] == "original/"


def test_tables_that_list_a_part_each_are_asked(desk: Desk, asked: Callable[..., None]) -> None:
    for split, images in (("train", 12), ("val", 6), ("test", 6)):
        desk.draw(*(f"images/{split}{i}.png" for i in range(images)))
        _table(desk, "image,label", [f"{split}{i}.png,{'ab'[i % 2]}" for i in range(images)], f"{split}.csv")
    asked("train.csv lists some of the images, test.csv, val.csv others", "a column split", "--table train.csv")


def test_a_split_column_with_a_word_that_is_no_split_is_asked(desk: Desk, asked: Callable[..., None]) -> None:
    desk.draw(*(f"{i}.png" for i in range(16)))
    words = ("train", "train", "holdout", "holdout")
    _table(desk, "image,label,split", [f"{i}.png,{'ab'[i % 2]},{words[i % 4]}" for i in range(16)])
    asked("holdout is none of them", "--train, --val and --test")
    assert desk.new("--train", "train", "--test", "holdout") == 0
    card = load_card(Path("datasets/mine.yaml"))
    assert (card.split.rule, card.reader.options["splits"]) == ("given", {"train": "train", "test": "holdout"})
    assert (desk.accepted()["split"] == "test").sum() == 8


def test_a_fold_column_that_is_not_used_is_told(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.draw(*(f"{i}.png" for i in range(16)))
    _table(desk, "image,label,split", [f"{i}.png,{'ab'[i % 2]},{i % 5}" for i in range(16)])
    assert desk.new() == 0
    assert "The column split (0, 1, 2, 3) is not used" in capsys.readouterr().out


def test_ids_in_the_names_of_a_table_s_images_are_offered_as_patients(
    desk: Desk, asked: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    desk.draw(*(f"P{p:02d}_{i}.png" for p in range(8) for i in range(2)))
    _table(desk, "image,label", [f"P{p:02d}_{i}.png,{'ab'[p % 2]}" for p in range(8) for i in range(2)])
    asked("begin with 8 ids that repeat, as 'P00'", "--patient COLUMN", "--patient none")
    assert desk.new("--patient", "none") == 0
    assert "No patient is known" in capsys.readouterr().out


def test_unknown_patients_and_ages_that_are_no_numbers_are_told(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.draw(*(f"{i}.png" for i in range(12)))
    rows = [f"{i}.png,{'ab'[i % 2]},{f'P{i // 2}' if i > 2 else 'N/A'},{40 + i} years" for i in range(12)]
    _table(desk, "image,label,patient,age", rows)
    assert desk.new() == 0
    told = capsys.readouterr().out
    assert "The column age is left out: '40 years' is no number of years." in told
    assert "5 patients (3 images of an unknown one)" in told


def test_paths_as_windows_writes_them_and_semicolons(desk: Desk) -> None:
    desk.draw(*(f"Bilder 1/{i}.PNG" for i in range(12)))
    rows = [f"Bilder 1\\{i}.PNG;{('Läsion ', 'normal')[i % 2]};1,5" for i in range(12)]
    _table(desk, "Datei, Name;label;Größe", rows)
    assert desk.new() == 0
    assert len(desk.accepted()) == 12


def test_a_table_beside_what_is_no_class_folder_is_named(desk: Desk, asked: Callable[..., None]) -> None:
    desk.draw(*(f"images/{i}.png" for i in range(6)))
    _table(desk, "image,befund", [f"{i}.png,{'ab'[i % 2]}" for i in range(6)])
    asked("holds 1 class folder with images", "say --table list.csv", code=65)


def test_a_csv_in_another_encoding_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("Größe\n1\n".encode("cp1252"))
    with pytest.raises(InputCorrupt, match=r"is not written in UTF-8; save it again as CSV in UTF-8\.$"):
        read_table(tmp_path / "t.csv")


@pytest.mark.parametrize("text", ["a,b\n1,x;y\n", "a;b\n1;x;y\n".replace(";y", ""), "a\tb\n1\tx\n"])
def test_what_parts_the_cells_is_seen_in_the_header(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    frame = read_table(tmp_path / "t.csv")
    assert list(frame.columns) == ["a", "b"]


def test_blanks_around_a_folder_s_name_make_no_class(desk: Desk) -> None:
    desk.draw(*(f"{label}/{i}.png" for i, label in enumerate(["neg ", "neg", "pos"] * 6)))
    assert desk.new() == 0
    assert desk.accepted()["label"].value_counts().to_dict() == {"neg": 12, "pos": 6}
    assert matching_key(" Neg ") == "neg"
