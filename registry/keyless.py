"""Sign a folder as an identity, in a process of its own: sigstore's client waits without end for an instance that takes
a request and never answers, so the system's alarm ends this process when the instance has had its time.

    python -m registry.keyless FOLDER BUNDLE SECONDS TOKEN_FILE [TRUST_CONFIG]

An error is a line of JSON on standard output: exit_code and message.
"""

import json
import signal
import sys
from pathlib import Path
from typing import Any

from model_signing import signing

from clinprompt.errors import ClinpromptError
from registry.signers import EveryFile, instance, token_in, trust_in


class _TimeForTheInstance(EveryFile):
    """Hashes on no one's time: how long that takes is up to the model's size."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds
        self.start()

    def start(self) -> None:
        """From now on the instance has its time."""
        signal.setitimer(signal.ITIMER_REAL, self._seconds)

    def hash(self, *arguments: Any, **options: Any) -> Any:
        """The digests of all files."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            return super().hash(*arguments, **options)
        finally:
            self.start()


def main(argv: list[str]) -> int:
    """Sign; the exit code."""
    folder, bundle, seconds, token_file, *trust_config = argv
    try:
        token, trust = token_in(Path(token_file)), trust_in(next(iter(trust_config), None))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, whatever it waits for
        with instance(next(iter(trust_config), None)):
            config = signing.Config().set_hashing_config(_TimeForTheInstance(float(seconds)))
            config.use_sigstore_signer(identity_token=token, trust_config=trust).sign(Path(folder), Path(bundle))
    except ClinpromptError as error:
        sys.stdout.write(json.dumps({"exit_code": int(error.exit_code), "message": str(error)}) + "\n")
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
