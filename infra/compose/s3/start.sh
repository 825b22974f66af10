#!/bin/sh
# Starts the S3 server without a network: it serves on a Unix socket, which the service s3 passes on. On a network its
# other ports (master, filer, volumes, gRPC) would let anyone read the files or add a user without a password.
# The worker's identity opens the bucket clinprompt, MLflow's the bucket mlflow; the promoter's the first one and
# registry, for the journal. There is no administrator, so nobody can make or delete a bucket from outside.
set -eu
umask 077

state=/run/seaweedfs
mkdir -p "$state"
identity() { # name, access key, secret key, buckets
    printf '{"name": "%s", "credentials": [{"accessKey": "%s", "secretKey": "%s"}], "actions": [' "$1" "$2" "$3"
    shift 3
    comma=
    for bucket; do
        printf '%s"Read:%s", "Write:%s", "List:%s", "Tagging:%s"' "$comma" "$bucket" "$bucket" "$bucket" "$bucket"
        comma=', '
    done
    printf ']}'
}
{
    printf '{"identities": ['
    identity store "$STORE_ACCESS_KEY" "$STORE_SECRET_KEY" clinprompt
    printf ', '
    identity promoter "$PROMOTER_ACCESS_KEY" "$PROMOTER_SECRET_KEY" clinprompt registry
    printf ', '
    identity mlflow "$MLFLOW_ACCESS_KEY" "$MLFLOW_SECRET_KEY" mlflow
    printf ']}\n'
} >"$state/s3.json"
rm -f "$state/ready" /socket/s3.sock

weed server -dir=/data -ip=127.0.0.1 -ip.bind=127.0.0.1 \
    -master.volumeSizeLimitMB=1024 -master.telemetry=false -volume.max=0 \
    -s3 -s3.localSocket=/socket/s3.sock -s3.config="$state/s3.json" \
    -s3.iam=false -s3.port.iceberg=0 -s3.port.lance=0 &
server=$!
trap 'kill -TERM "$server"' TERM INT

# The health check looks for the marker.
for bucket in clinprompt registry mlflow; do
    until echo s3.bucket.list | weed shell -master=127.0.0.1:9333 2>/dev/null | grep -qE "^ *$bucket[[:space:]]"; do
        kill -0 "$server" || exit 1
        echo "s3.bucket.create -name $bucket" | weed shell -master=127.0.0.1:9333 >/dev/null 2>&1 || sleep 1
    done
done
touch "$state/ready"
wait "$server" || true
wait "$server"
