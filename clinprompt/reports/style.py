"""How reports are written: knobs of a method that reads them. Served models carry this file, and none of the others."""

from typing import Literal

from pydantic import model_validator

from clinprompt.schema import Fraction, Section


class ReportStyle(Section):
    """The knobs.

    `caption` is what a report tells: the class and the measures ("full"), the class alone ("label"), or the measures
    alone ("measures"). `phrasings` is the one published sentence; or that and others with units, age and sex
    ("varied"), or that and those which a language model has made of their frame ("paraphrased"), of which each epoch
    draws one for each image. `label_dropout` is how often a full report leaves the
    class out. `z_scores` puts behind each value how far it lies from what is normal, in standard deviations;
    `adjust_for` names the column of a measure, the size of the whole brain, say, that the normal values of the others
    depend on beside age and sex. The published sentence holds no z-scores.
    """

    caption: Literal["full", "label", "measures"] = "full"
    phrasings: Literal["published", "varied", "paraphrased"] = "published"
    label_dropout: Fraction = 0.0
    z_scores: bool = False
    adjust_for: str | None = None

    @model_validator(mode="after")
    def _where_scores_stand(self) -> "ReportStyle":
        if self.z_scores and self.phrasings == "published":
            raise ValueError("z_scores: the published sentence holds none; set phrasings: varied")
        if self.caption == "label" and self.phrasings == "paraphrased":
            raise ValueError("phrasings: paraphrases tell of measures, and caption: label of none; set another")
        return self
