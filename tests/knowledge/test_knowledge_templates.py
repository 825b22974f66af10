"""Words of one's own for what is asked, in params.yaml: what they change, and which are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from describing import OUTPUTS, call, settings
from fake_endpoint import Server, serving

from clinprompt.files import sha256_file
from clinprompt.knowledge import decoding
from clinprompt.knowledge.completion import Completion
from clinprompt.knowledge.outputs import read_descriptions

VESSELS = {"ask": "In one sentence, describe the vessels of {phrase}.", "begin": "On {phrase}, the vessels are"}
OTHER = {**VESSELS, "ask": "In a few words, describe the vessels of {phrase}."}
COMPARED = {"ask": "How do {phrase} and {sibling} differ?", "begin": "", "of_each_sibling": True}


def templates(**aspects: Any) -> dict[str, Any]:
    return {"templates": {"aspects": aspects}}


def run(folder: Path, server: Server, **knowledge: Any) -> int:
    endpoint = {"url": server.url, "model": "m"}
    return call(folder, settings(folder, "descriptions"), endpoint=endpoint, llm=None, **knowledge)


def report(folder: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((folder / OUTPUTS[2]).read_text())
    return told


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def test_an_aspect_of_ones_own_is_asked_and_recorded(folder: Path) -> None:
    aspects = ["shape", "vessels", "compared"]
    with serving() as server:
        assert run(folder, server, aspects=aspects, **templates(vessels=VESSELS, compared=COMPARED)) == 0
        asked = {body["messages"][0]["content"] for body in server.asked}
    frame = "You read MRI images of the brain. The finding is: glioma. "
    phrase, sibling = "a brain MRI with a glioma", "a brain MRI without a tumour"
    begins = f'Begin your answer with these words: "On {phrase}, the vessels are"'
    assert f"{frame}In one sentence, describe the vessels of {phrase}. {begins}" in asked
    assert f"{frame}How do {phrase} and {sibling} differ?" in asked
    names = {"shape", "vessels", "compared:glioma", "compared:none"}
    assert set(read_descriptions(folder / OUTPUTS[0])["aspect"]) == names
    assert report(folder)["templates"] == {"aspects": {"vessels": VESSELS, "compared": COMPARED}}


def test_other_words_for_one_aspect_ask_for_that_one_alone(folder: Path) -> None:
    with serving() as server:
        for words, requests in ((None, 8), (VESSELS, 4), (OTHER, 4), (VESSELS, 0), (None, 0)):
            before = len(server.requests)
            assert run(folder, server, **(templates(shape=words) if words else {})) == 0
            new = [body["messages"][0]["content"] for body in server.asked[before:]]
            assert len(new) == requests
            assert before == 0 or all("vessels" in text for text in new)
    assert "templates" not in report(folder)


def test_other_words_make_a_local_model_complete_that_aspect_alone(
    folder: Path, llm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    complete = decoding.complete

    def counted(llm: Any, prompts: Any, *rest: Any) -> list[Completion]:
        made.append(len(prompts))
        return complete(llm, prompts, *rest)

    monkeypatch.setattr(decoding, "complete", counted)
    local = {"path": str(llm_folder), "llm": "tiny"}
    aspects, texts = ["shape", "signal"], []
    assert call(folder, aspects=aspects, **local) == 0
    plain = sha256_file(folder / OUTPUTS[0])
    made.clear()
    for words in (VESSELS, OTHER):
        # It stands between the others, whose batches stay as they are.
        assert call(folder, aspects=["shape", "vessels", "signal"], **local, **templates(vessels=words)) == 0
        assert made == [2, 2]
        made.clear()
        frame = read_descriptions(folder / OUTPUTS[0])
        assert frame["aspect"].unique().tolist() == ["shape", "vessels", "signal"]
        texts.append(frame.loc[frame["aspect"] != "vessels", "raw"].tolist())
    assert texts[0] == texts[1]
    assert call(folder, aspects=aspects, **local, templates={}) == 0
    assert not made
    assert sha256_file(folder / OUTPUTS[0]) == plain


def test_the_frame_and_the_question_of_hidden_states_can_be_replaced(folder: Path, llm_folder: Path) -> None:
    own = {"frame": "For {name} in children. ", "features": {"ask": "What is seen in the {organ}?", "begin": "I see"}}
    assert call(folder, path=str(llm_folder), llm="tiny", templates=own) == 0
    told = report(folder)
    assert told["templates"] == own
    question = told["hidden_states"]["classes"]["glioma"]["question"]
    assert question == "For glioma in children. What is seen in the brain?"
    assert all("For no tumour in children. " in one["prompt"] for one in told["prompts"]["none"].values())


def vessels(**change: Any) -> dict[str, Any]:
    return {"aspects": {"vessels": VESSELS | change}}


@pytest.mark.parametrize(
    ("own", "told"),
    [
        (
            vessels(ask="Of {age} years, {phrase}?"),
            "aspects.vessels.ask: {age} is no placeholder; there are ",
        ),
        (vessels(begin="{name!r}"), "aspects.vessels.begin: {name} is no placeholder"),
        (vessels(begin="{phrase.__class__}"), "aspects.vessels.begin: {phrase.__class__} is no placeholder"),
        (vessels(ask="{phrase"), "aspects.vessels.ask: holds a brace that is not of a placeholder"),
        (vessels(ask="{{phrase}}"), "aspects.vessels.ask: holds a brace that is not of a placeholder"),
        (vessels(ask=""), "aspects.vessels.ask: has no words"),
        (vessels(ask=" "), "aspects.vessels.ask: begins or ends with a space"),
        (vessels(begin="On {phrase}, "), "aspects.vessels.begin: begins or ends with a space"),
        (vessels(ask="One.\nTwo {phrase}."), "aspects.vessels.ask: must be one line"),
        (vessels(ask="\u200bWhere?"), "aspects.vessels.ask: must be one line"),
        (vessels(ask="x" * 1001), "aspects.vessels.ask: string should have at most 1000 characters"),
        (vessels(ask=5), "aspects.vessels.ask: input should be a valid string, found 5"),
        (vessels(ask="{phrase} or {sibling}?"), "aspects.vessels: {sibling} stands in what is asked of_each_sibling"),
        (vessels(of_each_sibling=True), "aspects.vessels: {sibling} stands in what is asked of_each_sibling"),
        (vessels(asks="What?"), "aspects.vessels.asks: no such key"),
        ({"aspects": {"vessels": {"ask": "What is {phrase}?"}}}, "aspects.vessels.begin: missing"),
        ({"aspects": {"vessels:none": VESSELS}}, "aspects.vessels:none.[key]: string should match pattern"),
        ({"aspects": {"Vessels": VESSELS}}, "aspects.Vessels.[key]: string should match pattern"),
        ({"aspects": {"../x": VESSELS}}, "aspects.../x.[key]: string should match pattern"),
        ({"frames": "x"}, "frames: no such key (did you mean 'frame'?)"),
        ({"frame": "Of {name}."}, "frame: must end with a space, as the question follows it"),
        ({"frame": "Of {sibling}. "}, "frame: {sibling} has no place in what stands before every question"),
        ({"vessels": VESSELS}, "vessels: no such key"),
        (
            {"frame": "", "aspects": {"shape": {"ask": "What is seen?", "begin": "On {phrase}"}}},
            "aspects.shape: neither ask nor the frame holds {name} or {phrase}",
        ),
    ],
)
def test_words_that_can_t_be_asked_are_refused_in_a_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], own: dict[str, Any], told: str
) -> None:
    with serving() as server:
        assert run(folder, server, templates=own) == 64
        assert not server.requests
    message = json.loads(capsys.readouterr().out)["message"]
    assert "\n" not in message
    assert "params.yaml: knowledge.templates." in message
    assert f"knowledge.templates.{told}" in message
    assert not (folder / OUTPUTS[0]).exists()


def test_an_aspect_without_words_is_refused_and_words_that_nobody_asks_for_stay(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving() as server:
        assert run(folder, server, aspects=["shape", "vessel"], **templates(vessels=VESSELS)) == 64
        told = json.loads(capsys.readouterr().out)["message"]
        assert "knowledge.aspects: no aspect 'vessel'; there are appearance, differential, " in told
        assert "texture, vessels. knowledge.templates.aspects adds others." in told
        assert run(folder, server, **templates(vessels=VESSELS)) == 0
        assert not any("vessels" in body["messages"][0]["content"] for body in server.asked)
