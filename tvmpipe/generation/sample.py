"""From logits to a token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tvmpipe.errors import StageError
from tvmpipe.generation.filters import Floats, Ids, keep_min_p, keep_top_k, keep_top_p, powers, softmax
from tvmpipe.generation.language_model import Logits
from tvmpipe.generation.options import SamplingOptions
from tvmpipe.generation.penalties import penalise


def sample(
    logits: Logits,
    prompt: Sequence[int],
    generated: Sequence[int],
    options: SamplingOptions,
    generator: np.random.Generator,
) -> int:
    """The token to come after `prompt` and `generated`, given its logits [vocabulary].

    Greedy takes the largest logit after penalties and biases, of equal ones the lowest id, and draws nothing from the
    generator. Otherwise one number is drawn: from what `distribution` leaves. Raises StageError for logits of which
    none is a number.
    """
    scores = penalised(logits, prompt, generated, options)
    if options.greedy:
        return int(np.argmax(scores))
    ids, probabilities = distribution(scores, options)
    place = int(np.searchsorted(np.cumsum(probabilities), generator.random(), side="right"))
    return int(ids[min(place, len(ids) - 1)])  # the sum may end below 1 by a rounding


def penalised(
    logits: Logits, prompt: Sequence[int], generated: Sequence[int], options: SamplingOptions
) -> npt.NDArray[np.float64]:
    """Logits [vocabulary] after penalties and biases. Raises StageError where the largest is not a finite number."""
    if not np.isfinite(logits.max()):  # NaN where any is
        raise StageError(f"the logits after token {len(prompt) + len(generated)} of a sequence are not finite numbers")
    scores = logits.astype(np.float64)
    penalise(scores, prompt, generated, options)
    return scores


def distribution(scores: Floats, options: SamplingOptions) -> tuple[Ids, Floats]:
    """Tokens that may be drawn, by ascending ids, and their probabilities, which sum up to 1.

    In the order of transformers: scores / temperature, the `top_k` largest, of these `top_p` of the probability, of
    these all with `min_p` of the largest; each filter sees the probabilities that the one before it leaves.
    """
    with np.errstate(over="ignore"):  # a tiny temperature makes -inf of all but the largest, as it should
        scaled = scores - scores.max()
        scaled /= options.temperature
    ids = keep_top_k(scaled, options.top_k or len(scaled))
    probabilities = softmax(scaled[ids] if options.top_k else scaled)
    if options.top_p < 1:
        ids, probabilities = _keep(ids, probabilities, keep_top_p(probabilities, options.top_p))
    if options.min_p > 0:
        ids, probabilities = _keep(ids, probabilities, keep_min_p(probabilities, options.min_p))
    return ids, probabilities


def log_probabilities(logits: Logits) -> Floats:
    """log softmax of the model's own logits [vocabulary], before penalties, biases and temperature."""
    shifted = logits.astype(np.float64) - float(logits.max())
    return np.asarray(shifted - np.log(powers(shifted).sum()))


def _keep(ids: Ids, probabilities: Floats, kept: Ids) -> tuple[Ids, Floats]:
    return ids[kept], probabilities[kept] / probabilities[kept].sum()
