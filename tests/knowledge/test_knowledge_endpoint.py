"""An OpenAI-compatible endpoint: what it is asked, how often, and what comes of each way in which it can fail."""

import json
import logging
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import requests
import yaml
from describing import OUTPUTS, call, settings, write_classes
from fake_endpoint import SENTENCE, Reply, Server, chat, say, serving

from clinprompt.contract.variables import ENDPOINT_KEY
from clinprompt.errors import BadParams
from clinprompt.files import sha256_bytes
from clinprompt.knowledge import llm
from clinprompt.knowledge.endpoint import service
from clinprompt.knowledge.outputs import read_descriptions
from clinprompt.knowledge_params import EndpointParams
from clinprompt.schema import check

KEY = "sk-canary-0123456789abcdef"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy, short waits, and no language model that runs here."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(service, "FIRST_WAIT", 0.01)
    monkeypatch.delenv(ENDPOINT_KEY, raising=False)

    def refuse(*_: Any) -> None:
        raise AssertionError("a language model is loaded")

    monkeypatch.setattr(llm, "_load_folder", refuse)
    monkeypatch.setattr(llm, "_load_gguf", refuse)


def run(folder: Path, server: Server, more: dict[str, Any] | None = None, **knowledge: Any) -> int:
    endpoint = {"url": server.url, "model": "asked-7b", "attempts": 3, "timeout_seconds": 5} | (more or {})
    return call(folder, settings(folder, "descriptions"), **{"endpoint": endpoint, "llm": None} | knowledge)


def told(capsys: pytest.CaptureFixture[str]) -> str:
    return str(json.loads(capsys.readouterr().out)["message"])


def test_descriptions_come_with_who_answered(folder: Path) -> None:
    with serving() as server:
        assert run(folder, server, seed=7) == 0
    frame = read_descriptions(folder / OUTPUTS[0])
    assert len(frame) == len(server.requests) == 2 * 2 * 2
    assert frame["raw"].tolist() == [SENTENCE.format(body["seed"]) for body in sorted_by_text(server, frame)]
    host = server.url.removeprefix("http://").removesuffix("/v1")
    assert set(frame["revision"]) == {f"{host} served-7b fp_1"}
    assert set(frame["provider"]) == {"endpoint"}
    assert set(frame["llm"]) == {"asked-7b"}
    report = json.loads((folder / OUTPUTS[2]).read_text())
    assert report["llm"] is None
    assert (report["endpoint"]["host"], report["endpoint"]["model"]) == (host, "asked-7b")
    assert report["endpoint"]["answered"] == [f"{host} served-7b fp_1"]
    prompts = {one["digest"]: one["prompt"] for of in report["prompts"].values() for one in of.values()}
    asked = {body["messages"][0]["content"] for body in server.asked}
    assert asked == set(prompts.values())
    assert set(frame["prompt_digest"]) == set(prompts) == {sha256_bytes(text.encode()) for text in asked}
    for headers, body, path in server.requests:
        assert path == "/v1/chat/completions"
        assert (body["model"], body["max_tokens"], body["temperature"], body["top_p"]) == ("asked-7b", 8, 0.7, 0.9)
        assert "Authorization" not in headers


def sorted_by_text(server: Server, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The requests in the order of the table, which is that of the prompts and not of the answers."""
    by_seed = {str(body["seed"]): body for body in server.asked}
    seeds = [re.search(r"\((\d+)\)", raw) for raw in frame["raw"]]
    return [by_seed[found[1]] for found in seeds if found]


def test_no_finished_sample_is_asked_for_twice(folder: Path) -> None:
    with serving() as server:
        assert run(folder, server) == 0
        first = {name: (folder / name).read_bytes() for name in OUTPUTS}
        assert run(folder, server) == 0
        assert len(server.requests) == 8
        assert {name: (folder / name).read_bytes() for name in OUTPUTS} == first
        write_classes(folder, ["glioma", "adenoma", "none"])
        assert run(folder, server) == 0
        assert len(server.requests) == 12
        assert all("pituitary" in body["messages"][0]["content"] for body in server.asked[8:])


def test_what_was_answered_before_a_failure_is_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    down = [True]

    def answer(number: int, body: dict[str, Any]) -> Reply:
        return Reply(status=500) if down[0] and number >= 5 else say(number, body)

    with serving(answer) as server:
        assert run(folder, server, {"concurrency": 1, "attempts": 2}) == 69
        assert "answered with HTTP 500, 2 times; what it has answered is kept" in told(capsys)
        assert not any((folder / name).exists() for name in OUTPUTS)
        down[0] = False
        before = len(server.requests)
        assert run(folder, server, {"concurrency": 1}) == 0
        assert len(server.requests) - before == 3


def test_a_busy_endpoint_is_asked_again(folder: Path) -> None:
    def answer(number: int, body: dict[str, Any]) -> Reply:
        return Reply(status=429, headers={"Retry-After": "0"}) if number in (0, 3) else say(number, body)

    with serving(answer) as server:
        assert run(folder, server, {"concurrency": 2}) == 0
    assert len(server.requests) == 10
    assert len(read_descriptions(folder / OUTPUTS[0])) == 8


def test_an_endpoint_that_asks_for_long_patience_is_given_up(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(lambda *_: Reply(status=503, headers={"Retry-After": "86400"})) as server:
        assert run(folder, server) == 69
    assert "asks to wait 86400 seconds" in told(capsys)


HALF = chat("A sentence.")[:-20]
LATIN = chat("Ödem").decode("unicode-escape").encode("latin-1")


@pytest.mark.parametrize(
    ("reply", "code", "says"),
    [
        (Reply(HALF), 69, "answered what is not whole JSON, 2 times"),
        (Reply(HALF, length=len(HALF) + 20), 69, ", 2 times"),
        (Reply(b"<html>busy</html>"), 69, "answered what is not whole JSON, 2 times"),
        (Reply(LATIN), 69, "answered bytes that are not UTF-8, 2 times"),
        (Reply(b'{"choices": []}'), 69, "answered JSON without choices[0].message.content, 2 times"),
        (Reply(chat("x"), endless=True), 69, "sends an answer without an end (more than 1048576 bytes)"),
        (Reply(chat("x"), drip=0.03), 69, "gave no whole answer within 1 seconds, 2 times"),
        (Reply(chat("x"), wait=1.5), 69, "gave no whole answer within 1 seconds, 2 times"),
        (Reply(status=401), 64, f"refuses the key (HTTP 401); set the variable {ENDPOINT_KEY}"),
        (Reply(b'{"error": {"message": "no model x\\n"}}', 404), 64, "refuses the request (HTTP 404: no model x)"),
        (Reply(status=302, headers={"Location": "http://127.0.0.1:9/"}), 64, "sends on to another address (HTTP 302)"),
    ],
)  # fmt: skip
def test_what_an_endpoint_can_do_wrong_has_a_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], reply: Reply, code: int, says: str
) -> None:
    with serving(lambda *_: reply) as server:
        assert run(folder, server, {"attempts": 2, "timeout_seconds": 1, "concurrency": 1}) == code
    assert says in told(capsys)
    assert not any((folder / name).exists() for name in OUTPUTS)


def test_an_endpoint_that_is_not_there_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving() as server:
        pass
    assert run(folder, server) == 69
    assert "could not be connected to, or broke the connection, 3 times" in told(capsys)


@pytest.mark.parametrize(
    ("text", "reason"), [("", "unfinished"), (None, "unfinished"), ("I'm sorry, I can't help.", "length")]
)
def test_an_answer_without_a_sentence_is_kept_with_its_reason(folder: Path, text: str | None, reason: str) -> None:
    with serving(lambda *_: Reply(chat(text))) as server:
        assert run(folder, server) == 0
        assert run(folder, server) == 0
    assert len(server.requests) == 8
    frame = read_descriptions(folder / OUTPUTS[0])
    assert set(frame["reason"]) == {reason}


def test_a_server_that_heeds_no_bound_is_cut(folder: Path) -> None:
    with serving(lambda *_: Reply(chat("word " * 10_000 + "\ud800"))) as server:
        assert run(folder, server) == 0
    assert read_descriptions(folder / OUTPUTS[0])["raw"].str.len().max() == 16 * 8


def test_the_token_budget_stops_with_what_was_answered(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving() as server:
        assert run(folder, server, {"concurrency": 1, "token_budget": 500}) == 64
        asked = len(server.requests)
        assert 60 * asked <= 500
        assert 0 < asked < 8
        said = told(capsys)
        assert f"token_budget: {60 * asked} of 500 tokens are spent" in said
        assert "the finished answers are kept: raise it and run again" in said
        assert run(folder, server, {"concurrency": 1}) == 0
        assert len(server.requests) == 8


def test_rounds_and_purposes_share_one_token_budget(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is ever accepted, so that each class is asked again round after round."""

    def answer(number: int, body: dict[str, Any]) -> Reply:
        return Reply(chat(f"Too short, {body['seed']}."))

    with serving(answer) as server:
        # A round of 8 requests costs 480 and would fit; the next one does not.
        assert run(folder, server, {"concurrency": 1, "token_budget": 900}, min_accepted_per_class=1) == 64
        assert len(server.requests) > 8
        assert 60 * len(server.requests) <= 900
        assert f"{60 * len(server.requests)} of 900 tokens are spent" in told(capsys)


def test_paraphrases_are_paid_of_the_budget_of_descriptions(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = yaml.safe_load((folder / "small.yaml").read_text())
    card["reader"] = {"kind": "table", "file": "t.csv", "path": "path", "label": "label"}
    card["metadata"] = {"patient": "who", "sex": "sex", "age": "age", "extra": ["v", "h"]}
    card["record"] = {"measures": [{"column": "v", "name": "Ventricles"}, {"column": "h", "name": "Hippocampi"}]}
    (folder / "small.yaml").write_text(yaml.safe_dump(card))
    reads = settings(folder, "descriptions", "paraphrases")
    with serving() as server:
        # The 8 descriptions cost 480; a budget of its own would have a place for a paraphrase.
        endpoint = {"url": server.url, "model": "m", "concurrency": 1, "token_budget": 900}
        assert call(folder, reads, endpoint=endpoint, llm=None) == 64
        asked = [body["messages"][0]["content"] for body in server.asked]
    assert 8 <= len(asked) <= 900 // 60
    assert not any(text.startswith("Rewrite this sentence") for text in asked[:8])
    assert "tokens are spent" in told(capsys)


def test_the_key_is_sent_and_shown_nowhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(ENDPOINT_KEY, KEY)
    caplog.set_level(logging.DEBUG)

    def answer(number: int, body: dict[str, Any]) -> Reply:
        return Reply(chat(f"Your key is {KEY}.", model=KEY, system_fingerprint=KEY))

    with serving(answer) as server:
        assert run(folder, server) == 0
    assert {headers["Authorization"] for headers, _, _ in server.requests} == {f"Bearer {KEY}"}
    wrong = json.dumps({"error": {"message": f"wrong key {KEY}"}}).encode()
    with serving(lambda *_: Reply(wrong, 400)) as server:
        assert run(folder, server, seed=1) == 64
    files = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    shown = "".join(capsys.readouterr()) + caplog.text
    assert "wrong key ***" in shown
    assert KEY not in shown
    assert KEY.encode() not in files


def test_a_key_that_can_be_none_is_not_shown(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(ENDPOINT_KEY, f"{KEY}\nX-Other: 1")
    with serving() as server:
        assert run(folder, server) == 64
    said = told(capsys)
    assert ENDPOINT_KEY in said
    assert KEY not in said
    assert not server.requests


def test_netrc_is_not_read(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with serving() as server:
        assert requests.utils.get_netrc_auth(server.url) == ("somebody", "secret")
        assert run(folder, server) == 0
    assert all("Authorization" not in headers for headers, _, _ in server.requests)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://llm.example.org/v1", "url: must begin with https://"),
        ("ftp://llm.example.org", "must be a URL like"),
        ("llm.example.org/v1", "must be a URL like"),
        ("https://me:secret@llm.example.org/v1", f"no user, password or query; a key is given in .*{ENDPOINT_KEY}"),
        ("https://llm.example.org/v1?key=secret", "no user, password or query"),
    ],
)
def test_an_address_that_is_not_private_or_holds_a_secret_is_refused(url: str, says: str) -> None:
    with pytest.raises(BadParams, match=says) as error:
        check(EndpointParams, {"url": url, "model": "m"}, "params.yaml")
    assert "secret" not in str(error.value)


def test_http_is_for_this_machine_or_a_host_that_is_named(folder: Path) -> None:
    for url in (
        "http://localhost:8000/v1",
        "http://127.0.0.1/v1",
        "http://[::1]:8000/v1",
        "https://llm.example.org/v1",
    ):
        check(EndpointParams, {"url": url, "model": "m"}, "params.yaml")
    check(EndpointParams, {"url": "http://gpu-1.internal/v1", "model": "m", "plain_http": True}, "params.yaml")


def test_hidden_states_can_t_be_had_of_an_endpoint(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving() as server:
        endpoint = {"url": server.url, "model": "m"}
        reads = settings(folder, "descriptions", "hidden_states")
        assert call(folder, reads, endpoint=endpoint, llm=None) == 64
        assert not server.requests
    assert "hidden states come from a language model that runs here; name one in knowledge.llm" in told(capsys)
