"""Which members of a method no prediction uses. A module of its own: tools that read code need no torch for it."""

# The code in a served model goes without these members of `PromptMethod` and of the classes that inherit from it.
NOT_SERVED = frozenset(
    {
        "averaging",
        "bent_rows",
        "class_axes",
        "descends",
        "export_head",
        "findings",
        "finish",
        "gradient_rule",
        "loss",
        "own_tower",
        "reordered",
        "start",
        "trainable_parameters",
        "trained_count",
        "transfers",
    }
)
