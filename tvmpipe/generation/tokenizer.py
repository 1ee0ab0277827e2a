"""tokenizer.json and the files beside it: text to tokens and back, and which tokens end a text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from tvmpipe.errors import TokenizerError
from tvmpipe.files import require_file
from tvmpipe.generation.chat_template import ChatTemplate, Message

_BYTE = re.compile("<0x([0-9A-F]{2})>")
_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class Tokenizer:
    """A tokenizer of the tokenizers library with what its configuration adds. Any thread may use it.

    `eos_ids` are the tokens that end a text. `special` has the text of special tokens by their names ("bos_token").
    `chat` is None for a tokenizer that has no chat template.
    """

    def __init__(
        self,
        inner: tokenizers.Tokenizer,
        *,
        eos_ids: frozenset[int] = frozenset(),
        special: Mapping[str, str] | None = None,
        chat: ChatTemplate | None = None,
    ) -> None:
        inner.no_padding()
        inner.no_truncation()
        self._inner = inner
        self.eos_ids = eos_ids
        self.special = dict(special or {})
        self.chat = chat
        self._hidden = {token for token, one in inner.get_added_tokens_decoder().items() if one.special}
        described: dict[str, Any] = json.loads(inner.to_str())
        decoders = _kinds(described.get("decoder"))
        self._bytes = _byte_tokens(inner) if "ByteFallback" in decoders else {}
        self._letters = _byte_letters() if "ByteLevel" in decoders else None
        self._space = "▁" if decoders & {"Metaspace", "Replace"} else None

    @property
    def size(self) -> int:
        """Tokens that it knows; ids are below this, if they have no gaps."""
        return self._inner.get_vocab_size()

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Tokens of a text; with `special` also those that the tokenizer puts around every text."""
        return list(self._inner.encode(text, add_special_tokens=special).ids)

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Tokens of a conversation that the model is to go on with. Raises InputError as `ChatTemplate.render` does."""
        if self.chat is None:
            raise TokenizerError(
                "the tokenizer has no chat template; put one beside it, in tokenizer_config.json or chat_template.jinja"
            )
        return self.encode(self.chat.render(messages, self.special), special=False)

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of tokens, without special ones."""
        return self._inner.decode(tokens, skip_special_tokens=True)

    def is_hidden(self, token: int) -> bool:
        """Whether it has no text: because it is special, or no token of the tokenizer at all."""
        return token in self._hidden or self._inner.id_to_token(token) is None

    def is_byte(self, token: int) -> bool:
        """Whether it stands for one byte, which is decoded together with those around it."""
        return token in self._bytes

    def token_bytes(self, token: int) -> bytes:
        """UTF-8 of one token alone, which may be a part of a character; empty for an id without a token."""
        text = self._inner.id_to_token(token)
        if text is None:
            return b""
        if token in self._bytes:
            return self._bytes[token]
        if self._letters is not None and all(letter in self._letters for letter in text):
            return bytes(self._letters[letter] for letter in text)
        return (text if self._space is None else text.replace(self._space, " ")).encode()


def load_tokenizer(path: Path) -> Tokenizer:
    """Read tokenizer.json (or the folder that holds it), and beside it what there is of tokenizer_config.json (special
    tokens, chat template), chat_template.jinja (its newer place) and generation_config.json (more tokens that end).

    Raises TokenizerError for a file that is missing or none.
    """
    if path.is_dir():
        path = path / "tokenizer.json"
    require_file(path, "tokenizer file", TokenizerError)
    try:
        inner = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001 - the library raises Exception itself
        raise TokenizerError(f"{path} is no tokenizer of the tokenizers library: {error}") from None
    config = _read_json(path.with_name("tokenizer_config.json"))
    generation = _read_json(path.with_name("generation_config.json"))
    special = {name: text for name in _SPECIAL if (text := _token_text(config.get(name))) is not None}
    eos = {_id for text in [special.get("eos_token")] if text and (_id := inner.token_to_id(text)) is not None}
    return Tokenizer(
        inner,
        eos_ids=frozenset(eos | _ids(generation.get("eos_token_id"), path.with_name("generation_config.json"))),
        special=special,
        chat=_chat_template(path, config),
    )


def _read_json(path: Path) -> dict[str, Any]:
    """An object in a file that may be missing."""
    if not path.is_file():
        return {}
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TokenizerError(f"{path} is not JSON: {error}") from None
    if not isinstance(read, dict):
        raise TokenizerError(f"{path} holds no JSON object")
    return read


def _token_text(value: object) -> str | None:
    """A special token as it is written: as text, or as an object with its `content`."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _ids(value: object, path: Path) -> set[int]:
    found = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(one, int) for one in found):
        raise TokenizerError(f"eos_token_id in {path} is {value!r}, and must be a token's number or a list of them")
    return set(found)


def _chat_template(path: Path, config: Mapping[str, Any]) -> ChatTemplate | None:
    """The template in a file of its own, else that of the configuration, where several may have names."""
    own = path.with_name("chat_template.jinja")
    if own.is_file():
        return ChatTemplate(own.read_text(encoding="utf-8"), str(own))
    template = config.get("chat_template")
    if isinstance(template, list):
        named = {str(one.get("name")): one.get("template") for one in template if isinstance(one, dict)}
        template = named.get("default")
    return ChatTemplate(template, str(path.with_name("tokenizer_config.json"))) if isinstance(template, str) else None


def _kinds(decoder: object) -> set[str]:
    """The decoders that a decoder is made of."""
    if not isinstance(decoder, dict):
        return set()
    inner = decoder.get("decoders")
    return {str(decoder.get("type"))}.union(*(_kinds(one) for one in inner or ()))


def _byte_tokens(inner: tokenizers.Tokenizer) -> dict[int, bytes]:
    vocabulary = inner.get_vocab()
    return {token: bytes([int(found[1], 16)]) for text, token in vocabulary.items() if (found := _BYTE.fullmatch(text))}


def _byte_letters() -> dict[str, int]:
    """The byte that each letter of a byte-level token stands for (GPT-2's `bytes_to_unicode`, OpenAI 2019).

    Bytes that are visible in Latin-1 stand for themselves, the others for letters from U+0100 on, in their order.
    """
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + place): byte for place, byte in enumerate(hidden)}
