"""Prompt-tuned vision-language classifiers for medical images: data, backbones, methods, evaluation.

Importing the package switches the telemetry of the libraries below it off: patient data, and facts about it, stay
where they are. A variable that the user has set wins.
"""

import os

__version__ = "0.1.0"

_NO_TELEMETRY = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "1",
    "ITERATIVE_DO_NOT_TRACK": "1",
}
for _name, _value in _NO_TELEMETRY.items():
    os.environ.setdefault(_name, _value)
