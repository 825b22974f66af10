"""The drawn volumes: structure, determinism, anatomy that follows age and disease, and faults that can be asked for."""

import csv
import hashlib
import inspect
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from clinprompt.data.codecs.nifti import CODEC
from clinprompt.data.layouts import layout_of
from clinprompt.data.load import load_card
from clinprompt.demo.volumes.anatomy import CUBE, STRUCTURES, anatomy
from clinprompt.demo.volumes.deformation import deform, smooth_noise
from clinprompt.demo.volumes.phantom import COLUMNS, REGIONS, write_phantom
from clinprompt.demo.volumes.scanners import SCANNERS, scan, seen_by
from clinprompt.demo.volumes.subjects import CLASSES, MEASURES, Subject, brain_at, subjects
from clinprompt.errors import BadParams
from clinprompt.files import sha256_folder

CARD = Path(__file__).parents[2] / "datasets" / "brain-phantom-3d.yaml"
SINGLE = ("brain-phantom-3d-a", "brain-phantom-3d-b")
PER_CLASS = 6
FACTS = ("sex", "age", "mmse", *MEASURES)

Rows = list[dict[str, str]]


def listed(folder: Path) -> Rows:
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Rows]:
    folder = tmp_path_factory.mktemp("phantom") / "clean"
    write_phantom(folder, subjects_per_class=PER_CLASS, size=32, missing=0.0)
    return folder, listed(folder)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every subject has the template's brain: what a test of the table needs."""
    subject = subjects(PER_CLASS, 0)[0]
    drawn = brain_at(subject, 0)
    monkeypatch.setattr("clinprompt.demo.volumes.phantom.brain_at", lambda _subject, _months: drawn)


def table(folder: Path, **options: Any) -> Rows:
    write_phantom(folder, **({"subjects_per_class": PER_CLASS, "size": 32, "missing": 0.0} | options))
    return listed(folder)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_volumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clinprompt.demo.volumes.phantom.subjects", lambda *asked: subjects(*asked)[:2])
    for name in ("a", "b"):
        write_phantom(tmp_path / name, subjects_per_class=PER_CLASS, size=32)
    assert sha256_folder(tmp_path / "a") == sha256_folder(tmp_path / "b")
    assert not {s.seed for s in subjects(PER_CLASS, 0)} & {s.seed for s in subjects(PER_CLASS, 1)}


def test_the_table_has_a_row_per_visit_with_its_facts(clean: tuple[Path, Rows]) -> None:
    folder, rows = clean
    assert tuple(rows[0]) == COLUMNS
    assert [row["path"] for row in rows] == sorted(p.name for p in folder.glob("*.nii.gz"))
    assert all(row["path"] == f"{row['subject']}-{row['visit']}.nii.gz" for row in rows)
    assert len({digest(folder / row["path"]) for row in rows}) == len(rows)
    assert all(55 <= int(row["age"]) <= 92 and 0 <= int(row["mmse"]) <= 30 for row in rows)


def test_a_third_of_the_subjects_have_two_visits_and_the_diagnosis_is_the_subjects(clean: tuple[Path, Rows]) -> None:
    _, rows = clean
    by_subject: dict[str, Rows] = {}
    for row in rows:
        by_subject.setdefault(row["subject"], []).append(row)
    assert Counter(map(len, by_subject.values())) == {1: 12, 2: 6}
    for visits in by_subject.values():
        assert len({(v["label"], v["split"], v["scanner"], v["sex"]) for v in visits}) == 1
        first, later = visits[0], visits[-1]
        assert int(later["age"]) - int(first["age"]) == int(later["months"]) // 12


def test_every_split_has_every_class_and_scanner_and_no_subject_is_in_two() -> None:
    everyone = subjects(60, 0)
    assert len({s.number for s in everyone}) == len(everyone)
    counts = Counter((s.split, s.label, s.scanner) for s in everyone)
    assert len(counts) == 3 * 3 * 2
    assert Counter(s.split for s in everyone) == {"train": 108, "val": 27, "test": 45}
    assert {(s.split, s.scanner) for s in subjects(PER_CLASS, 0)} >= {(a, b) for a in ("train", "test") for b in "AB"}


def test_one_scanner_alone_scans_everybody_and_changes_nothing_else_about_the_subjects() -> None:
    both = subjects(PER_CLASS, 0)
    for name in SCANNERS:
        alone = subjects(PER_CLASS, 0, [name])
        assert {s.scanner for s in alone} == {name}
        assert [replace(a, scanner="") for a in alone] == [replace(b, scanner="") for b in both]


@pytest.mark.usefixtures("quick")
def test_the_table_has_the_scanners_that_the_reader_asks_for(tmp_path: Path) -> None:
    rows = table(tmp_path / "p", scanners=["B"])
    assert {row["scanner"] for row in rows} == {"B"}
    assert {row["split"] for row in rows} == {"train", "val", "test"}


@pytest.mark.parametrize("value", ["A", [], ["C"], ["A", "A"], [["A"]], None])
def test_scanners_that_there_are_not_are_named_and_nothing_is_written(tmp_path: Path, value: Any) -> None:
    with pytest.raises(BadParams, match=r"reader\.scanners: must be a list of one or more of A and B, each once"):
        write_phantom(tmp_path / "p", scanners=value)
    assert not (tmp_path / "p").exists()


def test_the_cards_of_one_scanner_are_the_card_of_both_with_other_people() -> None:
    cards = {name: yaml.safe_load((CARD.parent / f"{name}.yaml").read_text()) for name in (CARD.stem, *SINGLE)}
    assert [cards[name]["reader"]["scanners"] for name in SINGLE] == [["A"], ["B"]]
    people = [{s.seed for s in subjects(60, card["reader"]["seed"])} for card in cards.values()]
    assert len(set().union(*people)) == sum(map(len, people))
    for name, card in cards.items():
        assert card.pop("name") == name
        card.pop("title")
        for own in ("seed", "scanners"):
            card["reader"].pop(own)
        assert card == cards[CARD.stem]


def test_the_two_scanners_differ_in_grid_and_orientation_and_both_are_read_to_one(clean: tuple[Path, Rows]) -> None:
    import nibabel

    folder, rows = clean
    seen = {}
    for row in rows:
        stored = nibabel.load(folder / row["path"])
        seen[row["scanner"]] = ("".join(nibabel.aff2axcodes(stored.affine)), stored.get_data_dtype().name)
        decoded = CODEC.read((folder / row["path"]).read_bytes())
        extent = np.array(decoded.shape) * decoded.spacing
        assert extent == pytest.approx([CUBE] * 3, abs=1e-3)
        labels = CODEC.read((folder / REGIONS / row["path"]).read_bytes()).values
        assert labels.shape == decoded.values.shape
        assert set(np.unique(labels)) == set(range(len(STRUCTURES) + 1))
        found = np.argwhere(decoded.values[..., 0] > 0).mean(axis=0) * decoded.spacing
        assert np.abs(found - CUBE / 2).max() < 15  # slices, rows and columns are not swapped or flipped apart
    assert seen == {"A": ("RAS", "int16"), "B": ("LPS", "int16")}


@pytest.mark.parametrize("scanner", ["A", "B"])
def test_the_labels_fill_what_the_table_says(scanner: str) -> None:
    brain, pose, facts = brain_at(person("mci", 0.5, 1), 0)
    seen = scan(brain, pose, seen_by(scanner, 1.0), 64, np.random.default_rng(0))
    voxel = abs(np.linalg.det(seen.affine[:3, :3]))
    told = dict(zip(MEASURES, facts.volumes, strict=True))
    for number, name in enumerate(STRUCTURES, start=1):
        assert (seen.labels == number).sum() * voxel == pytest.approx(told[name], rel=0.1), name


@pytest.mark.parametrize(
    "factors", [(1.0, 0.9, 1.0, 1.0, 1.0), (0.88, 1.4, 0.86, 0.94, 0.94), (0.78, 1.8, 0.74, 0.9, 0.9)]
)
def test_a_deformation_reaches_its_volumes_and_folds_nothing(factors: tuple[float, ...]) -> None:
    still = smooth_noise(np.random.default_rng(0), 1.0)
    template = deform(np.ones(5), 0 * still).volumes
    made = deform(np.array(factors), still)
    assert made.jacobian > 0
    assert made.volumes[:5] / template[:5] == pytest.approx(factors, rel=0.06)


def test_what_no_smooth_deformation_gives_is_approached_without_folding() -> None:
    made = deform(np.array([0.3, 4.0, 0.3, 0.5, 0.5]), smooth_noise(np.random.default_rng(0), 3.0))
    assert made.jacobian > 0


def test_the_template_has_the_structures_volumes_that_were_measured_in_it() -> None:
    got = dict(zip(STRUCTURES, anatomy().masks.sum(axis=(1, 2, 3)) * 27, strict=True))
    wanted = {"hippocampus": 13508, "entorhinal": 4150, "fusiform": 28457, "middle_temporal": 36942}
    assert {name: got[name] for name in wanted} == pytest.approx(wanted, rel=1e-3)
    assert got["ventricles"] == pytest.approx(2 * 5959, rel=0.03)
    assert anatomy().brain.sum() * 27 == pytest.approx(1_887_000, rel=0.01)


def person(label: str, stage: float, number: int, age: int = 72) -> Subject:
    return Subject(number, label, "train", "A", "F", age, stage, (0, 24), 100 + number)


def test_disease_and_time_shrink_the_hippocampus_and_the_score_and_widen_the_ventricles() -> None:
    facts = {}
    for label, stage in (("nc", 0.0), ("ad", 1.0)):
        facts[label] = [brain_at(person(label, stage, n), 0)[2] for n in range(3)]
    for healthy, ill in zip(facts["nc"], facts["ad"], strict=True):
        was, now = (dict(zip(MEASURES, f.volumes, strict=True)) for f in (healthy, ill))
        assert now["hippocampus"] < was["hippocampus"]
        assert now["entorhinal"] < was["entorhinal"]
        assert now["ventricles"] > was["ventricles"]
        assert now["whole_brain"] < was["whole_brain"]
        assert ill.mmse < healthy.mmse
    first, later = (dict(zip(MEASURES, brain_at(person("mci", 0.3, 0), m)[2].volumes, strict=True)) for m in (0, 24))
    assert later["ventricles"] > first["ventricles"]
    assert later["hippocampus"] < first["hippocampus"]


def test_in_the_table_the_score_follows_the_hippocampus(clean: tuple[Path, Rows]) -> None:
    _, rows = clean
    volumes, scores = ([float(row[name]) for row in rows] for name in ("hippocampus", "mmse"))
    assert np.corrcoef(volumes, scores)[0, 1] > 0.3
    means = {c: np.mean([float(row["hippocampus"]) for row in rows if row["label"] == c]) for c in CLASSES}
    assert means["nc"] > means["ad"]


@pytest.mark.usefixtures("quick")
def test_the_share_of_missing_cells_is_the_one_asked_for_and_hits_facts_alone(tmp_path: Path) -> None:
    rows = table(tmp_path / "p", missing=0.15)
    empty = [(row["path"], column) for row in rows for column in COLUMNS if not row[column]]
    assert len(empty) == round(0.15 * len(rows) * len(FACTS))
    assert {column for _, column in empty} <= set(FACTS)


@pytest.mark.usefixtures("quick")
def test_copies_leaks_and_impossible_scores_are_there_to_be_found(tmp_path: Path) -> None:
    rows = table(tmp_path / "p", duplicates=2, leakage=1.0, impossible_scores=3)
    copies = [row for row in rows if row["subject"].startswith("copy")]
    tested = {digest(tmp_path / "p" / row["path"]): row["subject"] for row in rows if row["split"] == "test"}
    assert len(copies) == 2
    assert {row["split"] for row in copies} == {"train"}
    assert all(tested[digest(tmp_path / "p" / row["path"])] != row["subject"] for row in copies)
    assert sum(row["mmse"] == "45" for row in rows) == 3
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row["subject"], set()).add(row["split"])
    visits = Counter(row["subject"] for row in rows)
    leaked = [s for s, seen in splits.items() if len(seen) > 1]
    assert leaked
    assert all(splits[s] == {"train", "test"} and visits[s] == 2 for s in leaked)


@pytest.mark.usefixtures("quick")
def test_label_noise_spoils_training_subjects_alone_and_all_of_their_visits(tmp_path: Path) -> None:
    true = {f"sub-{s.number:04d}": s.label for s in subjects(PER_CLASS, 0)}
    rows = table(tmp_path / "p", label_noise=1.0)
    wrong = [row for row in rows if row["label"] != true[row["subject"]]]
    assert wrong
    assert {row["split"] for row in wrong} == {"train"}
    assert all(len({row["label"] for row in rows if row["subject"] == s}) == 1 for s in true)


@pytest.mark.usefixtures("quick")
def test_site_shift_sets_how_far_the_scanners_grey_values_are_apart(tmp_path: Path) -> None:
    apart = []
    for shift in (0.0, 1.0):
        rows = table(tmp_path / str(shift), site_shift=shift)
        means: dict[str, float] = {}
        for row in rows:
            values = CODEC.read((tmp_path / str(shift) / row["path"]).read_bytes()).values
            means[row["scanner"]] = float(values[values > 0].mean() / np.percentile(values[values > 0], 99))
        apart.append(abs(means["A"] - means["B"]))
    assert apart[0] < apart[1]


@pytest.mark.parametrize(
    ("option", "value"),
    [("subjects_per_class", 5), ("size", 8), ("missing", 1.5), ("label_noise", 1.5), ("leakage", -0.1)],
)
def test_an_option_outside_its_range_is_named_and_nothing_is_written(tmp_path: Path, option: str, value: float) -> None:
    with pytest.raises(BadParams, match=rf"reader\.{option}: must be between"):
        write_phantom(tmp_path / "p", **{option: value})
    assert not (tmp_path / "p").exists()


@pytest.mark.usefixtures("quick")
def test_more_copies_than_test_volumes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadParams, match=r"reader\.duplicates: 999 are asked for, but there are"):
        table(tmp_path / "p", duplicates=999)


def test_the_card_names_the_classes_the_columns_and_only_options_that_there_are() -> None:
    card = load_card(CARD)
    assert tuple(card.class_ids) == CLASSES
    assert set(card.metadata.columns()) <= set(COLUMNS)
    assert set(card.reader.options) == set(inspect.signature(write_phantom).parameters) - {"folder"}
    assert card.record is not None
    assert {measure.column for measure in card.record.measures} == set(MEASURES)
    assert "Copyright (C) 1993-2009 Louis Collins" in card.licence


@pytest.mark.usefixtures("quick")
def test_the_kind_draws_lists_and_is_drawn_anew_for_other_options(tmp_path: Path) -> None:
    card = load_card(CARD)
    layout = layout_of("phantom3d", "the card")
    assert layout.generator is not None
    few, other = (layout.options(**{"subjects_per_class": 6, "size": 32, "seed": seed}) for seed in (0, 1))
    layout.generator.make(tmp_path / "p", few)
    assert layout.generator.is_made(tmp_path / "p", few)
    assert not layout.generator.is_made(tmp_path / "p", other)
    listing = layout.read(tmp_path / "p", card, few)
    assert len(listing.records) == 24
    assert not listing.skipped
    with pytest.raises(BadParams, match=r"reader\.sede: the phantom has no such option; it has subjects_per_class"):
        layout.generator.make(tmp_path / "q", layout.options(sede=1))
    assert not (tmp_path / "q").exists()
