"""Ask an endpoint for many texts at once: patient with one that is busy, and each finished answer is kept at once."""

import json
import logging
import random
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from threading import Event
from urllib.parse import urlsplit

from clinprompt.contract.variables import ENDPOINT_KEY
from clinprompt.errors import BadParams, ClinpromptError, Interrupted, ServiceDown
from clinprompt.files import sha256_bytes
from clinprompt.knowledge.completion import Completion, Sampling
from clinprompt.knowledge.description import Origin
from clinprompt.knowledge.endpoint.answers import Answer, Malformed, read_answer, read_error
from clinprompt.knowledge.endpoint.budget import Budget
from clinprompt.knowledge.endpoint.transport import MOST_BYTES, Endless, NoReply, Reply, Transport, find_key
from clinprompt.knowledge.samples import Samples, key_of
from clinprompt.knowledge_params import EndpointParams
from clinprompt.progress import progress

log = logging.getLogger(__name__)

FIRST_WAIT = 1.0  # seconds before a second attempt; each further wait is twice as long
LONGEST_WAIT = 300.0  # seconds; an endpoint that asks for more is given up
_BUSY = {408, 409, 425, 429}
_CHARACTERS = 16  # of a text per token that was allowed, at most: a server may not heed max_tokens
_KEPT = "what it has answered is kept: run the same command again to go on"


@dataclass(frozen=True)
class Endpoint:
    """A language model behind an endpoint. Its answers go under the opening words that a model here is given.

    The request holds the prompt's text, the model's name, the seed and the sampling, and nothing else.

    Attributes:
        key: where it stands in params.yaml, for messages.
        variable: which environment variable holds its key.
    """

    params: EndpointParams
    key: str = "knowledge.endpoint"
    variable: str = ENDPOINT_KEY

    @property
    def host(self) -> str:
        """The host, and the port where the URL has one."""
        return urlsplit(self.params.url).netloc

    @property
    def origin(self) -> Origin:
        """Where its texts come from, before it has said what its model is."""
        identity = f"{self.params.url}\n{self.params.model}"
        return Origin("endpoint", self.params.model, self.host, sha256_bytes(identity.encode()))

    @cached_property
    def budget(self) -> Budget:
        """What it may cost as long as this object lives, which is a run: all its rounds and purposes together."""
        return Budget(self.params.token_budget, self.key)

    def prompt_text(self, question: str, opening: str) -> tuple[str, str]:
        """The message, and the part of the opening that the answer lacks: none, as it is asked to begin with it."""
        return f'{question} Begin your answer with these words: "{opening}"' if opening else question, ""

    def length_of(self, text: str) -> int:
        """About how many tokens a text has: three letters each."""
        return len(text) // 3 + 1

    def complete(
        self, texts: Sequence[str], seeds: Sequence[int], sampling: Sampling, label: str, kept: Samples
    ) -> list[Completion]:
        """The answers to messages, in their order; only those that are not kept yet are asked for.

        Raises:
            ServiceDown: it does not answer, after all attempts.
            BadParams: it refuses the key, the model or the request; or the token budget is spent.
        """
        keys = [self._key(text, seed, sampling) for text, seed in zip(texts, seeds, strict=True)]
        found = {key: kept.find(key) for key in keys}
        missing = [i for i, key in enumerate(keys) if found[key] is None]
        if missing:
            run = _Run(self, sampling)
            finished: dict[str, Completion] = {}

            def keep(future: Future[Completion]) -> None:
                key = keys[asked[future]]
                if key not in finished:
                    finished[key] = future.result()
                    kept.keep(key, [finished[key]])

            pool = ThreadPoolExecutor(self.params.concurrency)
            asked = {pool.submit(run.ask, texts[i], seeds[i]): i for i in missing}
            try:
                for future in progress(as_completed(asked), label, len(texts), "sample", len(texts) - len(missing)):
                    keep(future)
            finally:
                run.stop.set()  # whoever waits gives up; who has an answer on its way may finish
                pool.shutdown(cancel_futures=True)
                for future in asked:
                    if not future.cancelled() and future.exception() is None:
                        keep(future)
            log.info("%s: %d answers, about %d tokens so far.", self.host, len(missing), self.budget.spent)
            found |= {key: [completion] for key, completion in finished.items()}
        return [completions[0] for key in keys if (completions := found[key])]

    def _key(self, text: str, seed: int, sampling: Sampling) -> str:
        asked = {"url": self.params.url, "model": self.params.model, "text": text, "seed": seed}
        return key_of({**asked, "sampling": asdict(sampling)})


class _Run:
    """What the threads of one call share."""

    def __init__(self, endpoint: Endpoint, sampling: Sampling) -> None:
        self._endpoint, self._params, self._sampling = endpoint, endpoint.params, sampling
        url = f"{self._params.url.rstrip('/')}/chat/completions"
        self._transport = Transport(
            url, find_key(endpoint.variable), self._params.timeout_seconds, self._params.concurrency
        )
        self._budget = endpoint.budget
        self.stop = Event()

    def ask(self, text: str, seed: int) -> Completion:
        """The answer to one message, after as many attempts as it takes."""
        most = self._sampling.max_new_tokens + len(text.encode())  # a token has at least a byte
        self._budget.reserve(most)
        used = 0
        try:
            answer = self._patiently(self._body(text, seed))
            used = most if answer.tokens is None else answer.tokens
        finally:
            self._budget.settle(most, used)
        longest = _CHARACTERS * self._sampling.max_new_tokens
        said = " ".join(word for word in (self._endpoint.host, answer.model, answer.fingerprint) if word)
        return Completion([], answer.text[:longest], answer.ended and len(answer.text) <= longest, said)

    def _body(self, text: str, seed: int) -> bytes:
        request = {
            "model": self._params.model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": self._sampling.max_new_tokens,
            "temperature": self._sampling.temperature,
            "top_p": self._sampling.top_p,
            "seed": seed % 2**31,  # some servers take no more
            "stream": False,
        }
        return json.dumps(request).encode()

    def _patiently(self, body: bytes) -> Answer:
        problem, wait = "", 0.0
        for attempt in range(self._params.attempts):
            if attempt and self.stop.wait(self._pause(attempt, wait)):
                break
            if self.stop.is_set():
                break
            wait = 0.0
            try:
                reply = self._transport.post(body)
                if reply.status == 200:
                    return read_answer(reply.body)
                problem, wait = self._busy(reply)
            except Endless:
                raise self._down(f"sends an answer without an end (more than {MOST_BYTES} bytes)") from None
            except NoReply as error:
                problem = str(error)
            except Malformed as error:
                problem = f"answered {error}"
        if self.stop.is_set():
            raise Interrupted("stopped while waiting for the endpoint")
        raise self._down(f"{problem}, {self._params.attempts} times")

    def _pause(self, attempt: int, asked: float) -> float:
        """Seconds before an attempt: twice as long each time, but for chance, and at least what the endpoint asks."""
        if asked > LONGEST_WAIT:
            raise self._down(f"asks to wait {asked:.0f} seconds")
        doubled: float = min(FIRST_WAIT * 2 ** (attempt - 1), LONGEST_WAIT)
        return max(asked, doubled * random.uniform(0.5, 1))  # noqa: S311 -- so that the threads don't come together

    def _busy(self, reply: Reply) -> tuple[str, float]:
        """What a reply without an answer says, and how long it asks to wait.

        Raises:
            BadParams: asking again is in vain.
        """
        if reply.status in _BUSY or reply.status >= 500:
            return f"answered with HTTP {reply.status}", _seconds(reply.retry_after)
        where = f"params.yaml: {self._endpoint.key}: {self._endpoint.host}"
        if reply.status in (401, 403):
            raise BadParams(
                f"{where} refuses the key (HTTP {reply.status}); set the variable {self._endpoint.variable}."
            )
        if 300 <= reply.status < 400:
            raise BadParams(f"{where} sends on to another address (HTTP {reply.status}); set url to that one.")
        said = read_error(reply.body)
        raise BadParams(
            f"{where} refuses the request (HTTP {reply.status}{f': {said}' if said else ''}); set url to the address "
            "below which chat/completions lies, and model to one that it serves."
        )

    def _down(self, problem: str) -> ClinpromptError:
        return ServiceDown(f"params.yaml: {self._endpoint.key}: {self._endpoint.host} {problem}; {_KEPT}.")


def _seconds(retry_after: str) -> float:
    """What the header asks for, in seconds or as a date; 0 where it says neither."""
    if retry_after.isascii() and retry_after.strip().isdigit():
        return float(retry_after)
    try:
        moment = parsedate_to_datetime(retry_after)
    except (ValueError, TypeError):
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max((moment - datetime.now(UTC)).total_seconds(), 0.0)
