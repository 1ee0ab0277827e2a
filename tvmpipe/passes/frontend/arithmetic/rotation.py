"""The rotation of rotary position embeddings (Su et al., 2021) as Relax operators, for all converters that have one."""

from __future__ import annotations

from typing import Any

from tvmpipe.passes.frontend.arithmetic.emit import Emitter


def rotated(emit: Emitter, x: Any, cosine: Any, sine: Any, interleaved: bool) -> Any:
    """`x` [B, S, heads, D] with pairs of numbers turned by the angles of `cosine` and `sine` [B or 1, S, R / 2].

    The first R numbers of each head are turned, the rest stays. A pair is a number of the first half and its like of
    the second, or two neighbours (`interleaved`).
    """
    batch, length, heads, depth = emit.shape(x)
    outer, _, half = emit.shape(cosine)
    cosine, sine = (emit.reshape(angle, (outer, length, 1, half)) for angle in (cosine, sine))
    whole = emit.cut(x, 3, 0, 2 * half)
    if interleaved:
        pairs = emit.reshape(whole, (batch, length, heads, half, 2))
        first, second = (emit.reshape(emit.cut(pairs, 4, at, at + 1), (batch, length, heads, half)) for at in (0, 1))
    else:
        first, second = emit.cut(whole, 3, 0, half), emit.cut(whole, 3, half, 2 * half)
    turned = [
        emit("subtract", emit("multiply", first, cosine), emit("multiply", second, sine)),
        emit("add", emit("multiply", first, sine), emit("multiply", second, cosine)),
    ]
    if interleaved:
        columns = [emit.reshape(part, (batch, length, heads, half, 1)) for part in turned]
        result = emit.reshape(emit.concatenate(columns, 4), (batch, length, heads, 2 * half))
    else:
        result = emit.concatenate(turned, 3)
    return result if 2 * half == depth else emit.concatenate([result, emit.cut(x, 3, 2 * half, depth)], 3)
