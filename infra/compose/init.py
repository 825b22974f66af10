"""Prepare an empty or older stack: Airflow's tables, its first user, the pools, and MLflow's users and their rights.

Runs once at each start, as the service airflow-init, and changes nothing that is already there. Everything that it
needs is in its environment. With the argument `mlflow` it sees to MLflow alone, and needs nothing but Python.
"""

import base64
import json
import os
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, NoReturn

TRAINING, PROMOTER, READER = "clinprompt", "clinprompt-promoter", "clinprompt-reader"


def main(only_mlflow: bool) -> None:
    """Do each step; the first that fails ends it with its own message."""
    if not only_mlflow:
        prepare_airflow()
    mlflow = Mlflow(os.environ["MLFLOW_TRACKING_URI"], os.environ["MLFLOW_ADMIN_PASSWORD"])
    passwords = {TRAINING: "MLFLOW_PASSWORD", PROMOTER: "MLFLOW_PROMOTER_PASSWORD", READER: "MLFLOW_READER_PASSWORD"}
    for user, variable in passwords.items():
        mlflow.create_user(user, os.environ[variable])
    mlflow.share_experiment(os.environ["MLFLOW_EXPERIMENT"], TRAINING, PROMOTER)


def prepare_airflow() -> None:
    """Make the tables, the first user and the pools."""
    airflow("db", "migrate")
    airflow("users", "create", "--role", "Admin", "--username", "admin", "--password", os.environ["ADMIN_PASSWORD"],
            "--email", "admin@localhost", "--firstname", "Admin", "--lastname", "Admin")  # fmt: skip
    airflow("pools", "set", "gpu", os.environ["GPU_SLOTS"], "Stages that use a GPU, or much of the machine")
    airflow("pools", "set", "promotion", "1", "One change of the champion at a time")


def airflow(*arguments: str) -> None:
    """Run Airflow's command line."""
    done = subprocess.run(["airflow", *arguments], check=False)
    if done.returncode != 0:
        stop(f"airflow {arguments[0]} {arguments[1]} failed; its message is above.")


def stop(message: str) -> NoReturn:
    """End with a sentence and the code of a server that does not work (clinprompt/contract/exit_codes.py)."""
    sys.stderr.write(f"{message}\n")
    sys.exit(69)


class Mlflow:
    """An MLflow server with logins, as its administrator sees it.

    Everybody may read everything, and who creates a registered model alone may change it. So the candidates' runs,
    which two users write, need an experiment that both may write to; the models are the promoter's, which creates them.
    """

    def __init__(self, server: str, password: str) -> None:
        self.server = server
        self._login = base64.b64encode(f"admin:{password}".encode()).decode()

    def create_user(self, name: str, password: str) -> None:
        """Create a user who is no administrator; one who is there keeps the password."""
        self._call("2.0/mlflow/users/create", {"username": name, "password": password})

    def share_experiment(self, name: str, *users: str) -> None:
        """Create an experiment, where there is none, and let the users write to it."""
        self._call("2.0/mlflow/experiments/create", {"name": name})
        found = self._call(f"2.0/mlflow/experiments/get-by-name?experiment_name={urllib.parse.quote(name)}")
        experiment = str(found["experiment"]["experiment_id"])
        for user in users:
            granted = {"username": user, "resource_type": "experiment", "resource_id": experiment, "permission": "EDIT"}
            self._call("3.0/mlflow/users/permissions/grant", granted)

    def _call(self, path: str, content: dict[str, str] | None = None) -> Any:
        """The server's answer; that what was to be created is there is no fault."""
        request = urllib.request.Request(  # noqa: S310
            f"{self.server}/api/{path}",
            data=None if content is None else json.dumps(content).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Basic {self._login}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            if "RESOURCE_ALREADY_EXISTS" in text:
                return {}
            stop(f"MLflow refused {path.partition('?')[0]}: {error.code} {text[:300]}")
        except urllib.error.URLError as error:
            stop(f"MLflow at {self.server} does not answer: {error.reason}")


if __name__ == "__main__":
    main(sys.argv[1:] == ["mlflow"])
