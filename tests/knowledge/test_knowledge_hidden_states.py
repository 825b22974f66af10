"""Hidden states: equal to what a plain forward pass over question and answer gives."""

from typing import Any

import numpy as np
import pytest
import torch

from clinprompt.data.card import Card
from clinprompt.errors import BadParams
from clinprompt.knowledge.hidden_states import hidden_states, states_of_sentences
from clinprompt.knowledge.llm import Llm
from clinprompt.knowledge.prompts import token_ids


def test_states_are_those_of_the_final_token_of_every_layer(llm: Llm, card: Card) -> None:
    found = hidden_states(llm, card, card.classes, 12)
    assert [s.prompt.class_id for s in found] == ["glioma", "adenoma", "none"]
    for one in found:
        ids = llm.tokenizer(one.prompt.text, add_special_tokens=False, return_tensors="pt").input_ids
        answer = llm.model.generate(ids, max_new_tokens=12, do_sample=False)[0].tolist()
        assert one.states.dtype == np.float32
        np.testing.assert_allclose(one.states, states_by_hooks(llm, answer), rtol=0, atol=1e-5)
        assert one.ended == (len(answer) - ids.shape[1] <= 12 and answer[-1] == llm.tokenizer.eos_token_id)


def test_states_do_not_depend_on_the_other_classes(llm: Llm, card: Card) -> None:
    together = hidden_states(llm, card, card.classes, 6)
    alone = hidden_states(llm, card, card.classes[2:], 6)
    np.testing.assert_array_equal(together[2].states, alone[0].states)


def test_no_end_token_is_put_behind_an_answer_that_was_cut(llm: Llm, card: Card) -> None:
    one = hidden_states(llm, card, card.classes[:1], 1)[0]
    ids = llm.tokenizer(one.prompt.text + one.answer, add_special_tokens=False).input_ids
    expected = states_by_hooks(llm, ids)
    assert not one.ended
    np.testing.assert_allclose(one.states, expected, rtol=0, atol=1e-5)


def states_by_hooks(llm: Llm, ids: list[int]) -> np.ndarray:
    """The last token's output of every decoder layer, the last one after the final norm, caught by hooks."""
    caught: list[torch.Tensor] = []

    def catch(module: torch.nn.Module, arguments: Any, output: Any) -> None:
        caught.append((output[0] if isinstance(output, tuple) else output)[0, -1])

    layers = [*llm.model.model.layers[:-1], llm.model.model.norm]
    handles = [layer.register_forward_hook(catch) for layer in layers]
    with torch.no_grad():
        llm.model(torch.tensor([ids]))
    for handle in handles:
        handle.remove()
    return torch.stack(caught).numpy()


def test_other_rows_can_be_asked_for(llm: Llm, card: Card) -> None:
    [published] = hidden_states(llm, card, card.classes[:1], 6)
    [question] = hidden_states(llm, card, card.classes[:1], 6, "question_end_all_layers")
    [answer] = hidden_states(llm, card, card.classes[:1], 6, "answer_last_layer")
    ids = token_ids(llm, question.prompt.text)
    with torch.inference_mode():
        layers = llm.model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[1:]
    np.testing.assert_allclose(question.states, np.stack([layer[0, -1].float() for layer in layers]), atol=1e-5)
    assert question.answer == ""
    np.testing.assert_array_equal(answer.states[-1], published.states[-1])
    assert 1 <= len(answer.states) <= 7  # up to six tokens, and the end of sequence where the model itself ends


def test_given_sentences_are_read_as_the_answer(llm: Llm, card: Card) -> None:
    said = {"glioma": ["It is bright.", "Its edges are soft."], "adenoma": ["It is round."], "none": ["Nothing."]}
    found = states_of_sentences(llm, card, card.classes, said)
    for one in found:
        text = " ".join(said[one.prompt.class_id])
        ids = llm.tokenizer(f"{one.prompt.text}{text}<|im_end|>", add_special_tokens=False).input_ids
        assert (one.answer, one.ended) == (text, True)
        np.testing.assert_allclose(one.states, states_by_hooks(llm, ids), rtol=0, atol=1e-5)
    [alone] = states_of_sentences(llm, card, card.classes[1:2], said)
    np.testing.assert_array_equal(alone.states, found[1].states)
    [rows] = states_of_sentences(llm, card, card.classes[1:2], said, "answer_last_layer")
    assert len(rows.states) == len(llm.tokenizer("It is round.", add_special_tokens=False).input_ids) + 1
    np.testing.assert_array_equal(rows.states[-1], alone.states[-1])


def test_more_sentences_than_the_model_reads_are_refused(llm: Llm, card: Card) -> None:
    with pytest.raises(BadParams, match=r"the class glioma are \d+ tokens with the question, and tiny reads 2048; "):
        states_of_sentences(llm, card, card.classes, {"glioma": ["It is bright."] * 400})
