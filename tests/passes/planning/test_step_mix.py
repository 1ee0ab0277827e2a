"""Plans for prompts and single steps: what they cost is what the steps of each bucket cost, as often as there are."""

from __future__ import annotations

import pytest

from tests.models import branchy
from tests.passes.frontend.states.decoders import Decoder
from tvmpipe.errors import InputError
from tvmpipe.passes import driver
from tvmpipe.passes.frontend.options import ImportOptions
from tvmpipe.passes.options import BuildOptions
from tvmpipe.passes.planning.evaluate import price_stages
from tvmpipe.targets.description.cluster import parse_cluster

CLUSTER = '[[device]]\nname = "a"\n\n[[device]]\nname = "b"\nslowdown = 2\n'
CONTEXT = 256


def planned(prompt: int | None, generate: int | None, fused: driver.Fused | None = None) -> driver.Planned:
    importing = ImportOptions(context=CONTEXT, buckets={"step": [1, 16, 64]}, sequences=2)
    fused = fused or driver.front(Decoder(layers=4, longest=CONTEXT).model(), importing)
    options = BuildOptions(prompt=prompt, generate=generate, time_limit_s=2.0)
    return driver.plan(fused, parse_cluster(CLUSTER), options)


@pytest.fixture(scope="module")
def fused() -> driver.Fused:
    importing = ImportOptions(context=CONTEXT, buckets={"step": [1, 16, 64]}, sequences=2)
    return driver.front(Decoder(layers=4, longest=CONTEXT).model(), importing)


@pytest.mark.parametrize(("prompt", "generate"), [(100, 40), (0, 7), (64, 0), (130, 1)])
def test_a_plan_costs_what_its_steps_cost(fused: driver.Fused, prompt: int, generate: int) -> None:
    made = planned(prompt, generate, fused)
    assert made.mix is not None
    assert made.mix.steps == (64, 16, 1)
    tokens = sum(step * weight for step, weight in zip(made.mix.steps, made.mix.weights, strict=True))
    assert tokens * (generate or sum(_counts(prompt))) >= prompt + generate
    prices = [made._largest_price(), *made.bucket_prices(made.plan)]
    assert [len(price.stages) for price in prices] == [len(made.plan.stages)] * 3  # a short step makes no more hops
    for name, load in made.plan.loads.items():
        each = [price.loads[name].compute_s if name in price.loads else 0.0 for price in prices]
        wanted = sum(weight * seconds for weight, seconds in zip(made.mix.weights, each, strict=True))
        # Stages are entered with a little more or less; what primitives take is the same.
        assert load.compute_s == pytest.approx(wanted, rel=0.02)
    for link in made.plan.links:
        sizes = [
            sum(one.size_bytes for one in price.links if (one.sender, one.receiver) == (link.sender, link.receiver))
            for price in prices
        ]
        wanted = sum(weight * size for weight, size in zip(made.mix.weights, sizes, strict=True))
        assert link.size_bytes == pytest.approx(wanted, rel=0.25, abs=64)


def _counts(prompt: int) -> list[int]:
    return [prompt // 64, 1 if prompt % 64 else 0]


def test_what_is_held_is_that_of_the_longest_step(fused: driver.Fused) -> None:
    """However few of them there are."""
    one, other = planned(200, 1, fused), planned(1, 200, fused)
    alone = [price_stages(made.graph, made.costs, made.cluster, one.plan.stages) for made in (one, other)]
    held = [{name: load.held_bytes for name, load in price.loads.items()} for price in alone]
    assert held[0] == held[1]


def test_the_report_says_which_steps_decide(fused: driver.Fused) -> None:
    facts = planned(100, 40, fused).report()
    assert [set(one) >= {"steps", "share"} for one in facts["buckets"]] == [True] * 3
    assert sum(one["share"] for one in facts["buckets"]) == pytest.approx(1.0)
    assert facts["buckets"][2]["steps"] == 1.0
    assert any("of one token that is generated, where 40 follow a prompt of 100" in note for note in facts["notes"])


def test_prompt_and_context(fused: driver.Fused) -> None:
    with pytest.raises(InputError, match="--prompt 250 and --generate 10 are 260 elements in all; a sequence has 1 to"):
        planned(250, 10, fused)
    made = planned(None, None, fused)
    assert made.mix is not None
    assert made.mix.prompt + made.mix.generate <= CONTEXT
    assert made.mix.generate > 0
    with pytest.raises(InputError, match="--prompt and --generate are for models with states that grow"):
        driver.plan(driver.front(branchy()), parse_cluster(CLUSTER), BuildOptions(prompt=1))
