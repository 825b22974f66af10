"""Zero-shot: the class features are those of one sentence per class; nothing is trained."""

from typing import ClassVar

import torch
import torch.nn.functional as F

from clinprompt.methods import register
from clinprompt.prompting.base import FeatureMethod, Head, Task
from clinprompt.prompting.class_prompts import class_prompt_ids
from clinprompt.prompting.teacher import Template
from clinprompt.schema import Section


class ZeroShotConfig(Section):
    """`template` holds {} where the class's name goes; the default is CLIP's own (Radford et al. 2021, 3.1.4)."""

    template: Template = "a photo of a {}."


@register("zero_shot")
class ZeroShot(FeatureMethod):
    """CLIP's zero-shot classifier (Radford et al. 2021, section 3.1) with one template."""

    Config: ClassVar[type[Section]] = ZeroShotConfig
    config: ZeroShotConfig

    def __init__(self, task: Task, config: ZeroShotConfig) -> None:
        super().__init__(task, config)
        tower = task.backbone.text
        prompts = [config.template.replace("{}", name) for name in task.class_names]
        ids = class_prompt_ids(task.backbone, prompts, task.class_names, "params.yaml: methods.zero_shot")
        with torch.no_grad():
            self._head = Head(F.normalize(tower.encode_ids(ids.to(tower.device)), dim=-1), task.backbone.logit_scale)

    def head(self) -> Head:
        """The normalised text features of the classes, times the backbone's logit scale."""
        return self._head
