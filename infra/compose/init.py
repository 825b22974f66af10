"""Prepare an empty or older stack: Airflow's tables, its first user, the pools, and the pipeline's MLflow user.

Runs once at each start, as the service airflow-init, and changes nothing that is already there. Everything that it
needs is in its environment.
"""

import base64
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from typing import NoReturn


def main() -> None:
    """Do each step; the first that fails ends it with its own message."""
    airflow("db", "migrate")
    airflow("users", "create", "--role", "Admin", "--username", "admin", "--password", os.environ["ADMIN_PASSWORD"],
            "--email", "admin@localhost", "--firstname", "Admin", "--lastname", "Admin")  # fmt: skip
    airflow("pools", "set", "gpu", os.environ["GPU_SLOTS"], "Stages that use a GPU, or much of the machine")
    airflow("pools", "set", "promotion", "1", "One change of the champion at a time")
    create_mlflow_user(os.environ["MLFLOW_TRACKING_URI"], os.environ["MLFLOW_USER"], os.environ["MLFLOW_PASSWORD"])


def airflow(*arguments: str) -> None:
    """Run Airflow's command line."""
    done = subprocess.run(["airflow", *arguments], check=False)
    if done.returncode != 0:
        stop(f"airflow {arguments[0]} {arguments[1]} failed; its message is above.")


def stop(message: str) -> NoReturn:
    """End with a sentence and the code of a server that does not work (clinprompt/contract/exit_codes.py)."""
    sys.stderr.write(f"{message}\n")
    sys.exit(69)


def create_mlflow_user(server: str, name: str, password: str) -> None:
    """Create the user that the pipeline logs and promotes as: not an administrator, and owner of what it creates."""
    login = base64.b64encode(f"admin:{os.environ['MLFLOW_ADMIN_PASSWORD']}".encode()).decode()
    request = urllib.request.Request(  # noqa: S310
        f"{server}/api/2.0/mlflow/users/create",
        data=json.dumps({"username": name, "password": password}).encode(),
        headers={"Content-Type": "application/json", "Authorization": f"Basic {login}"},
    )
    try:
        urllib.request.urlopen(request, timeout=30).close()  # noqa: S310
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        if "RESOURCE_ALREADY_EXISTS" not in text:
            stop(f"MLflow did not create the user {name}: {error.code} {text[:300]}")
    except urllib.error.URLError as error:
        stop(f"MLflow at {server} does not answer: {error.reason}")


if __name__ == "__main__":
    main()
