"""What is said of a server, or of the store behind it, that does not answer or does not want to."""

from collections.abc import Callable

import boto3.exceptions
import botocore.exceptions
import pytest
import requests
import urllib3
from mlflow.exceptions import MlflowException, RestException

from clinprompt.errors import BadParams, ClinpromptError, InputMissing, ServiceDown
from registry.tracking import service_errors, shown_uri


def answered(status: int) -> requests.HTTPError:
    """The error that requests makes of a status."""
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError(f"{status} from http://me:secret@server/file", response=response)


def s3(status: int) -> botocore.exceptions.ClientError:
    """The error that botocore makes of a status."""
    return botocore.exceptions.ClientError({"ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject")


def wrapped(outer: Exception, inner: Exception) -> Exception:
    """An error that was raised while another was handled."""
    outer.__context__ = inner
    return outer


ERRORS: dict[str, tuple[Callable[[], Exception], type[ClinpromptError]]] = {
    "refused": (lambda: requests.ConnectionError("refused"), ServiceDown),
    "slow": (lambda: requests.ReadTimeout("slow"), ServiceDown),
    "reset": (lambda: ConnectionResetError("reset"), ServiceDown),
    "broken off": (lambda: urllib3.exceptions.ProtocolError("broken off"), ServiceDown),
    "busy": (lambda: answered(503), ServiceDown),
    "no right": (lambda: answered(403), BadParams),
    "no file": (lambda: answered(404), InputMissing),
    "mlflow, refused": (lambda: wrapped(MlflowException("failed"), requests.ConnectionError("refused")), ServiceDown),
    "mlflow, busy": (lambda: MlflowException("request failed with error code 502 != 200."), ServiceDown),
    "mlflow, host": (lambda: MlflowException("request failed with error code 403 != 200."), BadParams),
    "mlflow, later": (lambda: RestException({"error_code": "TEMPORARILY_UNAVAILABLE", "message": "m"}), ServiceDown),
    "mlflow, no right": (lambda: RestException({"error_code": "PERMISSION_DENIED", "message": "m"}), BadParams),
    "s3, away": (lambda: botocore.exceptions.EndpointConnectionError(endpoint_url="http://s3"), ServiceDown),
    "s3, slow": (lambda: botocore.exceptions.ReadTimeoutError(endpoint_url="http://s3"), ServiceDown),
    "s3, busy": (lambda: s3(503), ServiceDown),
    "s3, no right": (lambda: s3(403), BadParams),
    "s3, upload, busy": (lambda: wrapped(boto3.exceptions.S3UploadFailedError("failed"), s3(500)), ServiceDown),
    "s3, upload, no right": (lambda: wrapped(boto3.exceptions.S3UploadFailedError("failed"), s3(403)), BadParams),
}


@pytest.mark.parametrize("what", sorted(ERRORS))
def test_an_error_becomes_one_that_says_whether_to_try_again(what: str) -> None:
    make, expected = ERRORS[what]
    with pytest.raises(expected) as caught, service_errors():
        raise make()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("error", [MlflowException("a bug"), PermissionError("no"), KeyError("x")])
def test_what_is_no_matter_of_the_server_stays_as_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, service_errors():
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    "uri",
    [
        "http://me:hush@server:5000",
        "postgresql://me:hu/sh@db/mlflow",
        "postgresql+psycopg://me:hush@@db/mlflow?sslmode=require",
        "postgresql://db/mlflow?user=me&password=hush&sslmode=require",
        "mysql://me:h:u@s/h@db/mlflow",
    ],
)
def test_an_address_is_shown_without_its_password(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert not [part for part in ("hush", "hu/sh", "s/h", "me:", "=me") if part in shown_uri()]
    assert "server" in shown_uri() or "db/mlflow" in shown_uri()
