"""A language model that is a table of logits by the last tokens, and tokenizers trained on a few sentences."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from tests.waiting import PATIENCE_S
from tvmpipe.errors import QueueFullError
from tvmpipe.generation.chat_template import ChatTemplate
from tvmpipe.generation.language_model import Logits
from tvmpipe.generation.tokenizer import Tokenizer

SENTENCES = [
    "The quick brown fox jumps over the lazy dog, and the dog sleeps on.",
    "Schöne Grüße aus Köln; naïve café, 5 €, 漢字かな交じり文 and 🦊 🐕‍🦺!",
    "She sells sea shells by the sea shore; the shells she sells are surely sea shells.",
    "def add(a, b):\n    return a + b\n\nprint(add(1, 2))\n",
]
TEMPLATE = (
    "{%- for message in messages %}"
    "{%- if message.role not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('there is no role ' + message.role) }}{% endif %}"
    "<|{{ message.role }}|>{{ message.content }}{{ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
END = "<|end|>"


def byte_level(size: int = 420) -> tokenizers.Tokenizer:
    """As GPT-2's, Llama 3's and Qwen's: tokens are of bytes."""
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END, "<|user|>", "<|assistant|>", "<|system|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(SENTENCES, trainer)
    return inner


def byte_fallback() -> tokenizers.Tokenizer:
    """As Llama 2's and Gemma's: words begin with a mark, and what is no token is spelled in bytes."""
    trained = tokenizers.Tokenizer(models.BPE(unk_token="<unk>"))
    trained.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    special = ["<unk>", END, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False, limit_alphabet=40)
    trained.train_from_iterator(SENTENCES, trainer)
    vocabulary = trained.get_vocab()
    merges = [tuple(one) for one in json.loads(trained.to_str())["model"]["merges"]]
    inner = tokenizers.Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    inner.normalizer = trained.normalizer
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    inner.add_special_tokens(["<unk>", END])
    return inner


def word_pieces() -> tokenizers.Tokenizer:
    """As BERT's: pieces inside of words are marked."""
    inner = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]", END], show_progress=False)
    inner.train_from_iterator(SENTENCES, trainer)
    return inner


def metaspace() -> tokenizers.Tokenizer:
    """As T5's: a mark for each space, and no bytes."""
    inner = tokenizers.Tokenizer(models.Unigram())
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["<unk>", END], unk_token="<unk>", show_progress=False
    )
    inner.train_from_iterator(SENTENCES, trainer)
    return inner


KINDS = {"byte level": byte_level, "byte fallback": byte_fallback, "word pieces": word_pieces, "metaspace": metaspace}


def make_tokenizer(inner: tokenizers.Tokenizer | None = None) -> Tokenizer:
    """With a chat template, and one token that ends texts."""
    inner = inner or byte_level()
    end = inner.token_to_id(END)
    assert end is not None
    return Tokenizer(inner, eos_ids=frozenset([end]), special={"eos_token": END}, chat=ChatTemplate(TEMPLATE, "a test"))


class TableModel:
    """Logits after each token are a seeded row for the last two tokens; those of `never` are low.

    `delay_s` is what a token takes, and none is answered while `gate` is not set. With `repeating` the rows are of the
    last token alone and have one clear winner, so that texts run in circles. Sequences that are open are counted.
    """

    def __init__(
        self,
        vocabulary: int,
        *,
        context: int = 512,
        sequences: int = 4,
        delay_s: float = 0.0,
        seed: int = 0,
        repeating: bool = False,
        never: Sequence[int] = (),
    ) -> None:
        self.vocabulary = vocabulary
        self.context = context
        self.sequences = sequences
        self.forgets = True
        self.delay_s = delay_s
        self.seed = seed
        self.repeating = repeating
        self.never = list(never)
        self.gate = threading.Event()
        self.gate.set()
        self.lock = threading.Lock()
        self.open = 0
        self.opened = 0
        self.most = 0
        self.fed = 0
        self.executor = ThreadPoolExecutor(sequences)

    def sequence(self) -> TableSequence:
        with self.lock:
            if self.open >= self.sequences:
                raise QueueFullError(f"all {self.sequences} sequences are open")
            self.open += 1
            self.opened += 1
            self.most = max(self.most, self.open)
        return TableSequence(self)

    def row(self, tokens: Sequence[int]) -> Logits:
        """Logits after these tokens."""
        last = tokens[-1:] if self.repeating else tokens[-2:]
        generator = np.random.default_rng([self.seed, *last])
        row = generator.normal(0, 2, self.vocabulary).astype(np.float32)
        row[self.never] = -30
        if self.repeating:
            row[int(generator.integers(self.vocabulary // 4, self.vocabulary))] = 20
        return row


class TableSequence:
    """One of its sequences."""

    def __init__(self, model: TableModel) -> None:
        self.model = model
        self.tokens: list[int] = []
        self.closed = False
        self.busy = False

    @property
    def length(self) -> int:
        return len(self.tokens)

    def feed(self, ids: Sequence[int]) -> Future[Logits]:
        assert not self.closed
        assert not self.busy
        assert 0 < len(ids) <= self.model.context - self.length
        self.busy = True
        return self.model.executor.submit(self._feed, list(ids))

    def _feed(self, ids: list[int]) -> Logits:
        assert self.model.gate.wait(PATIENCE_S)
        time.sleep(self.model.delay_s * len(ids))
        rows = []
        for token in ids:
            self.tokens.append(token)
            rows.append(self.model.row(self.tokens))
        with self.model.lock:
            self.model.fed += len(ids)
        self.busy = False
        return np.stack(rows)

    def truncate(self, length: int) -> None:
        assert not self.busy
        assert 0 < length <= self.length
        del self.tokens[length:]

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            with self.model.lock:
                self.model.open -= 1
