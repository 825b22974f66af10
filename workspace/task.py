"""What a scheduler tells a task, and what a task answers: `CLINPROMPT_TASK` in, one line of JSON out."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import AwareDatetime, Field

from clinprompt.contract.candidates import CandidateId
from clinprompt.contract.tasks import PartitionKey, unpack
from clinprompt.contract.variables import TASK
from clinprompt.errors import BadParams
from clinprompt.schema import Section, check

T = TypeVar("T", bound=Section)


class LockEntry(Section):
    """A stage's `dvc.lock` entry without what dvc.yaml and params.yaml tell anyway: its command and its params.

    `deps` and `outs` map a path to [md5, size in bytes] or, for a folder, [md5, size, number of files].
    """

    stage: str
    deps: dict[str, list[str | int]]
    outs: dict[str, list[str | int]]


class Candidate(Section):
    """One candidate of params.yaml, with one of the seeds."""

    candidate: str
    seed: int
    taught: bool = False  # reads what the stage describe makes

    @property
    def id(self) -> CandidateId:
        """As it stands in folders and stages."""
        return CandidateId(self.candidate, self.seed)


class Plan(Section):
    """What a run is made of, settled once: every task of the run gets the same."""

    dataset: str
    release: str
    digest: str  # md5 of the release, as DVC gives it
    size: int
    files: int | None
    code: str  # SHA-256 over the code, the cards and params.yaml
    images: str | None  # the text of infra/images.lock; None: that of the project
    overrides: dict[str, Any]
    candidates: list[Candidate]
    decisions: str | None = None  # SHA-256 of the table of people's decisions; None: the card's own file has them all
    locks: dict[str, str] = {}  # the text of the files that the stage `lock` writes, by path
    previous: str | None  # the record that unchanged stages are taken from
    promote: bool
    approval: bool

    @property
    def partition(self) -> str:
        """The key that makes the run one of its kind."""
        return str(PartitionKey(self.dataset, self.release))


class PlanTask(Section):
    """What `plan` is asked."""

    dataset: str
    release: str | None = None
    methods: list[str] | None = None
    seeds: list[int] | None = None
    overrides: dict[str, Any] = {}
    promote: str = "auto"
    images: str | None = None
    airflow: dict[str, Any] = {}


class StageTask(Section):
    """What `probe` and `stage` are asked. `entries` are those of the stage's direct upstream stages."""

    plan: Plan
    stage: str
    candidate: Candidate | None = None
    entries: list[LockEntry] = []
    airflow: dict[str, Any] = {}

    @property
    def address(self) -> str:
        """The stage's name in DVC, as `tune@brain-phantom-coop-1`."""
        parts = [self.plan.dataset]
        if self.candidate is not None:
            parts.append(str(self.candidate.id))
        return f"{self.stage}@{'-'.join(parts)}"


class RecordTask(Section):
    """What `record` is asked: all entries of the run."""

    plan: Plan
    entries: list[LockEntry]
    airflow: dict[str, Any] = {}


class SweepTask(Section):
    """What `sweep` is asked: the releases that have no record; of all datasets when none is named."""

    dataset: str | None = None
    releases: str | list[str] = "latest"
    airflow: dict[str, Any] = {}


class PromotionTask(Section):
    """What `promotion` is asked: the recorded run of a release, the newest when none is named."""

    dataset: str
    release: str | None = None
    images: str | None = None
    airflow: dict[str, Any] = {}


class UnaskedTask(Section):
    """What `unasked` is asked: whether people are to be asked about descriptions, by the entry of `describe`."""

    plan: Plan
    entries: list[LockEntry]
    airflow: dict[str, Any] = {}


class ReviewTask(Section):
    """What `review` is asked: the recorded run of a release, the newest when none is named; or announced descriptions.

    `descriptions` is their md5, of a run that may have no record.
    """

    dataset: str
    release: str | None = None
    descriptions: Annotated[str | None, Field(pattern="^[0-9a-f]{32}$")] = None
    airflow: dict[str, Any] = {}


class Answered(Section):
    """A person's decision on one description, as a row of a table of decisions."""

    class_id: Annotated[str, Field(alias="class")]
    digest: str
    decision: Literal["accepted", "rejected"]
    by: str
    reason: str
    text: str


class AnsweredTask(Section):
    """What `decide` is asked: to keep what a person has answered, and when."""

    dataset: str
    answered: Annotated[AwareDatetime, Field(strict=False)]
    decisions: list[Answered]
    airflow: dict[str, Any] = {}


def read_task(model: type[T], text: str | None) -> T:
    """Unpack a task.

    Raises:
        BadParams: the variable is missing, is no packed JSON, or holds a wrong key.
    """
    if not text:
        raise BadParams(f"{TASK} is not set; this command is meant for a scheduler, see dags/.")
    try:
        value = unpack(text)
    except ValueError as error:
        raise BadParams(f"{TASK}: {error}.") from None
    return check(model, value, TASK)
