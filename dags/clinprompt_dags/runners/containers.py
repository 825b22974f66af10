"""What the two container runners share: the image's reference and the places inside a container."""

import os
from typing import Any

from clinprompt.contract import variables
from clinprompt.contract.files import IMAGES_LOCK
from clinprompt_dags.config import Settings
from clinprompt_dags.documents import BadDocument, read_yaml
from clinprompt_dags.graph import Need

USER = 10001  # the images' user and group
SCRATCH = "/var/tmp"  # noqa: S108 # a volume of its own; open to all users in every Debian image
COMMAND = ["python"]
THREADS = "OMP_NUM_THREADS"  # the worker's, where it is set, wins
_PLACES = {"weights": variables.WEIGHTS, "cache": variables.CACHE}
_OPENS_MODELS = "registry"  # the image of the components that open registered models
SIGNING, VERIFICATION = "signing", "verification"


def image_reference(settings: Settings, image: str) -> str:
    """`reference@digest` of an image.

    Raises:
        BadDocument: the lock file has no such image, or the image was never built.
    """
    entry: Any = (read_yaml(settings.root, IMAGES_LOCK) or {}).get(image)
    if not isinstance(entry, dict) or "reference" not in entry:
        raise BadDocument(f"{IMAGES_LOCK}: {image}: is missing; `make images` writes it.")
    if not entry.get("digest"):
        raise BadDocument(f"{IMAGES_LOCK}: {image}.digest: is null: the image was never built; run `make images`.")
    return f"{entry['reference']}@{entry['digest']}"


def key_file(name: str) -> str:
    """Where a container finds a key, SIGNING or VERIFICATION."""
    return f"/keys/{name}/{name}.pem"


def keys(settings: Settings, need: Need, *, signs: bool) -> dict[str, str]:
    """What the operator has named for each key that a container gets: to verify models, and to sign them."""
    verifies = need.image == _OPENS_MODELS
    named = {VERIFICATION: settings.verification if verifies else None, SIGNING: settings.signing if signs else None}
    return {name: source for name, source in named.items() if source}


def own_variables(settings: Settings, need: Need, *, signs: bool) -> dict[str, str]:
    """The variables that tell a container its own folders, its keys' files and its number of threads.

    A container sees all CPUs of its machine. Without a number, numeric libraries start a thread on each.
    """
    threads = os.environ.get(THREADS) or str(max(1, round(need.cpu)))
    cache_folders = {_PLACES[name]: f"/{name}" for name in volumes(settings)}
    names = {SIGNING: variables.SIGNING_KEY, VERIFICATION: variables.VERIFICATION_KEY}
    key_files = {names[name]: key_file(name) for name in keys(settings, need, signs=signs)}
    return {variables.SCRATCH: SCRATCH, THREADS: threads, **cache_folders, **key_files}


def volumes(settings: Settings) -> dict[str, str]:
    """What outlives a container, as the operator has named it, by its folder in the container's root."""
    named = {"weights": settings.weights, "cache": settings.cache}
    return {name: source for name, source in named.items() if source}
