"""Generate descriptions of each class by aspect, judge them, and sample again for classes with too few accepted."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from clinprompt.data.card import Card, ClassInfo
from clinprompt.knowledge.asking import Writer, complete_samples
from clinprompt.knowledge.aspects import aspects_of
from clinprompt.knowledge.checks import judge
from clinprompt.knowledge.completion import Completion, Sampling
from clinprompt.knowledge.description import Description, Origin, Prompt
from clinprompt.knowledge.form import first_sentence, has_sentence
from clinprompt.knowledge.prompts import aspect_prompts
from clinprompt.knowledge.samples import Samples
from clinprompt.knowledge.statement import Context, Statement
from clinprompt.knowledge.subject import Subject
from clinprompt.knowledge_params import KnowledgeParams

ROUNDS = 4
TOP_P = 0.9


def sampling_of(params: KnowledgeParams) -> Sampling:
    """The sampling settings in the params."""
    return Sampling(params.temperature, TOP_P, params.max_new_tokens)


def describe(
    writer: Writer,
    card: Card,
    classes: Sequence[ClassInfo],
    params: KnowledgeParams,
    kept: Samples | None = None,
    settled: Callable[[list[Description]], list[Description]] = list,
) -> list[Description]:
    """Generate and judge descriptions, in the order of rounds, classes, aspects and indices.

    A first round makes as many samples for every class and aspect as `aspects` says. Classes with fewer than
    `min_accepted_per_class` accepted ones get up to three more rounds. A sample depends on the seed, its class, aspect
    and index, the model and the prompt, and not on which other classes there are, but for aspects about siblings.

    Args:
        kept: finished samples, which are not made again.
        settled: gives descriptions that were judged one by one their last verdicts; by default those that they have.

    Raises:
        BadParams: an aspect without a template, or a name of the card that no prompt may hold.
        ServiceDown: the endpoint does not answer.
    """
    context, counts, known = Context.of(card), params.samples_of, aspects_of(params)
    subjects = [Subject.of(card, info) for info in classes]
    prompts = {
        subject.class_id: aspect_prompts(writer, subject, _siblings(subject, subjects, card), counts, known)
        for subject in subjects
    }
    descriptions: list[Description] = []
    for number in range(ROUNDS):
        accepted = accepted_counts(settled(descriptions))
        incomplete = [info.id for info in classes if number == 0 or accepted[info.id] < params.min_accepted_per_class]
        samples = [
            (prompt, number * count + k)
            for class_id in incomplete
            for prompt in prompts[class_id]
            for count in (counts[prompt.aspect.partition(":")[0]],)
            for k in range(count)
        ]
        label = "Describing the classes" if number == 0 else f"Describing again, round {number + 1}"
        completions = complete_samples(writer, samples, params, sampling_of(params), label, has_sentence, kept)
        for (prompt, index), completion in zip(samples, completions, strict=True):
            descriptions.append(_judge(prompt, index, number, completion, context, origin_of(writer, completion)))
    return settled(descriptions)


def origin_of(writer: Writer, completion: Completion) -> Origin:
    """Where a text comes from, as its writer and, behind an endpoint, its answer say."""
    return writer.origin if completion.revision is None else replace(writer.origin, revision=completion.revision)


def accepted_counts(descriptions: Sequence[Description]) -> Counter[str]:
    """The number of accepted descriptions by class id."""
    return Counter(description.prompt.class_id for description in descriptions if description.verdict.accepted)


def _siblings(subject: Subject, subjects: Sequence[Subject], card: Card) -> list[Subject]:
    """The other classes that it competes with: what is learned of a class must not hold the names of novel ones."""
    novel = set(card.novel_ids)
    own = subject.class_id in novel
    return [other for other in subjects if other != subject and (other.class_id in novel) == own]


def _judge(
    prompt: Prompt, index: int, number: int, completion: Completion, context: Context, origin: Origin
) -> Description:
    raw = prompt.opening + completion.text
    text, whole = first_sentence(raw, completion.ended)
    verdict = judge(Statement(prompt.class_id, prompt.question, text, whole), context)
    return Description(prompt, index, number, raw, text, verdict, origin)
