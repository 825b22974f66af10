"""infra/compose.yaml: what an operator may rely on, read from the file as the engine resolves it."""

import importlib.util
import json
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from registry import keys

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "infra/compose.yaml"
DIGEST = "sha256:" + "0123456789abcdef" * 4
SECRETS = re.compile(r"PASSWORD|SECRET|FERNET|ACCESS_KEY|SESSION_KEY|^SIGNING_KEY")


def load_tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compose_env", ROOT / "infra/compose/env.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tool = load_tool()
ONE_SHOT = {"airflow-init", "s3-volume"}


def pinned(path: Path) -> dict[str, str]:
    """Write a complete env file, as `new` and `pin` would."""
    tool.create(path)
    text = path.read_text()
    for name in [*tool.third_party(), *tool.OWN_IMAGES]:
        text = text.replace(f"{name}=\n", f"{name}={DIGEST}\n")
    path.write_text(text)
    return dict(tool.read(path))


def resolve(node: Any, values: dict[str, str]) -> Any:
    """Fill in the ${…} of a parsed compose file, as the engine does."""
    if isinstance(node, dict):
        return {key: resolve(value, values) for key, value in node.items()}
    if isinstance(node, list):
        return [resolve(value, values) for value in node]
    if not isinstance(node, str):
        return node

    def value(match: re.Match[str]) -> str:
        name, rule, other = match.group(1), match.group(2), match.group(3)
        found = values.get(name, "")
        if rule == ":?":
            assert found, f"{name}: {other}"
        return found or (other if rule == ":-" else "")

    return re.sub(r"(?<!\$)\$\{(\w+)(?:(:\?|:-)([^}]*))?\}", value, node).replace("$$", "$")


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    path = tmp_path / ".env"
    pinned(path)
    return path


@pytest.fixture
def services(env_file: Path) -> dict[str, Any]:
    document = yaml.safe_load(COMPOSE.read_text())
    return dict(resolve(document["services"], tool.read(env_file)))


def test_the_whole_stack_is_there(services: dict[str, Any]) -> None:
    assert set(services) == {
        "postgres", "broker", "s3-volume", "s3-server", "s3", "mlflow", "proxy", "airflow-init", "airflow-api",
        "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer", "airflow-worker", "airflow-promoter",
    }  # fmt: skip
    assert services["proxy"]["profiles"] == ["tls"]


def test_every_image_is_pinned_by_its_digest(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert tool.REFERENCE.fullmatch(service["image"]) or re.fullmatch(rf"\S+:[\w.-]+@{DIGEST}", service["image"]), (
            name
        )
        assert "build" not in service, name


def test_no_image_can_run_without_its_digest() -> None:
    for line in re.findall(r"^\s*image: (.*)$", COMPOSE.read_text(), flags=re.MULTILINE):
        assert re.search(r"@\$\{\w+_DIGEST:\?|^\$\{\w+_IMAGE:\?", line), line


def test_every_service_is_confined(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert not service.get("privileged"), name
        assert not {"pid", "ipc", "devices"} & service.keys(), name
        if name != "s3-volume":
            assert "cap_add" not in service, name
            assert int(service["user"].split(":")[0]) > 0, name
        assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}, name
        assert service["restart"] == ("no" if name in ONE_SHOT else "unless-stopped"), name
        assert service["healthcheck"].get("test") or name in ONE_SHOT, name


def test_root_has_one_right_one_volume_and_no_network(services: dict[str, Any]) -> None:
    service = services["s3-volume"]
    assert service["cap_add"] == ["CHOWN"]
    assert service["network_mode"] == "none"
    assert service["volumes"] == ["s3:/data"]


def test_no_service_reaches_the_container_engine(services: dict[str, Any]) -> None:
    for name, service in services.items():
        for volume in service.get("volumes", []):
            assert ".sock" not in volume, name
            assert not volume.startswith("/"), f"{name} mounts a folder of the host: {volume}"
        assert "DOCKER_HOST" not in service.get("environment", {}), name


def test_the_compose_file_holds_no_secret() -> None:
    document = yaml.safe_load(COMPOSE.read_text())
    for name, service in document["services"].items():
        for key, value in service.get("environment", {}).items():
            if SECRETS.search(key):
                assert re.fullmatch(r"\$\{\w+:\?[^}]*\}", str(value)), f"{name}: {key}"


def test_the_worker_has_no_key_to_the_databases(services: dict[str, Any], env_file: Path) -> None:
    values = tool.read(env_file)
    text = str(services["airflow-worker"]["environment"])
    for name in ("POSTGRES_PASSWORD", "AIRFLOW_DB_PASSWORD", "MLFLOW_DB_PASSWORD", "MLFLOW_ADMIN_PASSWORD",
                 "AIRFLOW_FERNET_KEY", "AIRFLOW_JWT_SECRET", "AIRFLOW_SECRET_KEY", "MLFLOW_SECRET_KEY"):  # fmt: skip
        assert values[name] not in text, name
    assert values["STORE_SECRET_KEY"] in text


def holders(services: dict[str, Any], value: str) -> set[str]:
    """The services whose settings hold a value."""
    return {name for name, service in services.items() if value in str(service)}


def test_only_the_promoter_can_change_production_and_sign(services: dict[str, Any], env_file: Path) -> None:
    values = tool.read(env_file)
    worker, promoter = (services[name]["environment"] for name in ("airflow-worker", "airflow-promoter"))
    assert worker["MLFLOW_TRACKING_USERNAME"] != promoter["MLFLOW_TRACKING_USERNAME"]
    assert holders(services, values["SIGNING_KEY"]) == {"airflow-promoter"}
    assert holders(services, values["MLFLOW_PROMOTER_PASSWORD"]) == {"airflow-init", "airflow-promoter"}
    assert holders(services, values["MLFLOW_READER_PASSWORD"]) == {"airflow-init"}
    assert holders(services, values["PROMOTER_SECRET_KEY"]) == {"s3-server", "airflow-promoter"}
    assert holders(services, values["VERIFICATION_KEY"]) == {"airflow-worker", "airflow-promoter"}
    for name in ("MLFLOW_PASSWORD", "STORE_SECRET_KEY", "PATIENT_KEY", "AIRFLOW_DB_PASSWORD", "AIRFLOW_JWT_SECRET"):
        assert values[name] not in str(promoter), name
    assert promoter["CLINPROMPT_JOURNAL"] == "s3://registry/journal"
    assert "CLINPROMPT_JOURNAL" not in worker
    assert promoter["CLINPROMPT_SIGNING_KEY"].startswith("/tmp/")  # noqa: S108 # in memory


def test_the_promoter_takes_the_tasks_of_its_queue_and_the_worker_the_others(services: dict[str, Any]) -> None:
    queues = {name: services[name]["command"][-1] for name in ("airflow-worker", "airflow-promoter")}
    assert queues["airflow-worker"] == "default"
    for name in ("airflow-scheduler", "airflow-dag-processor"):
        assert services[name]["environment"]["CLINPROMPT_PROMOTION_QUEUE"] == queues["airflow-promoter"]


def test_the_workers_keys_are_files_that_the_registry_takes(
    env_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

    values, airflow = tool.read(env_file), tmp_path / "airflow"
    airflow.write_text('#!/bin/sh\necho "$@" "${SIGNING_KEY-none}"\n')
    airflow.chmod(0o755)
    script = (ROOT / "infra/compose/worker/start.sh").read_text().replace("/opt/airflow-venv/bin/airflow", str(airflow))
    files = {f"CLINPROMPT_{name}": str(tmp_path / name) for name in ("SIGNING_KEY", "VERIFICATION_KEY")}
    env = {"PATH": os.environ["PATH"], **{name: values[name] for name in ("SIGNING_KEY", "VERIFICATION_KEY")}}
    done = subprocess.run(
        ["sh", "-c", script, "start.sh", "promotion"], env=env | files, capture_output=True, text=True, check=True
    )
    assert done.stdout == "celery worker --skip-serve-logs --queues promotion none\n"
    private = load_pem_private_key((tmp_path / "SIGNING_KEY").read_bytes(), password=None)
    public = load_pem_public_key((tmp_path / "VERIFICATION_KEY").read_bytes())
    assert private.public_key() == public
    for name, path in files.items():
        monkeypatch.setenv(name, path)
    assert keys.for_signing() == keys.PrivateKey(tmp_path / "SIGNING_KEY")
    assert isinstance(keys.for_verification(), keys.PublicKey)
    assert stat.S_IMODE((tmp_path / "SIGNING_KEY").stat().st_mode) == 0o600


def test_each_identity_of_s3_opens_its_own_buckets(env_file: Path) -> None:
    script = (ROOT / "infra/compose/s3/start.sh").read_text()
    written = script[script.index("identity()") : script.index("rm -f")].replace('>"$state/s3.json"', "")
    env = {"PATH": os.environ["PATH"], **tool.read(env_file)}
    done = subprocess.run(["sh", "-euc", written], env=env, capture_output=True, text=True, check=True)
    opens = {
        identity["name"]: {action.partition(":")[2] for action in identity["actions"]}
        for identity in json.loads(done.stdout)["identities"]
    }
    assert opens == {"store": {"clinprompt"}, "promoter": {"clinprompt", "registry"}, "mlflow": {"mlflow"}}


def test_the_experiment_that_two_users_share_is_that_of_the_params(services: dict[str, Any]) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert services["airflow-init"]["environment"]["MLFLOW_EXPERIMENT"] == params["registry"]["experiment"]


def test_the_worker_alone_has_the_key_of_the_patients_ids(services: dict[str, Any], env_file: Path) -> None:
    key = tool.read(env_file)["PATIENT_KEY"]
    assert len(key) >= 32
    assert services["airflow-worker"]["environment"]["CLINPROMPT_PATIENT_KEY"] == key
    assert [name for name, service in services.items() if key in str(service)] == ["airflow-worker"]


def test_networks_let_each_service_reach_only_what_it_needs(services: dict[str, Any]) -> None:
    networks = yaml.safe_load(COMPOSE.read_text())["networks"]
    assert all(networks[name]["internal"] for name in ("database", "queue", "services"))
    assert services["airflow-worker"]["networks"] == ["queue", "services"]
    assert services["postgres"]["networks"] == ["database"]
    assert services["s3-server"]["network_mode"] == "none"
    published = {name for name, service in services.items() if "ports" in service}
    assert published == {"airflow-api", "mlflow", "proxy"}
    for name in published:
        for port in services[name]["ports"]:
            assert port.startswith("127.0.0.1:"), f"{name} listens for the world by default"


def test_volumes_and_files_that_services_mount_exist(services: dict[str, Any]) -> None:
    document = yaml.safe_load(COMPOSE.read_text())
    for name, service in services.items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source == "./compose/certs":  # the operator's
                continue
            known = (COMPOSE.parent / source).exists() if source.startswith(".") else source in document["volumes"]
            assert known, f"{name}: {volume}"


@pytest.mark.parametrize("extra", ["gpu", "egress"])
def test_the_additions_change_services_that_exist(services: dict[str, Any], extra: str) -> None:
    added = yaml.safe_load((ROOT / f"infra/compose/{extra}.yaml").read_text())["services"]
    assert added.keys() <= services.keys()


def test_the_example_names_every_variable_of_the_compose_file() -> None:
    used = set(re.findall(r"(?<!\$)\$\{(\w+)", COMPOSE.read_text()))
    assert used == set(tool.read(ROOT / "infra/compose/env.example"))


def test_a_new_env_file_is_private_strong_and_never_overwritten(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    tool.create(first)
    tool.create(second)
    assert stat.S_IMODE(first.stat().st_mode) == 0o600
    values = [tool.read(path)[name] for path in (first, second) for name in tool.secret_names()]
    assert len(set(values)) == len(values)
    assert all(len(value) >= 20 for value in values)
    with pytest.raises(tool.Refused, match="not overwritten"):
        tool.create(first)


def test_check_accepts_a_complete_file(env_file: Path) -> None:
    tool.check(env_file)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("POSTGRES_DIGEST", "17.6-bookworm", "run env.py pin"),
        ("WORKER_IMAGE", "clinprompt-worker:latest", "not a tag"),
        ("BROKER_PASSWORD", "changeme", "32 or more random"),
        ("AIRFLOW_FERNET_KEY", "abc", "32 random bytes"),
        ("MLFLOW_PASSWORD", "p@ss/" * 10, "letters and digits"),
        ("SIGNING_KEY", "abc", "a private key of the curve P-256"),
        ("SIGNING_KEY", "M" * 64, "env.py new --file OTHER"),  # of an earlier release, Ed25519
        ("VERIFICATION_KEY", "abc", "is not the public key of SIGNING_KEY"),
    ],
)
def test_check_refuses_what_is_weak_or_not_pinned(env_file: Path, name: str, value: str, says: str) -> None:
    env_file.write_text(re.sub(rf"^{name}=.*$", f"{name}={value}", env_file.read_text(), flags=re.MULTILINE))
    with pytest.raises(tool.Refused, match=f"^{name} .*{says}"):
        tool.check(env_file)


def test_check_refuses_a_file_that_others_can_read_and_names_unknown_settings(env_file: Path) -> None:
    env_file.write_text(env_file.read_text() + "POSTGRES_PASWORD=x\n")
    env_file.chmod(0o644)
    with pytest.raises(tool.Refused) as caught:
        tool.check(env_file)
    assert "can be read by others" in str(caught.value)
    assert "POSTGRES_PASWORD is no setting" in str(caught.value)


def test_pin_asks_the_engine_and_keeps_what_is_pinned(tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    engine.write_text(
        "#!/bin/sh\n"
        f'case "$*" in pull*) ;; *RepoDigests*) echo "name@{DIGEST}" ;; *Id*) echo "{DIGEST}" ;; *) exit 3 ;; esac\n'
    )
    engine.chmod(0o755)
    path = tmp_path / ".env"
    tool.create(path)
    kept = "registry.invalid/own@sha256:" + "f" * 64
    path.write_text(path.read_text().replace("AIRFLOW_IMAGE=\n", f"AIRFLOW_IMAGE={kept}\n"))
    tool.pin(path, str(engine))
    values = tool.read(path)
    assert values["POSTGRES_DIGEST"] == values["WORKER_IMAGE"] == DIGEST
    assert values["AIRFLOW_IMAGE"] == kept
    tool.check(path)


def test_pin_says_what_the_engine_said(tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    engine.write_text("#!/bin/sh\necho no such image >&2\nexit 1\n")
    engine.chmod(0o755)
    path = tmp_path / ".env"
    tool.create(path)
    with pytest.raises(tool.Refused, match="no such image"):
        tool.pin(path, str(engine))


def test_the_dockerfiles_share_one_base_and_one_build_of_mlflow_is_locked() -> None:
    bases = {
        name: re.findall(r"^ARG BASE=(.*)$", (ROOT / "infra" / name).read_text(), flags=re.MULTILINE)
        for name in ("Dockerfile", "airflow.Dockerfile", "mlflow.Dockerfile")
    }
    assert len({tuple(found) for found in bases.values()}) == 1, bases
    assert re.search(r"@sha256:[0-9a-f]{64}$", bases["Dockerfile"][0])
    locked = re.findall(r"^([\w-]+)==(\S+)", (ROOT / "requirements/images/mlflow.txt").read_text(), flags=re.MULTILINE)
    together = dict(
        re.findall(r"^([\w-]+)==(\S+)", (ROOT / "requirements/constraints.txt").read_text(), flags=re.MULTILINE)
    )
    assert {name: version for name, version in locked if together.get(name, version) != version} == {}


def test_the_engine_itself_accepts_the_file(env_file: Path) -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker with its compose plugin is not installed")
    done = subprocess.run(
        [docker, "compose", "--env-file", env_file, "-f", COMPOSE, "--profile", "tls", "config", "--quiet"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": str(env_file.parent)},
    )
    assert done.returncode == 0, done.stderr
