"""infra/k8s: the overlays render, fit the schemas, and give the tasks' pods what the DAGs expect, and no more."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
K8S = ROOT / "infra/k8s"
OVERLAYS = ("gpu", "no-gpu")
SCHEMA = "1.33"
NO_DIGEST = "sha256:" + "0" * 64
Manifest = dict[str, Any]

# The chart's top-level parameters that the values use (parameters reference of chart 1.22.0), and those below them
# that are easily misspelled.
CHART = {
    "airflowVersion", "allowPodLaunching", "apiSecretKeySecretName", "apiServer", "config", "createUserJob",
    "dagProcessor", "dags", "data", "databaseCleanup", "env", "executor", "extraEnvFrom", "fernetKeySecretName",
    "flower", "gid", "imagePullSecrets", "images", "jwtSecretName", "logs", "migrateDatabaseJob", "networkPolicies",
    "pgbouncer", "postgresql", "redis", "scheduler", "securityContexts", "statsd", "triggerer", "uid", "workers",
}  # fmt: skip
CHART_CELERY = {
    "logGroomerSidecar", "persistence", "priorityClassName", "replicas", "resources", "safeToEvict",
    "terminationGracePeriodSeconds",
}  # fmt: skip


def render(overlay: str) -> list[Manifest]:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run(
        [kubectl, "kustomize", str(K8S / "overlays" / overlay)], capture_output=True, text=True, check=False
    )
    if "unknown field" in done.stderr:
        pytest.skip("this kubectl's kustomize is older than 4; kubectl 1.22 or newer is needed")
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


@pytest.fixture(scope="module", params=OVERLAYS)
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    return render(request.param)


def find(manifests: list[Manifest], kind: str, name: str, namespace: str | None = None) -> Manifest:
    found = [
        item
        for item in manifests
        if item["kind"] == kind
        and item["metadata"]["name"] == name
        and namespace in (None, item["metadata"].get("namespace"))
    ]
    assert len(found) == 1, f"{kind} {name}: {len(found)}"
    return found[0]


def test_every_manifest_fits_the_schema(manifests: list[Manifest]) -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    for manifest in manifests:
        validator.validate(manifest, SCHEMA, strict=True)


def test_the_secrets_example_fits_the_schema_and_holds_no_value() -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    for secret in yaml.safe_load_all((K8S / "secrets.example.yaml").read_text()):
        validator.validate(secret, SCHEMA, strict=True)
        for key, value in secret["stringData"].items():
            assert "PLACEHOLDER" in value or re.search("USERNAME|JOURNAL", key), key


def test_the_pods_secret_holds_the_key_of_the_patients_ids() -> None:
    secrets = {
        secret["metadata"]["name"]: secret["stringData"]
        for secret in yaml.safe_load_all((K8S / "secrets.example.yaml").read_text())
    }
    assert [name for name, values in secrets.items() if "CLINPROMPT_PATIENT_KEY" in values] == ["clinprompt"]


def test_only_the_promoters_secrets_change_production_and_sign() -> None:
    secrets = {
        secret["metadata"]["name"]: secret["stringData"]
        for secret in yaml.safe_load_all((K8S / "secrets.example.yaml").read_text())
    }
    users = {name: values.get("MLFLOW_TRACKING_USERNAME") for name, values in secrets.items()}
    users = {name: user for name, user in users.items() if user is not None}
    assert users.keys() == {"clinprompt", "clinprompt-promoter", "clinprompt-reader"}
    assert len(set(users.values())) == 3
    assert secrets["clinprompt-promoter"].keys() >= {"CLINPROMPT_JOURNAL", "AWS_SECRET_ACCESS_KEY"}
    assert "CLINPROMPT_JOURNAL" not in secrets["clinprompt"]
    assert [name for name, values in secrets.items() if "signing.pem" in values] == ["clinprompt-signing"]
    own = {item["name"]: item["value"] for item in yaml.safe_load((K8S / "airflow-values.yaml").read_text())["env"]}
    assert own["CLINPROMPT_SIGNING_VOLUME"] == "clinprompt-signing"
    assert own["CLINPROMPT_VERIFICATION_VOLUME"]


def test_secrets_are_never_part_of_what_is_applied(manifests: list[Manifest]) -> None:
    assert "Secret" not in {manifest["kind"] for manifest in manifests}


def test_a_pod_of_the_dags_finds_its_account_settings_and_weights(manifests: list[Manifest]) -> None:
    namespace = yaml.safe_load((ROOT / "params.yaml").read_text())["airflow"]["namespace"]
    account = find(manifests, "ServiceAccount", "clinprompt", namespace)
    assert account["automountServiceAccountToken"] is False
    settings = find(manifests, "ConfigMap", "clinprompt", namespace)["data"]
    assert settings.keys() >= {"CLINPROMPT_STORE", "AWS_ENDPOINT_URL", "MLFLOW_TRACKING_URI"}
    values = yaml.safe_load((K8S / "airflow-values.yaml").read_text())
    own = {item["name"]: item["value"] for item in values["env"]}
    assert own["CLINPROMPT_RUNNER"] == "kubernetes"
    find(manifests, "PersistentVolumeClaim", own["CLINPROMPT_WEIGHTS_VOLUME"], namespace)


def test_airflow_may_handle_pods_and_nothing_else(manifests: list[Manifest]) -> None:
    assert not {"ClusterRole", "ClusterRoleBinding"} & {manifest["kind"] for manifest in manifests}
    rules = find(manifests, "Role", "airflow-tasks", "clinprompt")["rules"]
    resources = {resource for rule in rules for resource in rule["resources"]}
    assert resources == {"pods", "pods/log", "pods/exec", "events"}
    assert all("*" not in rule["verbs"] for rule in rules)
    binding = find(manifests, "RoleBinding", "airflow-tasks", "clinprompt")
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": "airflow-worker", "namespace": "clinprompt-system"}
    ]


def test_the_tasks_namespace_is_closed(manifests: list[Manifest]) -> None:
    labels = find(manifests, "Namespace", "clinprompt")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    policy = find(manifests, "NetworkPolicy", "tasks", "clinprompt")["spec"]
    assert policy["podSelector"] == {}
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in policy
    for rule in policy["egress"]:
        assert rule["to"]
        assert rule["ports"]


def test_the_gpu_overlay_alone_lets_the_tasks_have_gpus() -> None:
    quotas = {name: find(render(name), "ResourceQuota", "tasks")["spec"]["hard"] for name in OVERLAYS}
    assert quotas["no-gpu"]["requests.nvidia.com/gpu"] == "0"
    assert int(quotas["gpu"]["requests.nvidia.com/gpu"]) > 0
    assert {k: v for k, v in quotas["gpu"].items() if "gpu" not in k} == {
        k: v for k, v in quotas["no-gpu"].items() if "gpu" not in k
    }


def test_mlflow_is_pinned_confined_and_answers_to_the_name_that_the_tasks_use(manifests: list[Manifest]) -> None:
    pod = find(manifests, "Deployment", "mlflow")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert re.fullmatch(r"\S+@sha256:[0-9a-f]{64}", container["image"])
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["resources"]["limits"]["memory"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["priorityClassName"] == find(manifests, "PriorityClass", "clinprompt-system")["metadata"]["name"]
    hosts = next(item["value"] for item in container["env"] if item["name"] == "MLFLOW_HOSTS").split(",")
    called = find(manifests, "ConfigMap", "clinprompt")["data"]["MLFLOW_TRACKING_URI"].removeprefix("http://")
    assert called in hosts
    probe = container["readinessProbe"]["httpGet"]["httpHeaders"]
    assert {header["name"]: header["value"] for header in probe}["Host"] in hosts


def test_the_examples_cannot_start_by_mistake(manifests: list[Manifest]) -> None:
    image = find(manifests, "Deployment", "mlflow")["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image.endswith(NO_DIGEST)
    values = yaml.safe_load((K8S / "airflow-values.yaml").read_text())
    assert values["images"]["airflow"]["digest"] == NO_DIGEST
    assert values["images"]["redis"]["tag"].endswith(NO_DIGEST)


def test_the_charts_values_are_keys_of_the_chart() -> None:
    values = yaml.safe_load((K8S / "airflow-values.yaml").read_text())
    assert values.keys() <= CHART
    assert values["workers"].keys() == {"celery"}
    assert values["workers"]["celery"].keys() <= CHART_CELERY


def test_the_charts_values_name_secrets_of_the_example_and_open_no_default_login() -> None:
    values = yaml.safe_load((K8S / "airflow-values.yaml").read_text())
    secrets = {
        secret["metadata"]["name"]: secret["stringData"]
        for secret in yaml.safe_load_all((K8S / "secrets.example.yaml").read_text())
    }
    assert "connection" in secrets[values["data"]["metadataSecretName"]]
    assert "connection" in secrets[values["data"]["brokerUrlSecretName"]]
    assert "password" in secrets[values["redis"]["passwordSecretName"]]
    for key, name in {
        "fernet-key": "fernetKeySecretName", "api-secret-key": "apiSecretKeySecretName", "jwt-secret": "jwtSecretName",
    }.items():  # fmt: skip
        assert key in secrets[values[name]]
    [source] = yaml.safe_load(values["extraEnvFrom"])
    assert source["secretRef"]["name"] in secrets
    assert values["createUserJob"]["enabled"] is False
    assert values["postgresql"]["enabled"] is False


def test_the_charts_values_give_every_part_of_airflow_a_limit() -> None:
    values = yaml.safe_load((K8S / "airflow-values.yaml").read_text())
    parts = [values[name] for name in ("apiServer", "scheduler", "dagProcessor", "triggerer", "redis")]
    for part in [*parts, values["workers"]["celery"], values["migrateDatabaseJob"]]:
        assert part["resources"]["limits"]["memory"]
        assert part["resources"]["requests"]["cpu"]
