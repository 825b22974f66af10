"""A description with where it comes from: the one record for what a language model or a clinician says of a class."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from clinprompt.files import sha256_bytes

if TYPE_CHECKING:
    from clinprompt.knowledge.statement import Assessment  # no rule of the checks is behind a sample's key

Provider = Literal["local", "endpoint", "reviewed"]


@dataclass(frozen=True)
class Prompt:
    """A question about a class, the answer's given opening, and the text that the model completes.

    Of a sentence that nobody was asked for, all but the class and the aspect are "".
    """

    class_id: str
    aspect: str
    question: str = ""
    opening: str = ""
    text: str = ""

    @property
    def digest(self) -> str | None:
        """SHA-256 of the text that the model completes; None where there was no prompt."""
        return sha256_bytes(self.text.encode()) if self.text else None


@dataclass(frozen=True)
class Origin:
    """Who says a text.

    Attributes:
        provider: a language model that runs here, one behind an endpoint, or a file of reviewed sentences.
        name: the model's, or the file's.
        revision: the package or commit of the model; the host and what it says of its model; "" of a file.
        digest: SHA-256 of the model's weights, of the endpoint's address and model's name, or of the file.
    """

    provider: Provider
    name: str
    revision: str
    digest: str


@dataclass(frozen=True)
class Description:
    """One sampled or written description.

    Attributes:
        index: its number among the samples of the prompt, over all rounds; or the row in the file.
        raw: the opening and the model's completion. text: its first sentence, which is judged; of a file, both are the
            whole cell.
        author, written: who wrote a sentence of a file (a role or a source) and when (ISO 8601); "" where none is said.
        override: the check that a person has overruled, and the reason; "" where none was.
    """

    prompt: Prompt
    index: int
    round: int
    raw: str
    text: str
    verdict: "Assessment"
    origin: Origin
    author: str = ""
    written: str = ""
    override: str = ""
