"""`serve`: a model behind OpenAI's API, or behind the Open Inference Protocol."""

from __future__ import annotations

import functools
from pathlib import Path

from tvmpipe.bundle import load
from tvmpipe.commands.progress import stderr
from tvmpipe.console import plain
from tvmpipe.runtime.head.connect import open_pipeline
from tvmpipe.runtime.head.options import ConnectOptions
from tvmpipe.serve.server import ServeOptions


def serve_text(
    bundle: Path,
    *,
    tracker: str,
    tokenizer: Path,
    name: str | None,
    draft: int,
    connecting: ConnectOptions,
    options: ServeOptions,
) -> None:
    """Serve until interrupted or terminated. Raises what opening the model and listening raise."""
    from tvmpipe.generation.open_model import open_language_model
    from tvmpipe.generation.tokenizer import load_tokenizer
    from tvmpipe.serve.text.server import TextServer

    one = load_tokenizer(tokenizer)
    with open_language_model(bundle, tracker, connecting) as model:
        server = TextServer(model, one, name or bundle.stem, options, draft)
        _say(
            f"serving {name or bundle.stem} on http://{server.address}/v1: {model.sequences} sequences at once, "
            f"{options.queue} more wait"
        )
        server.run()


def serve_tensors(
    bundle: Path,
    *,
    tracker: str,
    name: str | None,
    grpc_port: int | None,
    connecting: ConnectOptions,
    options: ServeOptions,
) -> None:
    """The same for a model without states."""
    from tvmpipe.serve.tensors.server import TensorServer

    beside = None
    if grpc_port is not None:
        from tvmpipe.serve.tensors.grpc_service import grpc_beside

        beside = functools.partial(grpc_beside, options.host, grpc_port)
    loaded = load(bundle)
    with open_pipeline(loaded.manifest, loaded, tracker, connecting) as pipe:
        server = TensorServer(pipe, name or bundle.stem, options, beside)
        also = "" if grpc_port is None else f" and gRPC at port {grpc_port}"
        _say(
            f"serving {name or bundle.stem} on http://{server.address}/v2{also}: {pipe.inflight} requests at once, "
            f"{options.queue} more wait"
        )
        server.run()


def _say(sentence: str) -> None:
    stderr.print(plain(sentence), soft_wrap=True)
