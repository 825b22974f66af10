"""Ask for texts: of a language model that runs here, in batches, or of an endpoint; finished ones are kept."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

from clinprompt.files import sha256_bytes, to_json
from clinprompt.knowledge.completion import Completion, Sampling, seed_of
from clinprompt.knowledge.description import Prompt
from clinprompt.knowledge.endpoint.service import Endpoint
from clinprompt.knowledge.llm import Llm
from clinprompt.knowledge.prompts import token_ids
from clinprompt.knowledge.samples import Samples, key_of
from clinprompt.knowledge_params import KnowledgeParams
from clinprompt.progress import progress
from clinprompt.sources import closure, digest

Writer = Llm | Endpoint
Sample = tuple[Prompt, int]  # a prompt, and which of its samples

_ROOT = Path(__file__).parents[2]
_STOPS = ("form.py", "paraphrase.py")  # where it is decided that a text is long enough


def complete_samples(
    writer: Writer,
    samples: Sequence[Sample],
    params: KnowledgeParams,
    sampling: Sampling,
    label: str,
    enough: Callable[[str], bool],
    kept: Samples | None = None,
) -> list[Completion]:
    """Complete prompts, each with its index among the samples of the prompt; those that are kept are not made again.

    A model that runs here completes batches that hold one class each: which classes there are decides no bit of a text.

    Args:
        label: what the progress bar says.
        enough: stops a text early.

    Raises:
        ServiceDown, BadParams: the endpoint does not answer, or refuses; what it has answered is kept.
    """
    kept = kept or Samples()
    seeds = [seed_of(params.seed, prompt.class_id, prompt.aspect, index) for prompt, index in samples]
    texts = [prompt.text for prompt, _ in samples]
    if isinstance(writer, Endpoint):
        return writer.complete(texts, seeds, sampling, label, kept)
    completions: dict[int, Completion] = {}
    batches = _batches(samples, params)
    for batch in progress(batches, label, unit="batch") if batches else ():
        texts_made = complete_batch(
            writer, [texts[i] for i in batch], [seeds[i] for i in batch], sampling, enough, kept
        )
        completions |= zip(batch, texts_made, strict=True)
    return [completions[i] for i in range(len(samples))]


def complete_batch(
    llm: Llm,
    texts: Sequence[str],
    seeds: Sequence[int],
    sampling: Sampling,
    enough: Callable[[str], bool],
    kept: Samples,
) -> list[Completion]:
    """Complete one batch. It is kept as a whole: its neighbours may decide a text's ties."""
    key = key_of({**_identity(llm), "sampling": asdict(sampling), "batch": [list(texts), list(seeds)]})
    found = kept.find(key, len(texts))
    if found is None:
        from clinprompt.knowledge.decoding import complete  # torch takes a second: only where something is asked

        found = complete(llm, [token_ids(llm, text) for text in texts], seeds, sampling, enough)
        kept.keep(key, found)
    return found


def _batches(samples: Sequence[Sample], params: KnowledgeParams) -> list[list[int]]:
    """The samples' positions, in batches of one class, and where they are about a sibling, of that sibling.

    An aspect that params.yaml has words for has batches of its own, behind the others: other words for it make no
    other sample anew.
    """

    def subject(position: int) -> tuple[str, str, str]:
        prompt = samples[position][0]
        aspect, _, sibling = prompt.aspect.partition(":")
        return aspect if aspect in params.templates.aspects else "", prompt.class_id, sibling

    batches = []
    order = sorted(range(len(samples)), key=lambda position: subject(position)[0])
    for _, group in groupby(order, key=subject):
        of_class = list(group)
        batches += [of_class[start : start + params.batch_size] for start in range(0, len(of_class), params.batch_size)]
    return batches


def _identity(llm: Llm) -> dict[str, Any]:
    """What decides a text beside the prompt, the seed and the sampling, on one machine."""
    return {
        "model": llm.digest,
        "dtype": str(llm.model.dtype),
        "device": llm.device.type,
        "quantization": llm.compute.quantization,
        "code": _code(),
        "libraries": {name: version(name) for name in ("torch", "transformers", "tokenizers")},
    }


@cache
def _code() -> str:
    """Digest of the code that samples, and of that which stops it."""
    files = closure(["clinprompt.knowledge.decoding"], _ROOT)
    files |= {name: Path(__file__).with_name(name) for name in _STOPS}
    return sha256_bytes(to_json({name: digest(file) for name, file in files.items()}).encode())
