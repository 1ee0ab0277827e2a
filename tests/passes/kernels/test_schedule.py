"""Every primitive of usual networks has a rule of its own, and each distinct one is compiled once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import onnx
import pytest

from tests.passes.compiled import check, runnable, schedule_messages
from tests.passes.networks import resnet_like, transformer_like
from tvmpipe.passes.driver import Fused, front
from tvmpipe.passes.kernels import KERNELS
from tvmpipe.passes.kernels.inspect import NotApplicable
from tvmpipe.passes.kernels.schedule import schedule_module
from tvmpipe.targets.description.boards import find_target

NETWORKS = [resnet_like, transformer_like]
OPERATORS: dict[Callable[..., Any], set[str]] = {
    resnet_like: {"conv2d", "winograd_conv2d", "depthwise_conv2d", "max_pool2d", "global_avg_pool2d", "matmul"},
    transformer_like: {"attention", "layer_norm", "matmul"},
}


@pytest.fixture(scope="module", params=NETWORKS, ids=lambda network: network.__name__)
def state(request: pytest.FixtureRequest) -> Fused:
    return front(request.param())


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("target", ["native", "pi5", "x86-64-v3"])
def test_no_kernel_needs_the_general_rule(state: Fused, target: str, threads: int) -> None:
    with schedule_messages() as messages:
        schedule_module(state.module, find_target(target), threads)
    assert messages == []


def test_falling_back_is_logged() -> None:
    """The test above would see it."""

    def refuse(*_: Any) -> None:
        raise NotApplicable("not today")

    with pytest.MonkeyPatch.context() as patch:
        for name, kernel in KERNELS.items():
            patch.setitem(KERNELS, name, replace(kernel, schedule=refuse))
        with schedule_messages() as messages:
            schedule_module(front(transformer_like(1)).module, find_target("native"), 1)
    assert any(message.startswith("the general rule for") for message in messages)


@pytest.mark.parametrize("network", NETWORKS)
def test_equal_primitives_are_compiled_once(network: Callable[[int], onnx.ModelProto]) -> None:
    """Twice as many equal layers call the same functions more often."""
    few, many = (front(network(count)).graph for count in (2, 4))
    assert few is not None
    assert many is not None
    assert len(many.primitives) > len(few.primitives)
    assert len({p.function for p in many.primitives}) == len({p.function for p in few.primitives})


@pytest.mark.parametrize(
    ("target", "threads"),
    [("native", 2), ("x86-64-v2", 1), ("x86-64-v2", 2), ("x86-64-v3", 1), ("x86-64-v3", 2), ("x86-64-v4", 2)],
)
@pytest.mark.parametrize("network", NETWORKS)
def test_networks_equal_onnx_runtime(network: Callable[..., onnx.ModelProto], target: str, threads: int) -> None:
    if not runnable(target):
        pytest.skip(f"this machine cannot run code for {target}")
    # Smaller tiles compile in half the time; the larger ones on one target are enough.
    settings = {"size": 30} if network is resnet_like and (target, threads) != ("x86-64-v3", 2) else {}
    operators = check(network(1, **settings), target=target, threads=threads)
    assert OPERATORS[network] <= set(operators)
