"""From a bundle to the model that commands generate with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tvmpipe.bundle import load
from tvmpipe.errors import BundleError
from tvmpipe.generation.language_model import LanguageModel
from tvmpipe.runtime.head.options import ConnectOptions


@contextlib.contextmanager
def open_language_model(path: Path, tracker: str, options: ConnectOptions) -> Iterator[LanguageModel]:
    """The model of a bundle on the devices behind a tracker ("host:port"), until the context ends.

    Raises BundleError for a bundle whose model keeps no state that grows with a sequence.
    """
    load(path)
    raise BundleError(
        f"the model of bundle {path} keeps no state that grows with a sequence (a KV cache), so that it cannot generate"
    )
    yield
