"""Sign a model's folder and verify it with sigstore's `model_signing`, whose import takes a second or two.

Every file counts: the library would leave out those of git, and, as it verifies, whatever the signed statement itself
says is to be left out.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from model_signing import hashing, signing, verifying
from sigstore.models import ClientTrustConfig
from sigstore.oidc import IdentityError, IdentityToken

from clinprompt.errors import BadParams, ClinpromptError, InputCorrupt, ServiceDown, of_code
from clinprompt.files import read_regular
from clinprompt.scratch import ScratchFolder
from registry import tracking
from registry.keys import Identity, PrivateKey, PublicKey, TokenSigner

AUDIENCE = "sigstore"  # whom an identity token must be made for
_ROOT = Path(__file__).parents[1]
_LARGEST = 100_000  # bytes of a file with a token, or with a trust config


class NotSigned(Exception):
    """A signature is not of these files, or not by whom it should be."""


class EveryFile(hashing.Config):
    """Hashes each file of a folder by itself, with SHA-256; none is left out, whatever a statement says."""

    def __init__(self) -> None:
        super().__init__()
        self.set_ignored_paths(paths=[], ignore_git_paths=False)

    def add_ignored_paths(self, *, model_path: hashing.PathLike, paths: Iterable[hashing.PathLike]) -> None:
        """Refuse the paths that a statement says are to be left out."""
        raise NotSigned


def made(folder: Path, key: PrivateKey | TokenSigner) -> str:
    """The signature of all files of a folder: sigstore's bundle, as text.

    Raises:
        InputMissing, InputCorrupt: there is no identity token, or none that is valid now.
        BadParams: the sigstore instance is none, or refuses the token.
        ServiceDown: it does not answer, or not in time.
    """
    with ScratchFolder("signature") as scratch:
        bundle = Path(scratch) / "bundle"
        if isinstance(key, PrivateKey):
            config = signing.Config().set_hashing_config(EveryFile())
            config.use_elliptic_key_signer(private_key=key.path).sign(folder, bundle)
        else:
            _sign_as_identity(folder, bundle, key)
        return bundle.read_text(encoding="utf-8")


def _sign_as_identity(folder: Path, bundle: Path, key: TokenSigner) -> None:
    """Write the bundle in a process that can be ended: see `registry.keyless`."""
    paths = [key.token_file, *([key.trust_config] if key.trust_config else [])]
    command = [sys.executable, "-m", "registry.keyless", str(folder.resolve()), str(bundle), str(key.answers_within)]
    done = subprocess.run(  # noqa: S603
        [*command, *(str(Path(path).resolve()) for path in paths)],
        cwd=_ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == -signal.SIGALRM:
        raise ServiceDown(
            f"{_named(key.trust_config)} does not answer (within {key.answers_within} s). Try again later."
        )
    try:
        told = json.loads(done.stdout.splitlines()[-1]) if done.returncode else None
    except (ValueError, IndexError):
        # The last line may hold anything; its first word is the kind of the error.
        kind = (done.stderr.strip().splitlines() or ["no reason"])[-1].partition(":")[0][:80]
        raise ClinpromptError(f"The signing process ended with {done.returncode} ({kind}).") from None
    if told is not None:
        raise of_code(told["exit_code"], told["message"])


def verify(folder: Path, text: str, key: PublicKey | Identity) -> None:
    """Check a signature against all files of a folder.

    Raises:
        NotSigned: it is not of these files, or not by this key or identity.
        BadParams: the sigstore instance is none.
        ServiceDown: it does not answer: without a trust config, the public instance is asked for its keys.
    """
    config = verifying.Config().set_hashing_config(EveryFile())
    if isinstance(key, PublicKey):
        config.use_elliptic_key_verifier(public_key=key.path)
    else:
        trust = trust_in(key.trust_config)
        with instance(key.trust_config):
            config.use_sigstore_verifier(identity=key.identity, oidc_issuer=key.issuer, trust_config=trust)
    with ScratchFolder("signature") as scratch:
        bundle = Path(scratch) / "bundle"
        bundle.write_text(text, encoding="utf-8")
        try:
            config.verify(folder, bundle)
        except (ClinpromptError, OSError, MemoryError):
            raise
        except Exception as error:  # the library raises whatever it stumbles over in a stranger's text
            raise NotSigned from error


def token_in(path: Path) -> str:
    """The identity token in a file, which is valid now. It is in no error, nor in what one came from."""
    text = read_regular(path, _LARGEST).decode("utf-8", "replace").strip()
    try:
        IdentityToken(text, AUDIENCE)
    except IdentityError as error:
        expired = any(type(cause).__name__ == "ExpiredSignatureError" for cause in tracking.causes(error))
    else:
        return text
    if expired:
        raise InputCorrupt(f"The identity token in {path} has expired: ask its issuer for a new one.")
    raise InputCorrupt(
        f"{path} holds no identity token that can be used: it must be a JSON Web Token of an OIDC issuer for the "
        f"audience {AUDIENCE!r}."
    )


def trust_in(trust_config: str | None) -> Path | None:
    """The file of a client trust config, which is one; None: the public instance is meant."""
    if trust_config is None:
        return None
    path = Path(trust_config)
    try:
        found = ClientTrustConfig.from_json(read_regular(path, _LARGEST).decode("utf-8"))
        _ = found.trusted_root, found.signing_config
    except ClinpromptError:
        raise
    except Exception:  # of several libraries
        raise BadParams(f"{path} is no client trust config of a sigstore instance.") from None
    return path


@contextmanager
def instance(trust_config: str | None) -> Iterator[None]:
    """Turn what the library raises as it talks to a sigstore instance into an error without the request."""
    try:
        yield
    except ClinpromptError:
        raise
    except Exception as error:
        who = _named(trust_config)
        if tracking.is_away(error):
            raise ServiceDown(f"{who} does not answer ({_answer(error)}). Try again later.") from None
        raise BadParams(f"{who} can't be used ({_answer(error)}).") from None


def _named(trust_config: str | None) -> str:
    return f"The sigstore instance of {trust_config}" if trust_config else "The public sigstore instance"


def _answer(error: Exception) -> str:
    """The server and its status, or the kind of the error. Not the words of either: a token could be in them."""
    for cause in tracking.causes(error):
        url = getattr(getattr(cause, "request", None), "url", None)
        if url:
            status = getattr(getattr(cause, "response", None), "status_code", None)
            return f"{urlsplit(url).hostname}: {f'HTTP {status}' if status else type(cause).__name__}"
    return type(error).__name__
