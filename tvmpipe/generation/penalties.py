"""Logits changed for what was said before, and for what the user asks of single tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tvmpipe.generation.options import SamplingOptions


def penalise(
    logits: npt.NDArray[np.float64], prompt: Sequence[int], generated: Sequence[int], options: SamplingOptions
) -> None:
    """Change `logits` [vocabulary] in place: repetition penalty, then presence and frequency, then biases.

    The repetition penalty is that of CTRL (Keskar et al. 2019, arXiv:1909.05858, section 4.1) for every token of prompt
    and answer, with the sign taken into account as is usual since: z / theta where z > 0, else z * theta. Presence and
    frequency are OpenAI's (API reference, "frequency and presence penalties"): z - c * frequency - (c > 0) * presence,
    where c counts the token in the answer. Biases are added last; those of tokens that the model lacks are ignored.
    """
    if options.repetition_penalty != 1:
        seen = np.unique(np.concatenate([_ids(prompt), _ids(generated)]))
        found = logits[seen]
        logits[seen] = np.where(found > 0, found / options.repetition_penalty, found * options.repetition_penalty)
    if generated and (options.presence_penalty or options.frequency_penalty):
        said, counts = np.unique(_ids(generated), return_counts=True)
        logits[said] -= options.presence_penalty + options.frequency_penalty * counts
    for token, bias in options.logit_bias.items():
        if token < len(logits):
            logits[token] += bias


def _ids(tokens: Sequence[int]) -> npt.NDArray[np.int64]:
    return np.asarray(tokens, dtype=np.int64)
