# Airflow's own image (target airflow), and the worker of infra/compose.yaml (target worker), which holds Airflow and
# the components in two environments that share nothing. Build infra/Dockerfile's target registry first.

# The base, pinned by its digest; the same as in infra/Dockerfile.
ARG BASE=python:3.11-slim@sha256:9c900dea9e8fb7e16277c179b555cc72d29a352dbc33cff48ad5a0412fd5bfc7
# The image registry of infra/images.lock, by its digest.
ARG COMPONENTS=clinprompt-registry

FROM ${BASE} AS environment
COPY requirements/airflow.txt /tmp/airflow.txt
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca,target=/run/secrets/ca \
    if [ -f /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi \
    && python3 -m venv /opt/airflow-venv \
    && /opt/airflow-venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --no-deps \
        -r /tmp/airflow.txt \
    && /opt/airflow-venv/bin/pip uninstall --yes --quiet pip setuptools

# The DAG files, the YAML files that they are built from, and the contract. No code of the components.
FROM ${BASE} AS project
COPY dags /opt/clinprompt/dags
COPY datasets /opt/clinprompt/datasets
COPY clinprompt/__init__.py /opt/clinprompt/clinprompt/__init__.py
COPY clinprompt/contract /opt/clinprompt/clinprompt/contract
COPY components /opt/components
COPY dvc.yaml params.yaml /opt/clinprompt/
COPY infra/images.lock /opt/clinprompt/infra/images.lock
RUN cd /opt && find components -name '*.yaml' -exec install -D -m 644 '{}' 'clinprompt/{}' ';' \
    && if [ -f components/component.schema.json ]; then cp components/component.schema.json clinprompt/components/; fi

FROM ${BASE} AS airflow
ARG VERSION=0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="clinprompt airflow" \
      org.opencontainers.image.description="Airflow and the DAGs: api-server, scheduler, dag-processor, triggerer" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /opt/airflow --shell /usr/sbin/nologin clinprompt \
    && install -d -o 10001 -g 10001 /opt/airflow /opt/airflow/logs
COPY --from=environment /opt/airflow-venv /opt/airflow-venv
COPY --from=project /opt/clinprompt /opt/clinprompt
ENV PATH=/opt/airflow-venv/bin:/usr/local/bin:/usr/bin:/bin \
    LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    USER=clinprompt \
    HOME=/tmp \
    AIRFLOW_HOME=/opt/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/clinprompt/dags \
    AIRFLOW__CORE__LOAD_EXAMPLES=False
WORKDIR /opt/clinprompt
USER 10001:10001
HEALTHCHECK --interval=1m --timeout=30s --start-period=1m CMD ["airflow", "version"]
CMD ["airflow", "version"]

# Everything that a stage needs: registry has no Great Expectations, so the lock of data goes on top. The locks come
# from one resolution, so no version changes.
FROM ${COMPONENTS} AS worker
ARG VERSION=0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="clinprompt worker" \
      org.opencontainers.image.description="A Celery worker that runs the components in their own environment" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
USER root
    --mount=type=bind,source=requirements/images,target=/opt/locks \
    --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca,target=/run/secrets/ca \
    if [ -f /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi \
    && python3 -m venv /tmp/installer \
    && /tmp/installer/bin/pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check \
        --require-hashes --no-deps -r /opt/locks/data.txt \
    && rm -r /tmp/installer
RUN install -d -o 10001 -g 10001 /opt/airflow /opt/airflow/logs /scratch /weights \
    && ln -s /opt/venv /opt/clinprompt/.venv
COPY --from=environment /opt/airflow-venv /opt/airflow-venv
COPY --from=project /opt/clinprompt /opt/clinprompt
# The components' environment stays first on the path; Airflow is called by its full name.
ENV AIRFLOW_HOME=/opt/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/clinprompt/dags \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    CLINPROMPT_SCRATCH=/scratch \
    CLINPROMPT_WEIGHTS=/weights
USER 10001:10001
HEALTHCHECK --interval=1m --timeout=30s --start-period=1m CMD ["/opt/airflow-venv/bin/airflow", "version"]
CMD ["/opt/airflow-venv/bin/airflow", "celery", "worker"]
