"""The pipeline's stages: each folder is one command, one DVC stage and one Airflow task."""

import sys
from importlib.util import find_spec

# `.venv/bin/dvc` without its environment activated starts the stages, which say `python`, with another one.
if sys.argv[:1] == ["-m"] and find_spec("pyarrow") is None:
    sys.stderr.write(
        f"{sys.executable} is not the Python that clinprompt is installed for (it has no pyarrow): run "
        "`source .venv/bin/activate` and the same command again, or `make run`.\n"
    )
    sys.exit(64)
