"""The cost model that plans are made with unless another is given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tvmpipe.passes.kernels  # noqa: F401  # registers what cost models must know of each kernel
from tvmpipe.targets.cost.estimates import LearnedCost
from tvmpipe.targets.description.target import TargetDescription
from tvmpipe.targets.store.profile_store import ProfileStore, default_store, shipped


def default_cost(folder: Path | None = None, own: Sequence[TargetDescription] = ()) -> LearnedCost:
    """Prices from the measurements that come with tvmpipe and those in `folder`, by default the user's own.

    `own` are boards of the user's, which a device may be like.
    """
    folder = folder or default_store()
    return LearnedCost([ProfileStore(one) for one in (*shipped(), folder)], folder / "models", own=own)
