"""`serve`: a model behind OpenAI's API."""

from __future__ import annotations

from pathlib import Path

from tvmpipe.commands.progress import stderr
from tvmpipe.console import plain
from tvmpipe.generation.open_model import open_language_model
from tvmpipe.generation.tokenizer import load_tokenizer
from tvmpipe.runtime.head.options import ConnectOptions
from tvmpipe.serve.server import ServeOptions, TextServer


def serve_bundle(
    bundle: Path, *, tracker: str, tokenizer: Path, name: str | None, connecting: ConnectOptions, options: ServeOptions
) -> None:
    """Serve until interrupted or terminated. Raises what opening the model and listening raise."""
    one = load_tokenizer(tokenizer)
    with open_language_model(bundle, tracker, connecting) as model:
        server = TextServer(model, one, name or bundle.stem, options)
        stderr.print(
            plain(
                f"serving {name or bundle.stem} on http://{server.address}/v1: {model.sequences} sequences at once, "
                f"{options.queue} more wait"
            ),
            soft_wrap=True,
        )
        server.run()
