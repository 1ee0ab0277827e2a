"""Pieces of text, token by token, are together what the tokenizer makes of all tokens."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.generation.fakes import KINDS, SENTENCES, make_tokenizer
from tvmpipe.generation.detokenize import Detokenizer
from tvmpipe.generation.tokenizer import Tokenizer


@functools.cache
def tokenizer(kind: str) -> Tokenizer:
    return make_tokenizer(KINDS[kind]())


def pieces(kind: str, tokens: list[int], prompt: list[int]) -> list[str]:
    detokenizer = Detokenizer(tokenizer(kind), prompt)
    return [*(detokenizer.push(token) for token in tokens), detokenizer.finish()]


kinds = pytest.mark.parametrize("kind", KINDS)


@kinds
@given(st.data())
@settings(max_examples=120, deadline=None)
def test_any_tokens(kind: str, data: st.DataObject) -> None:
    """Also those that make no sense, bytes that are no UTF-8, special tokens, and ids without a token."""
    ids = st.integers(0, tokenizer(kind).size + 3)
    bytes_ = [one for one in range(tokenizer(kind).size) if len(tokenizer(kind).token_bytes(one)) == 1]
    tokens = data.draw(st.lists(st.one_of(ids, st.sampled_from(bytes_)), max_size=20))
    assert "".join(pieces(kind, tokens, [])) == tokenizer(kind).decode(tokens)


@kinds
@given(st.text(st.sampled_from("aé€漢🦊 .\n☃̈Ω"), max_size=8), st.text(st.sampled_from("aé€漢🦊 .\n☃̈Ω"), max_size=8))
@settings(max_examples=60, deadline=None)
def test_text_behind_a_prompt(kind: str, prompt: str, text: str) -> None:
    one = tokenizer(kind)
    before, tokens = one.encode(prompt), one.encode(text)
    whole = one.decode(before + tokens)
    assert "".join(pieces(kind, tokens, before)) == whole[len(one.decode(before)) :]


@pytest.mark.parametrize("kind", ["byte level", "byte fallback"])
def test_half_characters_are_held_back(kind: str) -> None:
    one = tokenizer(kind)
    tokens = one.encode("x 🐝‍🦺 漢字")
    found = pieces(kind, tokens, [])
    assert "�" not in "".join(found)
    assert len([piece for piece in found if piece]) < len(tokens)
    cut = pieces(kind, one.encode("🐝")[:-1], [])
    assert [piece for piece in cut if piece] == cut[-1:]  # at the end, what is left
    assert set(cut[-1].strip()) == {"�"}


def test_text_comes_as_early_as_it_can() -> None:
    one = tokenizer("byte level")
    tokens = one.encode(SENTENCES[0])
    assert all(pieces("byte level", tokens, [])[:-1])


def test_the_rest_of_a_character_that_a_prompt_begins() -> None:
    one = tokenizer("byte level")
    tokens = one.encode("☃")
    assert len(tokens) == 3
    assert "".join(pieces("byte level", tokens[2:], tokens[:2])) == "☃"


@pytest.mark.parametrize("kind", ["byte level", "byte fallback"])
def test_bytes_of_a_token(kind: str) -> None:
    one = tokenizer(kind)
    text = "5 € für 🦊\n"
    assert b"".join(map(one.token_bytes, one.encode(text))).decode().strip() == text.strip()
    assert one.token_bytes(10**6) == b""
