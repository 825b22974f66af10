"""The chain of checks that accepts or rejects a description: each one scores it, and the score must lie within bounds.

To add a check, write a function from a statement and its context to a number (None where it can't judge), and add it to
its family: `form`, `mentions`, `fit` or `claims`.
"""

from collections.abc import Sequence

from clinprompt.knowledge.claims import CLAIMS
from clinprompt.knowledge.fit import FIT, SUBJECT_OF_TEXT
from clinprompt.knowledge.form import DUPLICATE, FORM, first_sentence, has_sentence
from clinprompt.knowledge.mentions import MENTIONS, NAMED
from clinprompt.knowledge.statement import Assessment, Context, DescriptionCheck, Statement
from clinprompt.knowledge.word_sets import WordSets

__all__ = [
    "CHECKS",
    "Assessment",
    "Context",
    "DescriptionCheck",
    "Statement",
    "first_sentence",
    "has_sentence",
    "judge",
]

# The first that fails gives the reason.
CHECKS: tuple[DescriptionCheck, ...] = (*FORM, MENTIONS, *FIT, *CLAIMS, SUBJECT_OF_TEXT, NAMED, DUPLICATE)


def judge(statement: Statement, context: Context, checks: Sequence[DescriptionCheck] | None = None) -> Assessment:
    """Score a statement by every check, by default those of descriptions, and remember it in the context when it is
    accepted."""
    checks = CHECKS if checks is None else checks
    scores = {check.name: check.score(statement, context) for check in checks}
    reason = next((check.name for check in checks if not check.passes(scores[check.name])), None)
    if reason is None:
        context.accepted.setdefault(statement.class_id, WordSets()).add(statement.compared)
    return Assessment(reason is None, reason, scores)
