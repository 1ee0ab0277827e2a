"""What a model costs that is run in steps of several lengths: prompts in long ones, and then a token at a time.

A plan is for one token that is generated, with its share of a prompt: so many steps of each bucket. Their costs and
what they send count together on the primitives of the largest bucket, where those of other buckets follow (see
follow_nodes.py). What devices hold is that of the largest bucket, as ever.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tvmpipe.chunks import Chunk, Chunks
from tvmpipe.errors import InputError
from tvmpipe.passes.frontend.signature import Signature
from tvmpipe.passes.graph.bucket import Buckets
from tvmpipe.passes.graph.primitives import PrimitiveGraph
from tvmpipe.passes.planning.cost_table import CostTable
from tvmpipe.passes.planning.follow_nodes import follow_nodes

PROMPT, GENERATE = 512, 128
"""Elements of a prompt and elements that are generated, where nothing is said of them; fewer where the context is."""


@dataclass(frozen=True)
class StepMix:
    """Elements of a prompt, elements that are generated one by one, and what follows from them.

    `steps` are the elements of a step in each bucket, the largest first, `weights` how many such steps there are for
    each element that is generated; where none is, for each step.
    """

    prompt: int
    generate: int
    steps: tuple[int, ...]
    weights: tuple[float, ...]

    def sentence(self) -> str:
        """What the plan's figures are of."""
        shares = ", ".join(f"{weight:.3g} of {step}" for step, weight in zip(self.steps, self.weights, strict=True))
        unit = "token that is generated" if self.generate else "step"
        return (
            f"figures are of one {unit}, where {self.generate} follow a prompt of {self.prompt}: its share of steps "
            f"of each length is {shares}"
        )


def step_mix(
    signature: Signature,
    buckets: Buckets,
    costs: Sequence[CostTable],
    prompt: int | None,
    generate: int | None,
) -> StepMix | None:
    """The steps of a model whose states grow; None for others. `costs` are of each bucket.

    Raises InputError for numbers that do not fit the context, or the model.
    """
    if signature.context is None:
        if prompt is not None or generate is not None:
            raise InputError("--prompt and --generate are for models with states that grow; this one has none")
        return None
    context = signature.context
    if prompt is None:
        prompt = min(PROMPT, (context - (generate or 0)) * 4 // 5)
    if generate is None:
        generate = min(GENERATE, context - prompt)
    if prompt + generate < 1 or prompt + generate > context:
        raise InputError(
            f"--prompt {prompt} and --generate {generate} are {prompt + generate} elements in all; a sequence has 1 to "
            f"{context}"
        )
    everyone = (signature, *(bucket.signature for bucket in buckets.others))
    steps = [max(state.adds for state in one.states) for one in everyone]
    exact = buckets.all_exact or ({},)
    seconds = [min(sum(mine) for mine in table.latency_s.values()) for table in costs]
    chunks = [Chunk(*one) for one in zip(steps, seconds, (not why for why in exact), strict=True)]
    least = sorted(chunks, key=lambda chunk: chunk.elements)
    counts: Counter[int] = Counter()
    if prompt:
        counts.update(_bucket_of(steps, count) for count in Chunks(tuple(least)).split(prompt, context))
    counts[steps.index(min(steps))] += generate
    unit = generate or counts.total()
    return StepMix(prompt, generate, tuple(steps), tuple(counts[place] / unit for place in range(len(steps))))


def _bucket_of(steps: Sequence[int], count: int) -> int:
    """The bucket of a step with so many elements."""
    return steps.index(min(step for step in steps if step >= count))


def mixed(graphs: Sequence[PrimitiveGraph], costs: Sequence[CostTable], mix: StepMix) -> CostTable:
    """What primitives of the first graph cost in all steps of the mix; `graphs` and `costs` are of each bucket."""
    reference, table = graphs[0], costs[0]
    place_of = {name: primitive.index for name, primitive in reference.by_name().items()}
    followed = []
    for graph in graphs[1:]:
        # As if each primitive of the reference were on a device of its own: whoever follows it costs as well there.
        homes = follow_nodes(graph, reference, {name: (name,) for name in place_of})
        followed.append([(primitive.index, place_of[homes[name][0]]) for name, primitive in graph.by_name().items()])

    def all_steps(columns: Sequence[Sequence[float]]) -> tuple[float, ...]:
        total = [mix.weights[0] * seconds for seconds in columns[0]]
        for weight, column, pairs in zip(mix.weights[1:], columns[1:], followed, strict=True):
            for index, place in pairs:
                total[place] += weight * column[index]
        return tuple(total)

    def of_devices(
        pick: Mapping[str, Sequence[float]], others: Sequence[Mapping[str, Sequence[float]]]
    ) -> dict[str, tuple[float, ...]]:
        return {device: all_steps([pick[device], *(other[device] for other in others)]) for device in pick}

    rest = costs[1:]
    runs = sum(mix.weights)
    return replace(
        table,
        latency_s=of_devices(table.latency_s, [one.latency_s for one in rest]),
        low_s=of_devices(table.low_s, [one.low_s for one in rest]),
        high_s=of_devices(table.high_s, [one.high_s for one in rest]),
        entry_s={name: (runs * fixed, per_byte) for name, (fixed, per_byte) in table.entry_s.items()},
    )


def with_traffic(graph: PrimitiveGraph, mix: StepMix) -> PrimitiveGraph:
    """The largest bucket's graph, whose values are as large on links as those of all steps of the mix together.

    Those with an extent of a step are as long as each step is; others are sent as they are in each.
    """
    elements = sum(step * weight for step, weight in zip(mix.steps, mix.weights, strict=True))
    runs, largest = sum(mix.weights), mix.steps[0]
    return replace(
        graph,
        traffic={value.id: elements / largest if largest in value.spec.shape else runs for value in graph.values},
    )
