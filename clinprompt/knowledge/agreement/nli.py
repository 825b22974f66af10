"""Natural-language inference: whether two sentences contradict each other, by a model that was trained to tell.

Any sequence-classification model in transformers' format whose labels hold "contradiction", as those trained on SNLI
(Bowman et al., EMNLP 2015) or MultiNLI (Williams et al., NAACL 2018) have.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from clinprompt.backbones.folder import TOKENIZER_FILES
from clinprompt.backbones.hub import fetched
from clinprompt.errors import BadParams, InputCorrupt, InputMissing
from clinprompt.files import sha256_folder
from clinprompt.knowledge.llm import need_tokenizer
from clinprompt.knowledge_params import NliParams

_KEY = "params.yaml: knowledge.checks.nli: "
_KEY = "params.yaml: knowledge.checks.nli: "
_LABEL = "contradiction"
_BATCH = 32
_LONGEST = 256  # tokens of both sentences


@dataclass(frozen=True, eq=False)
class Nli:
    """A model that is loaded.

    Attributes:
        revision: the hub's commit, or "local".
        digest: SHA-256 of its folder.
    """

    name: str
    revision: str
    digest: str
    _model: Any
    _tokenizer: Any
    _label: int
    _known: dict[tuple[str, str], bool] = field(default_factory=dict)

    def contradictions(self, texts: Mapping[int, str]) -> dict[int, frozenset[int]]:
        """Of each text, by its number, the numbers of those that it contradicts.

        Two texts contradict each other where the model says so of both orders: which is the premise is chance. All
        pairs are asked, which is N (N - 1) for N texts; a pair is asked once in the life of this object.
        """
        unique = sorted(set(texts.values()))
        self._ask(pair for both in combinations(unique, 2) for pair in (both, both[::-1]))
        opposite: dict[int, set[int]] = {number: set() for number in texts}
        for first, second in combinations(texts, 2):
            pair = texts[first], texts[second]
            if pair[0] != pair[1] and self._known[pair] and self._known[pair[::-1]]:
                opposite[first].add(second)
                opposite[second].add(first)
        return {number: frozenset(others) for number, others in opposite.items()}

    def _ask(self, pairs: Iterable[tuple[str, str]]) -> None:
        import torch

        # Pairs of like length share a batch.
        asked = sorted((pair for pair in pairs if pair not in self._known), key=lambda p: (len(p[0]) + len(p[1]), p))
        for start in range(0, len(asked), _BATCH):
            batch = asked[start : start + _BATCH]
            first, second = [pair[0] for pair in batch], [pair[1] for pair in batch]
            tokens = self._tokenizer(
                first, second, padding=True, truncation="longest_first", max_length=_LONGEST, return_tensors="pt"
            )
            with torch.no_grad():
                says = self._model(**tokens).logits.argmax(-1) == self._label
            self._known.update(zip(batch, says.tolist(), strict=True))


def load_nli(params: NliParams) -> Nli:
    """The model that the params name.

    Raises:
        BadParams: none of its labels is "contradiction".
        InputMissing, ServiceDown: the folder is not there, or the hub does not give the model.
        InputCorrupt: its digest is not the pinned one, or it holds no such model.
    """
    if params.path is not None:
        return nli_of(Path(params.path), params.sha256, _KEY)
    name, revision = str(params.hub), str(params.revision)
    folder = fetched("the NLI model", name, revision, ("config.json", "model.safetensors", *TOKENIZER_FILES))
    return nli_of(folder, None, _KEY, (name, revision))


def nli_of(folder: Path, sha256: str | None = None, key: str = "", source: tuple[str, str] | None = None) -> Nli:
    """The model in a folder; `key` begins the messages, and `source` is its name and revision where it is the hub's.

    Raises:
        BadParams, InputMissing, InputCorrupt: as `load_nli`.
    """
    name, revision = source or (folder.name, "local")
    if not (folder / "config.json").is_file():
        raise InputMissing(f"{key}{folder} holds no config.json; it must be a model's folder.")
    digest = sha256_folder(folder)
    if sha256 is not None and digest != sha256:
        raise InputCorrupt(
            f"{key}{folder} has the SHA-256 {digest}, but sha256 is {sha256}; get the model again, or write down the "
            "new digest if the change is meant."
        )
    need_tokenizer(folder, key)
    model, tokenizer = _loaded(folder, key)
    labels = [str(model.config.id2label[i]) for i in range(model.config.num_labels)]
    found = [i for i, label in enumerate(labels) if label.strip().casefold() == _LABEL]
    if len(found) != 1:
        raise BadParams(
            f"{key}{folder} tells no contradictions: its labels are {', '.join(labels)}, and one must be {_LABEL!r}; "
            "name a model of natural-language inference, or none."
        )
    return Nli(name, revision, digest, model, tokenizer, found[0])


def _loaded(folder: Path, key: str) -> tuple[Any, Any]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging as notes

    level, bars = notes.get_verbosity(), notes.is_progress_bar_enabled()
    notes.set_verbosity_error()
    notes.disable_progress_bar()
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        model, info = AutoModelForSequenceClassification.from_pretrained(
            folder, use_safetensors=True, output_loading_info=True, **options
        )
    except Exception as error:  # whatever the libraries raise of damaged files: `tokenizers` raises Exception itself
        raise InputCorrupt(
            f"{key}{folder} can't be read as a model of sequence classification ({' '.join(str(error).split())})."
        ) from None
    finally:
        notes.set_verbosity(level)
        if bars:
            notes.enable_progress_bar()
    missing: Sequence[str] = sorted(info["missing_keys"])
    if missing:
        raise InputCorrupt(f"{key}{folder} lacks the weights {', '.join(missing)}.")
    return model.eval().requires_grad_(False), tokenizer
