"""What the DAG files share. Of the pipeline, only its contract is imported: tasks run in the components' environment.

The project's root goes on the path, last, so that `clinprompt.contract` is found wherever Airflow finds the DAGs.
"""

import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]

if str(PROJECT) not in sys.path:
    sys.path.append(str(PROJECT))
