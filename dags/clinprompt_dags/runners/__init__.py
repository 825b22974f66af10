"""Where the components run. Only the chosen runner's module is imported, and with it its provider."""

from clinprompt_dags.operators import ComponentTask


def operator_class(runner: str) -> type[ComponentTask]:
    """The operator of a runner: local, docker or kubernetes."""
    if runner == "docker":
        from clinprompt_dags.runners.docker import DockerTask

        return DockerTask
    if runner == "kubernetes":
        from clinprompt_dags.runners.kubernetes import KubernetesTask

        return KubernetesTask
    from clinprompt_dags.runners.local import LocalTask

    return LocalTask
