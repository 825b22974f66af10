"""The dataset card, `datasets/<name>.yaml`: all that the pipeline knows of a dataset before it reads its files."""

from functools import cached_property
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, field_validator, model_validator

from clinprompt.data.columns import COLUMNS, FOLD, OF_DICOM
from clinprompt.data.names import composed, matching_key
from clinprompt.data.split_rule import SplitRule
from clinprompt.data.terms import KnowledgeSection
from clinprompt.knobs import Knobs
from clinprompt.schema import Name, Section, UserPath

Text = Annotated[str, Field(min_length=1)]
ColumnName = Annotated[Text, AfterValidator(composed)]  # of a dataset's own table
SLICED = ("site", "sex", "age_band")  # what every manifest can be sliced by


class ClassInfo(Section):
    """A class: its id (the label in every table and file name), its clinical name, and a phrase for prompts."""

    id: Name
    name: Text
    phrase: Text
    aliases: list[Text] = []


class LayoutChoice(Section):
    """The reader's kind; its options stand beside it and are checked by the reader itself."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    kind: Name

    @property
    def options(self) -> dict[str, Any]:
        """What stands beside `kind`."""
        return dict(self.model_extra or {})


class Metadata(Section):
    """The columns, in the dataset's own table, that hold facts about an image; null where there is none.

    Where the patient is unknown, images of one `study` are taken for those of one patient.
    `dicom` names the facts that the headers of DICOM files tell, where the dataset itself does not: the patient
    (PatientID), the study and the series (their instance UIDs), the site (Manufacturer), the sex, the age, and the
    pixel spacing.
    """

    patient: ColumnName | None = None
    study: ColumnName | None = None
    site: ColumnName | None = None
    sex: ColumnName | None = None
    age: ColumnName | None = None
    extra: list[ColumnName] = []
    dicom: list[Literal["patient", "study", "series", "site", "sex", "age", "pixel_spacing"]] = []

    @field_validator("extra")
    @classmethod
    def _new_names(cls, extra: list[str]) -> list[str]:
        for column in extra:
            if column in COLUMNS or extra.count(column) > 1:
                raise ValueError(f"{column!r} is a column of every manifest, or stands here twice")
            if column in OF_DICOM:
                raise ValueError(f"{column!r} is a column that is filled from DICOM headers; rename yours")
        return extra

    @property
    def tells_patients(self) -> bool:
        """Whether a column or the headers should name the patients."""
        return self.patient is not None or "patient" in self.dicom

    def columns(self) -> list[str]:
        """The names of all columns that are asked for."""
        return [c for c in (self.patient, self.study, self.site, self.sex, self.age, *self.extra) if c is not None]


class DicomRules(Section):
    """What is taken in of DICOM files that hold more than one picture, or text in it.

    `frames` says which frame of several is the picture; `each` makes an image of each, and `one` refuses such files.
    `burned_in` says whether files are kept that say that text is burned into their pixels.
    """

    frames: Literal["one", "first", "middle", "each"] = "one"
    burned_in: Literal["refuse", "keep"] = "refuse"


class Measure(Section):
    """A number in a subject's record: its column among `metadata.extra`, its name in reports, its unit, its range."""

    column: ColumnName
    name: Text
    unit: str = ""
    low: float | None = None
    high: float | None = None


class Record(Section):
    """What reports of a subject are written from, and the score that a method may learn to predict.

    `reference` is the class of healthy subjects, whose training images tell what is normal at an age.
    """

    measures: list[Measure] = Field(min_length=1)
    score: Measure | None = None
    reference: Name | None = None

    def all_measures(self) -> list[Measure]:
        """The measures, and the score where there is one."""
        return [*self.measures, *([self.score] if self.score else [])]


class Expectation(Section):
    """A Great Expectations expectation on the manifest, beyond the ones that every dataset must meet."""

    type: Annotated[str, Field(pattern=r"^Expect[A-Z]\w*$")]
    severity: Literal["critical", "warning"] = "critical"
    kwargs: dict[str, Any] = {}


class Overrides(Section):
    """Methods' knobs that a protocol sets."""

    methods: Knobs = {}


class Card(Section):
    """A whole card. The order of `classes` is the order of class indices everywhere.

    `novel_classes` are further ones, of which no candidate is shown an image before it is tested: they are no classes
    of the model, and what trains, calibrates, measures and serves it sees `classes` alone.

    `path` is where the files lie below the data root (an absolute path, or one from ~, is taken as it is); by default
    the name.
    `intensity` says how images of more than 8 bits become 8-bit ones: see `clinprompt.data.codecs.decode`.
    `dicom` says what is taken in of DICOM files of several frames or with text in the pixels.
    `patient_ids` says whether the patients' ids are secret, and get names that only the key's owner can make; ids that
    are public anyway are hashed without a key, the same on every machine.
    `record` says which of the `extra` columns are numbers of the subject's record.
    `regions` is a folder beside the images with labels under the same paths, above 0 where the classes show.
    `slices` names columns, of the metadata's or `extra` ones, to slice by beside those of params.yaml.
    `knowledge` tells words that descriptions of its classes may hold, and a file of reviewed ones.
    `methods` are knobs that this dataset sets instead of params.yaml, `base_to_novel` further ones in that protocol.
    """

    name: Name
    title: Text
    modality: Text
    organ: Text
    classes: list[ClassInfo] = Field(min_length=2)
    novel_classes: list[ClassInfo] = []
    licence: Text
    source: Text
    how_to_get: Text
    path: UserPath = ""
    reader: LayoutChoice
    split: SplitRule = SplitRule()
    metadata: Metadata = Metadata()
    dicom: DicomRules = DicomRules()
    record: Record | None = None
    regions: Name | None = None
    slices: list[Text] = []
    intensity: Literal["auto", "full"] | Annotated[list[float], Field(min_length=2, max_length=2)] = "auto"
    on_leak: Literal["fail", "drop_from_train"] = "fail"
    patient_ids: Literal["secret", "public"] = "secret"
    expectations: list[Expectation] = []
    knowledge: KnowledgeSection = KnowledgeSection()
    methods: Knobs = {}
    base_to_novel: Overrides = Overrides()

    @field_validator("path")
    @classmethod
    def _stays_below_root(cls, path: str) -> str:
        if ".." in PurePosixPath(path).parts:
            raise ValueError(f"must not hold '..', found {path!r}")
        return path

    @field_validator("intensity")
    @classmethod
    def _ascending(cls, intensity: str | list[float]) -> str | list[float]:
        if isinstance(intensity, list) and not intensity[0] < intensity[1]:
            raise ValueError(f"[low, high] must ascend, found {intensity}")
        return intensity

    @field_validator("novel_classes")
    @classmethod
    def _can_be_told_apart(cls, novel: list[ClassInfo]) -> list[ClassInfo]:
        if len(novel) == 1:
            raise ValueError(
                f"{novel[0].id!r} is the only one, and of a single name every answer is right; list two or more, or "
                "none"
            )
        return novel

    @model_validator(mode="after")
    def _fold_is_a_column_of_ours(self) -> "Card":
        if self.split.folds is not None and FOLD in self.metadata.extra:
            raise ValueError(f"metadata.extra: {FOLD!r} is the column that split.folds makes; rename yours")
        return self

    @model_validator(mode="after")
    def _slices_are_columns(self) -> "Card":
        known = [*SLICED, *self.metadata.extra]
        for column in self.slices:
            if column not in known:
                raise ValueError(f"slices: {column!r} is none of {', '.join(known)}; list it under metadata.extra")
        return self

    @model_validator(mode="after")
    def _record_is_known(self) -> "Card":
        if self.record is None:
            return self
        for measure in self.record.all_measures():
            if measure.column not in self.metadata.extra:
                raise ValueError(f"record: {measure.column!r} is no column under metadata.extra")
        if self.record.reference is not None and self.record.reference not in self.class_ids:
            raise ValueError(f"record.reference: {self.record.reference!r} is no class")
        return self

    @model_validator(mode="after")
    def _terms_are_of_classes(self) -> "Card":
        for name in self.knowledge.terms.classes:
            if name not in self.named_ids:
                raise ValueError(
                    f"knowledge.terms.classes: {name!r} is no class; there are {', '.join(self.named_ids)}"
                )
        return self

    @model_validator(mode="after")
    def _no_word_means_two_classes(self) -> "Card":
        owner: dict[str, str] = {}
        for info in self.named:
            for word in {matching_key(name) for name in (info.id, *info.aliases)}:
                if word in owner:
                    raise ValueError(f"classes: {word!r} stands for both {owner[word]!r} and {info.id!r}")
                owner[word] = info.id
        return self

    def knobs(self, method: str, protocol: str | None = None) -> dict[str, dict[str, Any]]:
        """What the card sets of a method's knobs, by the key at which it stands; the later wins."""
        by_key = {"methods": self.methods}
        if protocol == "base_to_novel":
            by_key["base_to_novel.methods"] = self.base_to_novel.methods
        return {f"{key}.{method}": knobs[method] for key, knobs in by_key.items() if method in knobs}

    @property
    def class_ids(self) -> list[str]:
        """The classes' ids in the card's order."""
        return [info.id for info in self.classes]

    @property
    def novel_ids(self) -> list[str]:
        """The novel classes' ids in the card's order."""
        return [info.id for info in self.novel_classes]

    @property
    def named(self) -> list[ClassInfo]:
        """All classes that the card tells of, the novel ones last."""
        return [*self.classes, *self.novel_classes]

    @property
    def named_ids(self) -> list[str]:
        """Their ids."""
        return [info.id for info in self.named]

    @property
    def score(self) -> Measure | None:
        """The score of a subject's record that methods may learn to estimate."""
        return None if self.record is None else self.record.score

    @property
    def location(self) -> str:
        """Where the files lie below the data root, or an absolute path."""
        return self.path or self.name

    def class_of(self, value: str) -> str | None:
        """The id of the class that a folder's name or a label's value stands for: its id or an alias, in any case."""
        return self._class_of_word.get(matching_key(value))

    @cached_property
    def _class_of_word(self) -> dict[str, str]:
        return {matching_key(name): info.id for info in self.named for name in (info.id, *info.aliases)}
