"""Files of a tokenizer: what is read from them, and one sentence for each that is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.generation.fakes import END, TEMPLATE, byte_level, make_tokenizer
from tvmpipe.errors import InputError, TokenizerError
from tvmpipe.generation.chat_template import ChatTemplate
from tvmpipe.generation.tokenizer import load_tokenizer


def write(folder: Path, **files: Any) -> Path:
    path = folder / "tokenizer.json"
    byte_level().save(str(path))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return path


def test_a_tokenizer_alone(tmp_path: Path) -> None:
    one = load_tokenizer(write(tmp_path))
    assert one.decode(one.encode("Grüße 🦊")) == "Grüße 🦊"
    assert one.eos_ids == frozenset()
    with pytest.raises(TokenizerError, match=r"the tokenizer has no chat template; put one beside it"):
        one.encode_chat([{"role": "user", "content": "Hi"}])


def test_what_lies_beside_it(tmp_path: Path) -> None:
    """Special tokens as text and as objects, ends of two files, a template in the configuration; given the folder."""
    config = {"eos_token": {"content": END, "lstrip": False}, "bos_token": "<|user|>", "chat_template": TEMPLATE}
    write(tmp_path, tokenizer_config=config, generation_config={"eos_token_id": [7, 9]})
    one = load_tokenizer(tmp_path)
    end = one.encode(END)
    assert one.eos_ids == {*end, 7, 9}
    assert one.special == {"eos_token": END, "bos_token": "<|user|>"}
    tokens = one.encode_chat([{"role": "user", "content": "Hi"}])
    assert tokens == [*one.encode("<|user|>"), *one.encode("Hi"), *end, *one.encode("<|assistant|>")]
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 3}')
    assert load_tokenizer(tmp_path).eos_ids == {*end, 3}


def test_places_of_a_template(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "of the list"}]
    path = write(tmp_path, tokenizer_config={"chat_template": named})
    assert render(path) == "of the list"
    (tmp_path / "chat_template.jinja").write_text("of its own file")
    assert render(path) == "of its own file"


def render(path: Path) -> str:
    chat = load_tokenizer(path).chat
    assert chat is not None
    return chat.render([{"role": "user", "content": "Hi"}], {})


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"tokenizer": {}}, "tokenizer.json is no tokenizer of the tokenizers library"),
        ({"tokenizer_config": []}, "tokenizer_config.json holds no JSON object"),
        (
            {"generation_config": {"eos_token_id": "x"}},
            "eos_token_id in .* is 'x', and must be a token's number or a list",
        ),
        (
            {"tokenizer_config": {"chat_template": "{% if %}"}},
            "the chat template in .*tokenizer_config.json is no Jinja",
        ),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, files: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TokenizerError, match=sentence):
        load_tokenizer(write(tmp_path, **files))


def test_files_that_are_missing_or_no_json(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer file .*tokenizer.json does not exist"):
        load_tokenizer(tmp_path)
    path = write(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(TokenizerError, match=r"tokenizer_config.json is not JSON"):
        load_tokenizer(path)


def template(text: str) -> str:
    return ChatTemplate(text, "a test").render([{"role": "user", "content": "Hi <b>ü"}], {"bos_token": "<s>"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ bos_token }}{{ messages[0].content }}", "<s>Hi <b>ü"),
        ("{{ messages | tojson }}", '[{"role": "user", "content": "Hi <b>ü"}]'),
        ("{% for m in messages %}{% if true %}{% break %}{% endif %}x{% endfor %}y", "y"),
        ("a\n  {% if add_generation_prompt %}\n  b\n  {% endif %}\nc", "a\n  b\nc"),
        ("{% generation %}x{% endgeneration %}", "x"),
        ("{{ strftime_now('%Y') | length }}", "4"),
        ("{% if tools %}x{% endif %}{{ eos_token }}", ""),
        ("{%- set n = namespace(x=1) %}{% set n.x = 2 %}{{ n.x }}", "2"),
    ],
)
def test_templates_are_rendered_as_transformers_does(text: str, expected: str) -> None:
    assert template(text) == expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{{ raise_exception('no system role') }}", "the model's chat template refuses these messages: no system role"),
        (
            "{{ messages[3].content }}",
            "the chat template in a test failed on these messages: list object has no element 3",
        ),
        ("{{ ''.__class__.__mro__ }}", "the chat template in a test failed .* unsafe"),
        ("{{ messages.append(1) }}", "the chat template in a test failed .* unsafe"),
        ("{{ range(10 ** 9) | list }}", "the chat template in a test failed .* too big"),
    ],
)
def test_templates_that_refuse_or_fail(text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        template(text)


def test_templates_of_the_fakes() -> None:
    one = make_tokenizer()
    with pytest.raises(InputError, match="there is no role tool"):
        one.encode_chat([{"role": "tool", "content": "x"}])
