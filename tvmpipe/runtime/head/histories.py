"""What the executor knows of open sequences: their steps, which are answered in order, and fed again where states are
lost. As the state machine that uses it: no clock, thread, socket or tensor.

A sequence's history is its steps that have been answered. After every opening the devices have no states, so that all
of it is fed once more before what was under way, in steps as long as there are buckets for; their results are dropped.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace

from tvmpipe.runtime.head.batches import Batch
from tvmpipe.runtime.head.events import Began, Cut, Ended, Submitted
from tvmpipe.runtime.head.instructions import Answer, Fail, Failure, Forget, Freed, Instruction, Join
from tvmpipe.runtime.head.replay_blocks import StepSizes, Taken
from tvmpipe.runtime.transport.wire import Step


@dataclass
class _Entry:
    """A step: what was submitted, as the so-manieth of its sequence.

    `cut`: nothing that comes later reads what it leaves. `tries`: openings that it was under way in; `suspect`: a stage
    has raised for it, or hung.
    """

    event: Submitted
    number: int
    answered: bool = False
    cut: bool = False
    tries: int = 1
    suspect: bool = False


@dataclass
class _Sequence:
    slot: int
    samples: list[int] = field(default_factory=list)
    steps: dict[int, _Entry] = field(default_factory=dict)  # what is fed again or under way, by sample, in order
    submitted: int = 0
    unanswered: int = 0
    fed: int = 0  # in this opening
    flying: deque[int] = field(default_factory=deque)  # samples that were fed in this opening, until they are done
    ended: bool = False
    failure: Failure | None = None


class Histories:
    """All sequences that have a slot.

    Some of what was given out to be fed is not wanted any more once `stale` is set, which whoever looks unsets. `sizes`
    are of steps that may be joined, None where they may not.
    """

    def __init__(self, sizes: StepSizes | None = None) -> None:
        self._sizes = sizes
        self.stale = False
        self._sequences: dict[int, _Sequence] = {}
        self._owner: dict[int, int] = {}  # of each sample its sequence
        self._numbers: Counter[int] = Counter()  # steps that each slot has had in this opening

    def wants(self, sample: int) -> bool:
        """Whether a sample that waits is still to be fed."""
        owner = self._owner.get(sample)
        return owner is not None and sample in self._sequences[owner].steps

    @property
    def unanswered(self) -> list[int]:
        """Samples that somebody waits for."""
        steps = (one for sequence in self._sequences.values() for one in sequence.steps.values())
        return [one.event.sample for one in steps if not one.answered]

    def clear(self) -> None:
        """There is nothing any more."""
        self._sequences.clear()
        self._owner.clear()

    def begin(self, event: Began) -> None:
        """A sequence has a slot from now on."""
        self._sequences[event.sequence] = _Sequence(event.slot)

    def submit(self, event: Submitted) -> Failure | None:
        """Note a step. Returns why it cannot be done."""
        sequence = None if event.sequence is None else self._sequences.get(event.sequence)
        if event.sequence is None or sequence is None or sequence.ended:
            return Failure(None, None, event.sample, "the sequence is closed")
        if sequence.failure is not None:
            return sequence.failure.of(event.sample)
        sequence.steps[event.sample] = _Entry(event, sequence.submitted)
        sequence.samples.append(event.sample)
        sequence.submitted += 1
        sequence.unanswered += 1
        self._owner[event.sample] = event.sequence
        return None

    def cut(self, event: Cut) -> list[Instruction]:
        """Steps whose states nothing reads that comes later."""
        sequence = self._sequences.get(event.sequence)
        if sequence is None:
            return []
        for sample in event.samples:
            if sample in sequence.steps:
                sequence.steps[sample].cut = True
        return self._sweep(sequence)

    def end(self, event: Ended) -> list[Instruction]:
        """No more steps come."""
        sequence = self._sequences.get(event.sequence)
        if sequence is None:
            return []
        sequence.ended = True
        return self._free(event.sequence)

    def feed(self, samples: Iterable[int]) -> tuple[Step, ...]:
        """These samples go in, as one batch. Returns which steps they are."""
        return tuple(self._feed(sample) for sample in samples)

    def _feed(self, sample: int) -> Step:
        sequence = self._sequences[self._owner[sample]]
        number = self._numbers[sequence.slot]
        step = Step(sequence.slot, number, not sequence.fed)
        self._numbers[sequence.slot] += 1
        sequence.fed += 1
        sequence.flying.append(sample)
        return step

    def suspects(self, samples: Iterable[int]) -> set[int]:
        """Those of these samples that a stage has raised for, or hung."""
        return {sample for sample in samples if (one := self._entry(sample)) is not None and one.suspect}

    def release(self, batches: dict[int, Batch]) -> list[Instruction]:
        """Answer what is done, in the order of steps, and take it out of `batches`, which are in order themselves."""
        done: list[Instruction] = []
        for number, batch in list(batches.items()):
            if batch.done and all(self._flying(sample)[0] == sample for sample in batch.samples):
                del batches[number]
                for place, sample in enumerate(batch.samples):
                    done += self._released(number, place, sample, batch.faults.get(place))
        return done

    def _released(self, batch: int, place: int, sample: int, fault: tuple[str, str, str] | None) -> list[Instruction]:
        self._flying(sample).popleft()
        owner, step = self._owner[sample], self._entry(sample)
        sequence = self._sequences[owner]
        done: list[Instruction] = []
        if step is not None and fault is not None:
            device, stage, message = fault
            done += self._break(sequence, step, Failure(device, stage, sample, message, lost=False))
        elif step is not None:
            if not step.answered:
                done.append(Answer(sample, batch, place))
                step.answered = True
                sequence.unanswered -= 1
            step.tries, step.suspect = 1, False
            done += self._sweep(sequence)
        return [*done, *self._free(owner)]

    def fail(self, samples: Iterable[int], why: Failure) -> list[Instruction]:
        """These samples cannot be done, and so no later step of their sequences can."""
        failed: list[Instruction] = []
        for sample in samples:
            owner, step = self._owner.get(sample), self._entry(sample)
            if owner is not None and step is not None:
                failed += [*self._break(self._sequences[owner], step, why.of(sample)), *self._free(owner)]
        return failed

    def _break(self, sequence: _Sequence, culprit: _Entry, why: Failure) -> list[Instruction]:
        """All that somebody waits for of a sequence fails, and its history is not fed again."""
        message = f"step {culprit.number} of its sequence failed: {why.message}"
        sequence.failure = replace(why, message=message)
        waiting = [sample for sample, step in sequence.steps.items() if not step.answered]
        failed = [Fail(sample, why if sample == why.sample else sequence.failure.of(sample)) for sample in waiting]
        kept = tuple(sample for sample, step in sequence.steps.items() if step.answered)
        sequence.steps.clear()
        sequence.unanswered = 0
        self.stale = True
        return [*failed, *([Forget(kept)] if kept else [])]

    def _sweep(self, sequence: _Sequence) -> list[Instruction]:
        """Forget what was cut off, once no step that may have read it is under way."""
        cut = [sample for sample, step in sequence.steps.items() if step.cut]
        if not cut or not all(sequence.steps[sample].answered for sample in cut):
            return []
        for sample in cut:
            del sequence.steps[sample]
        self.stale = True
        return [Forget(tuple(cut))]

    def _free(self, number: int) -> list[Instruction]:
        """Let go of an ended sequence of which nothing is under way."""
        sequence = self._sequences[number]
        if not sequence.ended or sequence.unanswered:
            return []
        kept = tuple(sequence.steps)
        sequence.steps.clear()
        self.stale = True
        forget: list[Instruction] = [Forget(kept)] if kept else []
        if sequence.flying:
            return forget
        for sample in sequence.samples:
            del self._owner[sample]
        del self._sequences[number]
        return [*forget, Freed(number)]

    def exhausted(self, batches: Iterable[Batch], tries: int) -> list[int]:
        """Samples under way that have been so in so many openings."""
        flying = (sample for batch in batches for sample in batch.samples)
        return [sample for sample in flying if (one := self._entry(sample)) is not None and one.tries >= tries]

    def rewind(self, batches: Collection[Batch]) -> tuple[deque[Submitted], list[Instruction]]:
        """All states are gone, and `batches` with them. Returns what is fed now, in order, and what else is done."""
        for batch in batches:
            for sample in batch.samples:
                if (one := self._entry(sample)) is not None:
                    one.tries += 1
                    one.suspect = one.suspect or sample in batch.suspects
        self._numbers.clear()
        done: list[Instruction] = []
        for number, sequence in list(self._sequences.items()):
            sequence.fed = 0
            sequence.flying.clear()
            done += self._free(number)
            done += self._join(sequence)
        rows = ([one.event for one in sequence.steps.values()] for sequence in self._sequences.values())
        return deque(one for column in itertools.zip_longest(*rows) for one in column if one is not None), done

    def _join(self, sequence: _Sequence) -> list[Instruction]:
        """Make few long steps of a history."""
        if self._sizes is None:
            return []
        known = [
            Taken(sample, step.event.start, step.event.elements)
            for sample, step in sequence.steps.items()
            if step.answered and not step.cut and step.event.elements
        ]
        joined: list[Instruction] = []
        for block in self._sizes.blocks(known):
            samples = tuple(step.sample for step in block.steps)
            elements = tuple(step.elements for step in block.steps)
            first = sequence.steps[samples[0]]
            first.event = replace(first.event, bucket=block.bucket, elements=sum(elements))
            for sample in samples[1:]:
                del sequence.steps[sample]
            joined.append(Join(samples, elements, block.bucket))
        return joined

    def _flying(self, sample: int) -> deque[int]:
        return self._sequences[self._owner[sample]].flying

    def _entry(self, sample: int) -> _Entry | None:
        owner = self._owner.get(sample)
        return None if owner is None else self._sequences[owner].steps.get(sample)
