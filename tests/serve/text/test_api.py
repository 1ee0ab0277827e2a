"""The API as OpenAI's own client speaks it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import openai
import pytest

from tests.generation.fakes import TableModel
from tests.serve.text.running import NAME, TOKENIZER, make_model, serving, settled, text_of
from tvmpipe.serve.text.server import TextServer


@pytest.fixture(scope="module")
def model() -> TableModel:
    return make_model(sequences=3)


@pytest.fixture(scope="module")
def server(model: TableModel) -> Iterator[TextServer]:
    with serving(model, draft=3) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: TextServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"http://{server.address}/v1", api_key="none", max_retries=0)


HI: list[openai.types.chat.ChatCompletionMessageParam] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Hi, "}, {"type": "text", "text": "fox"}]},
]
HI_TOKENS = TOKENIZER.encode_chat([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi, fox"}])


def test_models(client: openai.OpenAI) -> None:
    assert [one.id for one in client.models.list()] == [NAME]
    assert client.models.retrieve(NAME).owned_by == "tvmpipe"
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt-4' here; there is 'a table'"):
        client.models.retrieve("gpt-4")


def test_a_completion(client: openai.OpenAI, model: TableModel) -> None:
    found = client.completions.create(model=NAME, prompt="The dog", temperature=0, max_tokens=20)
    prompt = TOKENIZER.encode("The dog")
    assert found.choices[0].text == text_of(model, prompt, max_tokens=20)
    assert found.choices[0].finish_reason == "length"
    assert found.usage is not None
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (len(prompt), 20)


def test_several_prompts_and_choices(client: openai.OpenAI, model: TableModel) -> None:
    """Choices of one seed are different, and the same again; prompts are texts or tokens."""
    asked = {"model": NAME, "n": 2, "seed": -5, "max_tokens": 8, "echo": True}
    found = client.completions.create(prompt=["The dog", "Köln"], **asked)  # type: ignore[call-overload]
    texts = [choice.text for choice in found.choices]
    assert [choice.index for choice in found.choices] == [0, 1, 2, 3]
    assert [text[:4] for text in texts] == ["The ", "The ", "Köln", "Köln"]
    assert len(set(texts)) == 4
    assert found.usage.prompt_tokens == len(TOKENIZER.encode("The dog")) + len(TOKENIZER.encode("Köln"))
    assert found.usage.completion_tokens == 32
    tokens = [TOKENIZER.encode("The dog"), TOKENIZER.encode("Köln")]
    again = client.completions.create(prompt=tokens, **asked)  # type: ignore[call-overload]
    assert [choice.text for choice in again.choices] == texts
    (alone,) = client.completions.create(prompt=tokens[1], **{**asked, "n": 1}).choices  # type: ignore[call-overload]
    assert alone.text == texts[2]


def test_a_completion_as_a_stream(client: openai.OpenAI, model: TableModel) -> None:
    prompt = TOKENIZER.encode("The dog")
    whole = text_of(model, prompt, max_tokens=40)
    stop = whole[20:23]
    chunks = list(
        client.completions.create(
            model=NAME,
            prompt=prompt,
            temperature=0,
            max_tokens=40,
            n=2,
            stop=[stop, "never there"],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    texts = ["", ""]
    finishes = [None, None]
    for chunk in chunks[:-1]:
        (choice,) = chunk.choices
        assert finishes[choice.index] is None
        texts[choice.index] += choice.text
        finishes[choice.index] = choice.finish_reason  # type: ignore[call-overload]
        assert chunk.usage is None
    assert texts == [whole[: whole.index(stop)]] * 2
    assert finishes == ["stop", "stop"]
    assert len(chunks) > 8
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == len(prompt)


def test_an_echo_in_a_stream(client: openai.OpenAI, model: TableModel) -> None:
    chunks = client.completions.create(model=NAME, prompt="Köln", temperature=0, max_tokens=4, echo=True, stream=True)
    text = "".join(chunk.choices[0].text for chunk in chunks)
    assert text == "Köln" + text_of(model, TOKENIZER.encode("Köln"), max_tokens=4)


def test_a_chat(client: openai.OpenAI, model: TableModel) -> None:
    found = client.chat.completions.create(model=NAME, messages=HI, temperature=0, max_completion_tokens=12)
    assert found.choices[0].message.content == text_of(model, HI_TOKENS, max_tokens=12)
    assert found.choices[0].message.role == "assistant"
    assert found.usage is not None
    assert found.usage.total_tokens == len(HI_TOKENS) + 12


def test_a_chat_as_a_stream(client: openai.OpenAI, model: TableModel) -> None:
    chunks = list(
        client.chat.completions.create(
            model=NAME,
            messages=HI,
            temperature=0,
            max_tokens=12,
            stream=True,
            stream_options={"include_usage": True},
            user="somebody",
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    told = [chunk.choices[0] for chunk in chunks[:-1]]
    assert "".join(one.delta.content or "" for one in told) == text_of(model, HI_TOKENS, max_tokens=12)
    assert [one.finish_reason for one in told] == [None] * (len(told) - 1) + ["length"]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 12


def test_a_chat_to_the_end_of_the_context(client: openai.OpenAI) -> None:
    found = client.chat.completions.create(model=NAME, messages=HI, seed=1, extra_body={"top_k": 5, "min_p": 0.01})
    assert found.choices[0].finish_reason == "length"
    assert found.usage is not None
    assert found.usage.total_tokens == 512


def logprobs_after(model: TableModel, tokens: list[int]) -> npt.NDArray[np.float64]:
    row = model.row(tokens).astype(np.float64)
    return np.asarray(row - np.log(np.exp(row).sum()))


def test_log_probabilities_of_a_completion(client: openai.OpenAI, model: TableModel) -> None:
    prompt = TOKENIZER.encode("The dog")
    found = client.completions.create(model=NAME, prompt="The dog", seed=1, max_tokens=15, logprobs=2)
    (choice,) = found.choices
    told = choice.logprobs
    assert told is not None
    assert told.tokens is not None
    assert told.token_logprobs is not None
    assert told.top_logprobs is not None
    assert told.text_offset is not None
    assert len(told.tokens) == len(told.token_logprobs) == len(told.top_logprobs) == len(told.text_offset) == 15
    for token, offset in zip(told.tokens, told.text_offset, strict=True):
        assert token.startswith("bytes:") or token in choice.text[offset:]
    first = logprobs_after(model, prompt)
    best = [TOKENIZER.token_bytes(int(one)).decode(errors="replace") for one in np.argsort(-first)[:2]]
    whole = [one for one in told.top_logprobs[0] if not one.startswith("bytes:")]
    assert whole == [one for one in best if "�" not in one]
    assert list(told.top_logprobs[0].values()) == pytest.approx(np.sort(first)[::-1][:2])


def test_log_probabilities_of_a_chat(client: openai.OpenAI, model: TableModel) -> None:
    """Whole and as a stream they are the same, and their bytes are the text."""
    asked = {"model": NAME, "messages": HI, "temperature": 0, "max_tokens": 15, "logprobs": True, "top_logprobs": 3}
    found = client.chat.completions.create(**asked)  # type: ignore[call-overload]
    content = found.choices[0].logprobs.content
    assert len(content) == 15
    text = b"".join(bytes(one.bytes) for one in content).decode(errors="replace")
    assert text == found.choices[0].message.content
    expected = logprobs_after(model, HI_TOKENS)
    assert content[0].logprob == pytest.approx(expected.max())
    assert [one.logprob for one in content[0].top_logprobs] == pytest.approx(np.sort(expected)[::-1][:3])
    chunks = client.chat.completions.create(**asked, stream=True)  # type: ignore[call-overload]
    streamed = [one for chunk in chunks if chunk.choices[0].logprobs for one in chunk.choices[0].logprobs.content]
    assert streamed == content


def test_nothing_is_left_open(model: TableModel, client: openai.OpenAI) -> None:
    with client.completions.create(model=NAME, prompt="The", max_tokens=400, stream=True) as stream:
        next(iter(stream))
    settled(model)
