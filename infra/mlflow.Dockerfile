# The MLflow server's own image: nothing of this project is in it.

# The base, pinned by its digest; the same as in infra/Dockerfile.
ARG BASE=python:3.11-slim@sha256:9c900dea9e8fb7e16277c179b555cc72d29a352dbc33cff48ad5a0412fd5bfc7

FROM ${BASE} AS environment
COPY requirements/images/mlflow.txt /tmp/mlflow.txt
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca,target=/run/secrets/ca \
    if [ -f /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi \
    && python3 -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --no-deps \
        -r /tmp/mlflow.txt \
    && /opt/venv/bin/pip uninstall --yes --quiet pip setuptools

FROM ${BASE} AS mlflow
ARG VERSION=0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="clinprompt mlflow" \
      org.opencontainers.image.description="The MLflow tracking and registry server" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin mlflow
COPY --from=environment /opt/venv /opt/venv
COPY infra/compose/mlflow/start.sh /opt/mlflow/start.sh
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    MLFLOW_DISABLE_TELEMETRY=true \
    MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false \
    MLFLOW_MODEL_CATALOG_URI= \
    GIT_PYTHON_REFRESH=quiet
USER 10001:10001
EXPOSE 5000
HEALTHCHECK --interval=30s --timeout=10s --start-period=1m \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:5000/health', timeout=5)"]
CMD ["sh", "/opt/mlflow/start.sh"]
