"""Generate descriptions of each class by aspect, judge them, and sample again for classes with too few accepted."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from clinprompt.data.card import Card, ClassInfo
from clinprompt.knowledge.checks import judge
from clinprompt.knowledge.completion import Completion, Sampling, complete, seed_of
from clinprompt.knowledge.form import first_sentence, has_sentence
from clinprompt.knowledge.llm import Llm
from clinprompt.knowledge.prompts import Prompt, aspect_prompt, token_ids
from clinprompt.knowledge.statement import Assessment, Context, Statement
from clinprompt.params import KnowledgeParams
from clinprompt.progress import progress

ROUNDS = 4
TOP_P = 0.9


@dataclass(frozen=True)
class Description:
    """One sampled description.

    Attributes:
        index: its number among the samples of the prompt, over all rounds.
        raw: the opening and the model's completion. text: its first sentence, which is judged.
    """

    prompt: Prompt
    index: int
    round: int
    raw: str
    text: str
    verdict: Assessment


def sampling_of(params: KnowledgeParams) -> Sampling:
    """The sampling settings in the params."""
    return Sampling(params.temperature, TOP_P, params.max_new_tokens)


def describe(
    llm: Llm,
    card: Card,
    classes: Sequence[ClassInfo],
    params: KnowledgeParams,
    settled: Callable[[list[Description]], list[Description]] = list,
) -> list[Description]:
    """Generate and judge descriptions, in the order of rounds, classes, aspects and indices.

    A first round makes `descriptions_per_aspect` samples for every class and aspect. Classes with fewer than
    `min_accepted_per_class` accepted ones get up to three more rounds. A sample depends on the seed, its class, aspect
    and index, the model and the prompt, and not on which other samples are made.

    Args:
        settled: gives descriptions that were judged one by one their last verdicts; by default those that they have.

    Raises:
        BadParams: an aspect without a question.
    """
    context = Context.of(card)
    prompts = {info.id: [aspect_prompt(llm, card, info, aspect) for aspect in params.aspects] for info in classes}
    descriptions: list[Description] = []
    for number in range(ROUNDS):
        accepted = accepted_counts(settled(descriptions))
        incomplete = [info.id for info in classes if number == 0 or accepted[info.id] < params.min_accepted_per_class]
        samples = [
            (prompt, number * params.descriptions_per_aspect + k)
            for class_id in incomplete
            for prompt in prompts[class_id]
            for k in range(params.descriptions_per_aspect)
        ]
        label = "Describing the classes" if number == 0 else f"Describing again, round {number + 1}"
        completions = complete_samples(llm, samples, params, sampling_of(params), label, has_sentence)
        for (prompt, index), completion in zip(samples, completions, strict=True):
            descriptions.append(_judge(prompt, index, number, completion, context))
    return settled(descriptions)


def accepted_counts(descriptions: Sequence[Description]) -> Counter[str]:
    """The number of accepted descriptions by class id."""
    return Counter(description.prompt.class_id for description in descriptions if description.verdict.accepted)


def complete_samples(
    llm: Llm,
    samples: Sequence[tuple[Prompt, int]],
    params: KnowledgeParams,
    sampling: Sampling,
    label: str,
    enough: Callable[[str], bool],
) -> list[Completion]:
    """Complete prompts, each with its index among the samples of the prompt, in batches.

    Args:
        label: what the progress bar says.
        enough: stops a text early.
    """
    starts = range(0, len(samples), params.batch_size)
    completions: list[Completion] = []
    for start in progress(starts, label, unit="batch") if samples else ():
        batch = samples[start : start + params.batch_size]
        ids = [token_ids(llm, prompt.text) for prompt, _ in batch]
        seeds = [seed_of(params.seed, prompt.class_id, prompt.aspect, index) for prompt, index in batch]
        completions += complete(llm, ids, seeds, sampling, enough)
    return completions


def _judge(prompt: Prompt, index: int, number: int, completion: Completion, context: Context) -> Description:
    raw = prompt.opening + completion.text
    text, whole = first_sentence(raw, completion.ended)
    verdict = judge(Statement(prompt.class_id, prompt.question, text, whole), context)
    return Description(prompt, index, number, raw, text, verdict)
