"""What an exporter needs of an architecture. For the Python that has torch; nothing here needs tvmpipe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Architecture:
    """`make` gives a module with random weights, `arguments` what it is called with when it is exported."""

    make: Callable[[], Any]
    arguments: Callable[[], tuple[Any, ...]]


class AsTensors(torch.nn.Module):  # type: ignore[misc]
    """A module whose arguments may have names, and whose results are tensors and no mapping of them."""

    def __init__(self, module: Any, arguments: Sequence[str] = (), results: Sequence[str] = ()) -> None:
        super().__init__()
        self.module = module
        self._arguments = arguments
        self._results = results

    def forward(self, *values: Any) -> Any:
        """Those of its results that are asked for; all tensors among them where none are."""
        named = dict(zip(self._arguments, values, strict=True)) if self._arguments else {}
        made = self.module(**named) if named else self.module(*values)
        if isinstance(made, list) and made and isinstance(made[0], dict):  # torchvision's detectors: one for each image
            made = made[0]
        if not hasattr(made, "items"):
            return made
        wanted = self._results or list(made)
        return tuple(made[name] for name in wanted if name in made and isinstance(made[name], torch.Tensor))


def image(channels: int, height: int, width: int) -> Callable[[], tuple[Any, ...]]:
    """One image of normal noise."""
    return lambda: (torch.randn(1, channels, height, width),)


def words(length: int, vocabulary: int = 90) -> Any:
    """Token ids, int64, of shape [1, length]."""
    return torch.randint(0, vocabulary, (1, length))


def ones(*shape: int) -> Any:
    """An attention mask that masks nothing, int64."""
    return torch.ones(*shape, dtype=torch.long)
