"""The section `knowledge` of `params.yaml`: who writes descriptions, and how they are checked."""

from ipaddress import ip_address
from string import Formatter
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from clinprompt.contract.variables import ENDPOINT_KEY
from clinprompt.schema import Count, Fraction, Name, Section, UserPath


def _endpoint_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        named = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        named = False
    if not named:
        raise ValueError("must be a URL like https://host/v1, below which chat/completions lies")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ValueError(f"must hold no user, password or query; a key is given in the variable {ENDPOINT_KEY}")
    return url


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _no_hub_name(value: Any) -> Any:
    if isinstance(value, str) and "/" in value:
        raise ValueError(
            f"{value[:100]!r} is a name of the hub, and would be another model tomorrow; pin it: give it an entry with "
            "its revision (a commit's 40 digits) in clinprompt/knowledge/table.yaml, or set path to its folder"
        )
    return value


LlmName = Annotated[Name, BeforeValidator(_no_hub_name)]


# What a template may hold of a dataset: nothing of a patient is among it.
PLACEHOLDERS = ("modality", "organ", "name", "phrase", "sibling")


def _template(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be one line, without characters that can't be seen")
    try:
        parts = list(Formatter().parse(text))
    except ValueError:
        parts = [("{", None, None, None)]
    if any("{" in literal or "}" in literal for literal, *_ in parts):
        raise ValueError("holds a brace that is not of a placeholder")
    for _, field, form, conversion in parts:
        if field is not None and (field not in PLACEHOLDERS or form or conversion):
            known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
            raise ValueError(f"{{{field}}} is no placeholder; there are {known}, as they stand here")
    return text


def _one_sentence(text: str) -> str:
    if text != text.strip():
        raise ValueError("begins or ends with a space")
    return text


def _words(text: str) -> str:
    if not text:
        raise ValueError("has no words")
    return text


def _frame(text: str) -> str:
    if text and not text.endswith(" "):
        raise ValueError("must end with a space, as the question follows it")
    if "{sibling}" in text:
        raise ValueError("{sibling} has no place in what stands before every question")
    return text


Template = Annotated[str, Field(max_length=1_000), AfterValidator(_template)]
Frame = Annotated[Template, AfterValidator(_frame)]
AspectName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]  # it stands in tables, before ":" and a sibling


class Aspect(Section):
    """A question about a class, and the words with which its answer must begin; with `of_each_sibling` it is asked once
    for each other class."""

    ask: Annotated[Template, AfterValidator(_one_sentence), AfterValidator(_words)]
    begin: Annotated[Template, AfterValidator(_one_sentence)]
    of_each_sibling: bool = False

    @model_validator(mode="after")
    def _siblings_are_asked_for(self) -> "Aspect":
        if ("{sibling}" in self.ask + self.begin) != self.of_each_sibling:
            raise ValueError("{sibling} stands in what is asked of_each_sibling, and nowhere else")
        return self


class TemplatesParams(Section):
    """Words of one's own, which add to those of clinprompt/knowledge/aspects.yaml or replace them, key by key."""

    frame: Frame | None = None
    features: Aspect | None = None
    aspects: dict[AspectName, Aspect] = {}

    @property
    def own(self) -> dict[str, Any]:
        """What is set."""
        return self.model_dump(exclude_unset=True)


class EndpointParams(Section):
    """An OpenAI-compatible endpoint. Its key, where it needs one, is in the variable CLINPROMPT_ENDPOINT_KEY.

    `url` is the address below which chat/completions lies, https but for this machine, or for a host in a network of
    your own with `plain_http`. `timeout_seconds` bounds a whole request, `token_budget` what a run may cost.
    """

    url: Annotated[str, AfterValidator(_endpoint_url)]
    model: Annotated[str, Field(min_length=1, max_length=200)]
    concurrency: Annotated[int, Field(ge=1, le=64)] = 4
    timeout_seconds: Annotated[int, Field(ge=1, le=3_600)] = 60
    attempts: Annotated[int, Field(ge=1, le=20)] = 6
    token_budget: Annotated[int, Field(ge=1)] | None = None
    plain_http: bool = False

    @model_validator(mode="after")
    def _is_encrypted(self) -> "EndpointParams":
        parts = urlsplit(self.url)
        if parts.scheme == "http" and not self.plain_http and not _is_here(parts.hostname or ""):
            raise ValueError(
                "url: must begin with https://; plain_http: true allows http to a host of your own network"
            )
        return self


class JudgeParams(Section):
    """The language model that judges descriptions: as `knowledge.llm` and `path`, or as `knowledge.endpoint`.

    The endpoint's key, where it needs one, is in the variable CLINPROMPT_JUDGE_KEY.
    """

    llm: LlmName | None = None
    path: UserPath | None = None
    endpoint: EndpointParams | None = None

    @model_validator(mode="after")
    def _one_model(self) -> "JudgeParams":
        if (self.llm is None) == (self.endpoint is None):
            raise ValueError("needs exactly one of llm and endpoint")
        if self.path is not None and self.llm is None:
            raise ValueError("path: needs llm, the name under which the model of that folder is recorded")
        return self


class NliParams(Section):
    """A model of natural-language inference.

    It is the folder `path`, whose SHA-256 is `sha256`; or `hub`, a repository of the Hugging Face hub, at the commit
    `revision`.
    """

    path: UserPath | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    hub: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")] | None = None
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None

    @model_validator(mode="after")
    def _one_place(self) -> "NliParams":
        of_folder, of_hub = (self.path, self.sha256), (self.hub, self.revision)
        if (None in of_folder or of_hub != (None, None)) and (None in of_hub or of_folder != (None, None)):
            raise ValueError("needs path and sha256, or hub and revision")
        return self


class ChecksParams(Section):
    """How the descriptions of a class are checked beside each other.

    `encoder` is an entry of clinprompt/knowledge/agreement/encoders.yaml, or null; `min_support` how many samples must
    assert what one asserts; `max_rejected_rise` how much the share of rejected ones may be above the card's
    `knowledge.rejected_share`; `nli` a model that tells contradictions instead of the rules, or null; `judge` a second
    language model that is asked of each sentence, or null.
    """

    encoder: Name | None
    min_support: Annotated[int, Field(ge=1, le=1_000_000)]
    max_rejected_rise: Fraction
    nli: NliParams | None = None
    judge: JudgeParams | None = None


class KnowledgeParams(Section):
    """How class descriptions and paraphrases of reports are generated, and how many must be accepted.

    `llm: null` names no language model, for cards that bring reviewed descriptions. An `endpoint` is asked in place of
    `llm` for descriptions and paraphrases; hidden states are of `llm` always, and of `states_of`: its own answers, or
    the accepted descriptions, which it reads. `aspects` may tell for each how many samples are made of it, instead of
    `descriptions_per_aspect`; `templates` has words of one's own for what is asked. `device`, `precision` and
    `quantization` are of every language model that runs here, the judge too.
    """

    llm: LlmName | None
    path: UserPath | None
    endpoint: EndpointParams | None
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    aspects: Annotated[list[str], Field(min_length=1)] | Annotated[dict[str, Count], Field(min_length=1)]
    templates: TemplatesParams = TemplatesParams()
    descriptions_per_aspect: Count
    min_accepted_per_class: Annotated[int, Field(ge=0, le=1_000_000)]
    paraphrases_per_opening: Count
    min_accepted_paraphrases: Annotated[int, Field(ge=1, le=1_000_000)]
    max_new_tokens: Count
    answer_tokens: Count
    hidden_states: Literal["answer_end_all_layers", "question_end_all_layers", "answer_last_layer"]
    states_of: Literal["answers", "descriptions"] = "answers"
    temperature: Annotated[float, Field(ge=0)]
    batch_size: Annotated[int, Field(ge=1, le=65_536)]
    device: Literal["auto", "cpu", "cuda", "all_gpus"]
    precision: Literal["float32", "bfloat16"]
    quantization: Literal["8bit", "4bit"] | None
    checks: ChecksParams

    @model_validator(mode="after")
    def _descriptions_have_states(self) -> "KnowledgeParams":
        if self.states_of == "descriptions" and self.hidden_states == "question_end_all_layers":
            raise ValueError(
                "states_of: descriptions change no state of the question's end; set hidden_states to "
                "answer_end_all_layers or answer_last_layer"
            )
        return self

    @property
    def samples_of(self) -> dict[str, int]:
        """How many samples a round makes of each aspect."""
        if isinstance(self.aspects, dict):
            return self.aspects
        return dict.fromkeys(self.aspects, self.descriptions_per_aspect)
