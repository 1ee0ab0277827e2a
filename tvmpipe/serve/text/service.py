"""What the routes of a server share."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from tvmpipe.generation.tokenizer import Tokenizer
from tvmpipe.serve.text.engine import Engine
from tvmpipe.serve.text.metrics import Metrics


@dataclass(frozen=True)
class Service:
    """A model under a name, what runs its sequences, and what is counted. `draft` is for greedy requests."""

    name: str
    engine: Engine
    tokenizer: Tokenizer
    metrics: Metrics
    draft: int = 0
    created: int = field(default_factory=lambda: int(time.time()))
