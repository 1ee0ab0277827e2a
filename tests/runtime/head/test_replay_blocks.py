"""Histories in long steps: every step once and in order, each block in a bucket that takes it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tvmpipe.runtime.head.replay_blocks import StepSizes, Taken

CONTEXT = 60
SIZES = st.lists(st.tuples(st.integers(1, 16), st.booleans()), min_size=1, max_size=4, unique_by=lambda one: one[0])


def taken(elements: list[int], gaps: list[bool]) -> list[Taken]:
    """Steps behind one another, or, at a gap, behind elements that were cut off."""
    steps: list[Taken] = []
    start = 0
    for sample, (count, gap) in enumerate(zip(elements, gaps, strict=True)):
        steps.append(Taken(sample, start, count))
        start += count if not gap else max(0, count - 1)
    return steps


@given(SIZES, st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=12))
def test_blocks(sizes: list[tuple[int, bool]], steps: list[tuple[int, bool]]) -> None:
    history = taken([count for count, _ in steps], [gap for _, gap in steps])
    kinds = StepSizes(tuple(size for size, _ in sizes), tuple(padded for _, padded in sizes), CONTEXT)
    blocks = kinds.blocks(history)
    joined = [step for block in blocks for step in block.steps]
    assert joined == [step for step in history if step in joined], "each once, in order"
    for block in blocks:
        assert len(block.steps) > 1
        assert list(block.steps) == history[block.steps[0].sample : block.steps[-1].sample + 1]
        assert all(b.start == a.start + a.elements for a, b in zip(block.steps, block.steps[1:], strict=False))
        count, size = sum(step.elements for step in block.steps), kinds.sizes[block.bucket]
        assert count == size or (count < size and kinds.padded[block.bucket])
        assert block.steps[0].start + size <= CONTEXT


def test_single_tokens_become_as_few_steps_as_can_be() -> None:
    history = [Taken(sample, sample, 1) for sample in range(55)]
    exact = StepSizes((16, 4, 1), (False, False, False), CONTEXT)
    assert [len(block.steps) for block in exact.blocks(history)] == [16, 16, 16, 4]
    padded = StepSizes((16, 4, 1), (True, True, True), CONTEXT)
    assert [len(block.steps) for block in padded.blocks(history)] == [16, 16, 16, 4, 3]
