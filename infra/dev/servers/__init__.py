"""Real servers for tests and for trying things out: Postgres, Redis, S3, MLflow and Airflow on 127.0.0.1."""

from infra.dev.servers.parts import PARTS, missing
from infra.dev.servers.rest import Airflow, RestError
from infra.dev.servers.stack import Stack

__all__ = ["PARTS", "Airflow", "RestError", "Stack", "missing"]
