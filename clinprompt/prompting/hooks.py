"""Which members of a method no prediction uses. A module of its own: tools that read code need no torch for it."""

# The code in a served model goes without these members of `PromptMethod`, wherever a class has them.
TRAINING_HOOKS = frozenset(
    {
        "averaging",
        "descends",
        "export_head",
        "findings",
        "finish",
        "gradient_rule",
        "loss",
        "start",
        "trainable_parameters",
        "transfers",
    }
)
