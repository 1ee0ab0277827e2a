"""What it costs to sum products of bytes, in loops that take four of them where others take a float."""

from __future__ import annotations

from dataclasses import replace

from tvmpipe.passes.kernels.dot_product.choose import instructions_of
from tvmpipe.targets.cost.phases import Phases
from tvmpipe.targets.description.cpu_model import describe_cpu
from tvmpipe.targets.description.target import TargetDescription


def with_instructions(found: Phases, target: TargetDescription, threads: int) -> Phases:
    """The phases of loops over floats, with the instructions that a target takes for bytes instead."""
    return replace(found, cycles=found.cycles * instructions_of(describe_cpu(target, threads)).steps)
