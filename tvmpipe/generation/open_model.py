"""From a bundle to the model that commands generate with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tvmpipe.bundle import load
from tvmpipe.generation.language_model import LanguageModel
from tvmpipe.generation.pipeline_model import PipelineModel, find_tokens
from tvmpipe.runtime.head.connect import open_pipeline
from tvmpipe.runtime.head.options import ConnectOptions


@contextlib.contextmanager
def open_language_model(path: Path, tracker: str, options: ConnectOptions) -> Iterator[LanguageModel]:
    """The model of a bundle on the devices behind a tracker ("host:port"), until the context ends.

    Raises BundleError for a bundle whose model does not generate: it keeps no state from token to token, or
    takes other things than tokens; and what `connect` raises.
    """
    bundle = load(path)
    find_tokens(bundle.manifest, str(path))
    with open_pipeline(bundle.manifest, bundle, tracker, options) as pipe:
        yield PipelineModel(pipe, str(path))
