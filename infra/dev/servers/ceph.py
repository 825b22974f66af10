"""An S3 server with real signatures and real conditional writes: Ceph's RADOS gateway over one in-memory store.

Three processes: `s3-mon` and `s3-osd` hold the data in memory, `s3` is the gateway. Stopping `s3` is "S3 is down"; the
objects are still there when it comes back. Ceph's manager is left out: nothing here asks it.
"""

import json
import uuid
from pathlib import Path
from typing import Any

from clinprompt.errors import ServiceDown
from infra.dev.servers.config import Config
from infra.dev.servers.databases import binary
from infra.dev.servers.processes import environment, run
from infra.dev.servers.web import RestError, request

BUCKETS = {"store": "clinprompt", "mlflow": "mlflow"}  # user: bucket

_CONF = """\
[global]
fsid = {fsid}
mon initial members = a
mon host = [v1:127.0.0.1:{mon}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
ms bind msgr2 = false
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail crit = 1
run dir = {folder}/run
log file = {folder}/log/$name.log
admin socket =
[mon.a]
mon data = {folder}/mon
mon addr = 127.0.0.1:{mon}
[osd.0]
osd data = {folder}/osd
osd objectstore = memstore
osd fast shutdown = false
memstore device bytes = 2147483648
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw data = {folder}/rgw
rgw run sync thread = false
"""


def prepare_mon(config: Config) -> None:
    """Write the configuration and make the monitor's folder."""
    folder, log = _folder(config), config.folder / "logs" / "s3-prepare.log"
    if (folder / "ceph.conf").exists():
        return
    for name in ("mon", "osd", "rgw", "run", "log"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    fsid, ports = str(uuid.uuid4()), config.ports
    (folder / "ceph.conf").write_text(_CONF.format(fsid=fsid, folder=folder, mon=ports["s3-mon"], port=ports["s3"]))
    monmap = str(folder / "monmap")
    address = f"[v1:127.0.0.1:{ports['s3-mon']}]"
    run([binary("monmaptool"), "--create", "--addv", "a", address, "--fsid", fsid, monmap], environment(), log)
    run([*_daemon(config, "mon"), "--mkfs", "--monmap", monmap], environment(), log)


def mon_command(config: Config) -> list[str]:
    """The command of the monitor."""
    return [*_daemon(config, "mon"), "-f"]


def mon_ready(config: Config, since: float) -> bool:
    """Whether the monitor is in office; before, it refuses what it is asked."""
    return _answers(config, "quorum_status") is not None


def osd_ready(config: Config, since: float) -> bool:
    """Whether the monitor has seen the store."""
    status = _answers(config, "osd", "stat")
    return status is not None and status["num_up_osds"] == 1


def _answers(config: Config, *question: str) -> dict[str, Any] | None:
    try:
        answer = run(_ceph(config, *question, "--format", "json"), environment(), config.folder / "logs" / "s3-ask.log")
    except ServiceDown:
        return None
    document: dict[str, Any] = json.loads(answer)
    return document


def _ceph(config: Config, *command: str) -> list[str]:
    return [binary("ceph"), "-c", str(_folder(config) / "ceph.conf"), "--connect-timeout", "20", *command]


def prepare_osd(config: Config) -> None:
    """Make the store's folder and tell the monitor of it; the store asks the running monitor for its map."""
    folder, log = _folder(config), config.folder / "logs" / "s3-prepare.log"
    fsid = folder / "osd" / "fsid"
    if not fsid.exists():
        # Without a name of ours it calls itself by zeros, which the monitor does not always take.
        run([*_daemon(config, "osd"), "--mkfs", "--osd-uuid", str(uuid.uuid4())], environment(), log)
    for last in (False, False, True):  # a client that asks before it has the monitor's map is refused
        try:
            run(_ceph(config, "osd", "new", fsid.read_text().strip()), environment(), log)
            return
        except ServiceDown:
            if last:
                raise


def osd_command(config: Config) -> list[str]:
    """The command of the store."""
    return [*_daemon(config, "osd"), "-f"]


def prepare_gateway(config: Config) -> None:
    """Make the two users, each with keys of its own."""
    folder, log = _folder(config), config.folder / "logs" / "s3-prepare.log"
    admin = [binary("radosgw-admin"), "-c", str(folder / "ceph.conf"), "-n", "client.rgw"]
    users = json.loads(run([*admin, "user", "list"], environment(), log))
    for user in BUCKETS:
        if user not in users:
            keys = [f"--access-key={config.secrets[f's3-{user}-id']}", f"--secret-key={config.secrets[f's3-{user}']}"]
            run([*admin, "user", "create", f"--uid={user}", f"--display-name={user}", *keys], environment(), log)


def gateway_command(config: Config) -> list[str]:
    """The command of the gateway."""
    return [binary("radosgw"), "-c", str(_folder(config) / "ceph.conf"), "-n", "client.rgw", "-f"]


def gateway_ready(config: Config, since: float) -> bool:
    """Whether the gateway answers."""
    try:
        request("GET", config.url("s3"), timeout=2)
    except RestError:
        return True  # a refusal is an answer
    except ServiceDown:
        return False
    return True


def make_buckets(config: Config) -> None:
    """Make each user's bucket."""
    import boto3  # type: ignore[import-untyped,unused-ignore]

    for user, bucket in BUCKETS.items():
        keys = config.s3(user)
        client = boto3.client(
            "s3",
            endpoint_url=keys["AWS_ENDPOINT_URL"],
            aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
            region_name=keys["AWS_DEFAULT_REGION"],
        )
        client.create_bucket(Bucket=bucket)


def _folder(config: Config) -> Path:
    return config.folder / "s3"


def _daemon(config: Config, kind: str) -> list[str]:
    name = {"mon": "a", "osd": "0"}[kind]
    return [binary(f"ceph-{kind}"), "-c", str(_folder(config) / "ceph.conf"), "-i", name]
