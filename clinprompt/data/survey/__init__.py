"""What a folder of images is taken for, before it has a card: `folders` looks at its tree, `tables` at its tables."""

from clinprompt.data.survey.base import Answers, Finding

__all__ = ["Answers", "Finding"]
