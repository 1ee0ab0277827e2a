"""What generation asks of a model: sequences that take tokens and answer logits."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]


class TokenSequence(Protocol):
    """One run of tokens through a model, with the state that they leave. One thread uses it at a time."""

    @property
    def length(self) -> int:
        """Tokens that it has been fed."""
        ...

    def feed(self, ids: Sequence[int]) -> Future[Logits]:
        """Logits after each of these tokens, [len(ids), vocabulary]. One call at a time is under way."""
        ...

    def truncate(self, length: int) -> None:
        """Forget the tokens after the first `length`, as after speculation that was wrong."""
        ...

    def close(self) -> None:
        """Free its state on the devices; idempotent. When it returns, another sequence may be opened in its place."""
        ...


class LanguageModel(Protocol):
    """A model of which several sequences are open at once. Any thread may use it."""

    @property
    def context(self) -> int:
        """Tokens that a sequence may have."""
        ...

    @property
    def vocabulary(self) -> int:
        """Logits after each token."""
        ...

    @property
    def forgets(self) -> bool:
        """Whether its sequences can be truncated: states that each token replaces cannot be had back."""
        ...

    @property
    def sequences(self) -> int:
        """Sequences that may be open at once."""
        ...

    def sequence(self) -> TokenSequence:
        """A new sequence without tokens. Raises QueueFullError when as many are open as may be."""
        ...
