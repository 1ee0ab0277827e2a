"""The loop: the tokens are those of a loop written plainly, whatever is drafted, stopped or cancelled."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.generation.fakes import TableModel, make_tokenizer
from tvmpipe.errors import InputError, QueueFullError
from tvmpipe.generation import generate as module
from tvmpipe.generation.generate import Piece, generate
from tvmpipe.generation.options import GenerationOptions, SamplingOptions
from tvmpipe.generation.sample import sample

TOKENIZER = make_tokenizer()
EOS = sorted(TOKENIZER.eos_ids)
GREEDY = SamplingOptions(temperature=0)


def table(**options: object) -> TableModel:
    return TableModel(TOKENIZER.size, **{"never": EOS, **options})  # type: ignore[arg-type]


def plainly(model: TableModel, prompt: list[int], options: GenerationOptions, count: int) -> list[int]:
    """Token after token, each from the logits of all before it."""
    generator = np.random.default_rng(options.seed)
    generated: list[int] = []
    while len(generated) < count:
        token = sample(model.row(prompt + generated), prompt, generated, options.sampling, generator)
        if token in EOS:
            break
        generated.append(token)
    return generated


def run(model: TableModel, prompt: list[int], options: GenerationOptions) -> list[Piece]:
    pieces = list(generate(model, TOKENIZER, prompt, options))
    assert model.open == 0
    assert [piece.finish for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert pieces[-1].usage is not None
    assert pieces[-1].usage.prompt_tokens == len(prompt)
    return pieces


def text_of(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


@pytest.mark.parametrize("length", [1, 7, 256, 257, 300])
def test_tokens_are_those_of_a_plain_loop(length: int) -> None:
    model = table()
    prompt = [one % 400 + 5 for one in range(length)]
    options = GenerationOptions(SamplingOptions(temperature=0.9, top_k=30), max_tokens=40, seed=4)
    expected = plainly(model, prompt, options, 40)
    pieces = run(model, prompt, options)
    assert [choice.token for piece in pieces for choice in piece.tokens] == expected
    assert text_of(pieces) == TOKENIZER.decode(prompt + expected)[len(TOKENIZER.decode(prompt)) :]
    assert pieces[-1].finish == "length"
    assert model.fed == length + 39


@given(
    prompt=st.lists(st.integers(4, 60), min_size=1, max_size=8),
    seed=st.integers(0, 10**6),
    draft=st.integers(1, 8),
    penalty=st.sampled_from([1.0, 1.4]),
    repeating=st.booleans(),
    count=st.integers(1, 40),
    context=st.integers(20, 64),
)
@settings(max_examples=80, deadline=None)
def test_drafts_change_no_token(
    prompt: list[int], seed: int, draft: int, penalty: float, repeating: bool, count: int, context: int
) -> None:
    model = table(seed=seed, repeating=repeating, context=context, never=())
    sampling = SamplingOptions(temperature=0, repetition_penalty=penalty)
    plain = run(model, prompt, GenerationOptions(sampling, max_tokens=count))
    guessed = run(model, prompt, GenerationOptions(sampling, max_tokens=count, draft=draft))
    assert [one.token for piece in guessed for one in piece.tokens] == [
        one.token for piece in plain for one in piece.tokens
    ]
    assert text_of(guessed) == text_of(plain)
    assert guessed[-1].finish == plain[-1].finish


def test_drafts_are_accepted_where_text_repeats() -> None:
    model = table(repeating=True, context=2000)
    pieces = run(model, [5], GenerationOptions(GREEDY, max_tokens=400, draft=4))
    usage = pieces[-1].usage
    assert usage is not None
    assert usage.drafted_tokens >= usage.accepted_tokens > 200
    assert len(pieces) < 200  # steps, each of which gave several tokens


def test_a_full_context_ends_the_text() -> None:
    pieces = run(table(context=32), [5, 6, 7], GenerationOptions(GREEDY))
    assert pieces[-1].finish == "length"
    assert pieces[-1].usage is not None
    assert pieces[-1].usage.generated_tokens == 29


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ([], "the prompt has no tokens"),
        ([5] * 32, "the prompt has 32 tokens, and the model's context of 32 must hold the answer too"),
        ([5, 100_000], "the prompt has token 100000, and the model's tokens are 0 to "),
    ],
)
def test_prompts_that_no_model_takes(prompt: list[int], sentence: str) -> None:
    model = table(context=32)
    with pytest.raises(InputError, match=sentence):
        next(generate(model, TOKENIZER, prompt, GenerationOptions()))
    assert model.opened == 0


def test_the_end_token_ends_the_text_and_is_not_shown() -> None:
    seed = next(seed for seed in itertools.count() if 3 < _length(seed) < 30)
    model = table(seed=seed, never=())
    expected = plainly(model, [5], GenerationOptions(GREEDY), 500)
    pieces = run(model, [5], GenerationOptions(GREEDY))
    assert [one.token for piece in pieces for one in piece.tokens] == expected
    assert pieces[-1].finish == "stop"
    longer = run(model, [5], GenerationOptions(GREEDY, max_tokens=len(expected) + 5, ignore_eos=True))
    assert [one.token for piece in longer for one in piece.tokens][len(expected)] in EOS
    assert longer[-1].finish == "length"


def _length(seed: int) -> int:
    return len(plainly(table(seed=seed, never=()), [5], GenerationOptions(GREEDY), 30))


def test_every_stop_string_there_is() -> None:
    """Each three characters of a text as a stop string: what comes is the text in front of where they first stand."""
    model = table(seed=2)
    whole = text_of(run(model, [5], GenerationOptions(GREEDY, max_tokens=30)))
    for begin in range(0, len(whole) - 3, 4):
        word = whole[begin : begin + 3]
        for draft in (0, 3):
            pieces = run(model, [5], GenerationOptions(GREEDY, max_tokens=30, stop=(word, "never there"), draft=draft))
            assert text_of(pieces) == whole[: whole.index(word)]
            assert pieces[-1].finish == "stop"
            shown = b"".join(TOKENIZER.token_bytes(one.token) for piece in pieces for one in piece.tokens)
            assert text_of(pieces).startswith(shown.decode(errors="replace"))


def test_a_stop_string_that_only_the_end_completes() -> None:
    """The last token is half a character, which is shown as U+FFFD."""
    half = TOKENIZER.encode("Ω")[0]
    model = table()
    options = GenerationOptions(SamplingOptions(temperature=0, logit_bias={half: 1000.0}), max_tokens=1, stop=("�",))
    pieces = run(model, [5], options)
    assert (text_of(pieces), pieces[-1].finish) == ("", "stop")


def test_log_probabilities_are_the_models_own() -> None:
    model = table()
    sampling = SamplingOptions(temperature=0.5, top_k=2, logit_bias={17: 3.0})
    pieces = run(model, [9], GenerationOptions(sampling, max_tokens=12, seed=1, top_logprobs=3))
    tokens = [9]
    for choice in itertools.chain.from_iterable(piece.tokens for piece in pieces):
        row = model.row(tokens).astype(np.float64)
        logprobs = row - np.log(np.exp(row).sum())
        assert choice.logprob == pytest.approx(logprobs[choice.token])
        assert [one for one, _ in choice.top] == np.argsort(-logprobs)[:3].tolist()
        assert [one for _, one in choice.top] == pytest.approx(np.sort(logprobs)[::-1][:3])
        tokens.append(choice.token)
    assert len(tokens) == 13


def test_cancelling_ends_within_a_step() -> None:
    model = table()
    cancelled = threading.Event()
    found = []
    for piece in generate(model, TOKENIZER, [5], GenerationOptions(GREEDY), cancelled=cancelled):
        found.append(piece)
        if len(found) == 3:
            cancelled.set()
    assert found[-1].finish == "cancelled"
    assert len(found) <= 5
    assert model.open == 0


def test_cancelling_before_the_prompt_is_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROMPT_CHUNK", 2)
    cancelled = threading.Event()
    cancelled.set()
    model = table()
    (piece,) = generate(model, TOKENIZER, [5] * 9, GenerationOptions(), cancelled=cancelled)
    assert (piece.finish, model.fed, model.open) == ("cancelled", 0, 0)


def test_an_iterator_that_is_left_closes_its_sequence() -> None:
    model = table(sequences=1)
    pieces = generate(model, TOKENIZER, [5], GenerationOptions(GREEDY))
    next(pieces)
    assert model.open == 1
    with pytest.raises(QueueFullError, match="all 1 sequences are open"):
        next(generate(model, TOKENIZER, [5], GenerationOptions(GREEDY)))
    pieces.close()
    assert model.open == 0


def test_figures() -> None:
    ticks = itertools.count(10.0, 0.5)
    pieces = list(
        generate(table(), TOKENIZER, [5] * 20, GenerationOptions(GREEDY, max_tokens=9), clock=lambda: next(ticks))
    )
    usage = pieces[-1].usage
    assert usage is not None
    assert (usage.first_token_s, usage.total_s) == (0.5, 1.0)  # the clock is asked at the start, then, and at the end
    assert (usage.prompt_rate, usage.generation_rate) == (40, 16)
