"""A pipeline whose model keeps states from token to token, as the model that commands generate with."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol

import numpy as np

from tvmpipe.chunks import Chunk, Chunks
from tvmpipe.errors import BundleError
from tvmpipe.generation.language_model import Logits
from tvmpipe.manifest import Manifest
from tvmpipe.runtime.head import sequences
from tvmpipe.runtime.head.sample import Result
from tvmpipe.tensors import TensorSpec

_ENDLESS = 1 << 20  # tokens of a model whose states do not grow
_FREED_S = 60.0  # in which the steps under way of a closed sequence are answered, or fail


class _Pipeline(Protocol):
    @property
    def manifest(self) -> Manifest: ...

    def sequence(self, *, timeout_s: float | None = None) -> sequences.Sequence: ...


class PipelineModel:
    """The sequences of a pipeline as those of a language model. Any thread may use it.

    The model has one input of the tokens of a step, [1, tokens] integers, and an output of a row of numbers for each
    of them, [1, tokens, vocabulary]; what else it reads are states. Raises BundleError for another one.
    """

    def __init__(self, pipe: _Pipeline, name: str) -> None:
        manifest = pipe.manifest
        self._pipe = pipe
        self._tokens, self._logits = find_tokens(manifest, name)
        assert manifest.sequences is not None
        self.context = manifest.sequences.context or _ENDLESS
        self.forgets = all(state.axis is not None for state in manifest.sequences.states)
        self.sequences = manifest.sequences.count
        self.vocabulary = self._logits.shape[-1]
        self._chunks = _chunks(manifest, self._tokens.name)
        self._lock = threading.Lock()
        self._open = 0

    def sequence(self) -> PipelineSequence:
        """A new sequence without tokens. Raises QueueFullError when as many are open as may be."""
        with self._lock:
            if self._open == self.sequences:
                raise sequences.all_in_use(self.sequences)
            self._open += 1
        try:
            # One that was closed is free on the devices once nothing of it is under way.
            inner = self._pipe.sequence(timeout_s=_FREED_S)
        except BaseException:
            self._closed()
            raise
        return PipelineSequence(self, inner, self._tokens, self._logits, self._chunks)

    def _closed(self) -> None:
        with self._lock:
            self._open -= 1


class PipelineSequence:
    """One of them: tokens go in chunks, as large as the model has buckets for."""

    def __init__(
        self,
        model: PipelineModel,
        inner: sequences.Sequence,
        tokens: TensorSpec,
        logits: TensorSpec,
        chunks: Chunks,
    ) -> None:
        self._model, self._inner = model, inner
        self._tokens, self._logits, self._chunks = tokens, logits, chunks
        self._closed = False
        self._length = 0

    @property
    def length(self) -> int:
        """Tokens that it has been fed."""
        return self._length

    def feed(self, ids: Sequence[int]) -> Future[Logits]:
        """Logits after each of these tokens, [len(ids), vocabulary]."""
        array = np.asarray(ids, self._tokens.dtype)
        room = self._model.context - self.length
        answers = []
        begin = 0
        for count in self._chunks.split(len(ids), room):
            sample = {self._tokens.name: array[None, begin : begin + count]}
            answers.append(self._inner.submit(sample))
            begin += count
            self._length += count
        return _joined(answers, self._logits.name)

    def truncate(self, length: int) -> None:
        """Forget the tokens after the first `length`."""
        self._inner.truncate(length)
        self._length = length

    def close(self) -> None:
        """Free its place; idempotent."""
        if not self._closed:
            self._closed = True
            self._inner.close()
            self._model._closed()


def find_tokens(manifest: Manifest, name: str) -> tuple[TensorSpec, TensorSpec]:
    """The input that takes tokens and the output that has logits. Raises BundleError where there are none."""
    if manifest.sequences is None:
        raise BundleError(
            f"the model of bundle {name} keeps no state from one token to the next (a KV cache, say), so that it "
            "cannot generate"
        )
    inputs = manifest.sample_inputs
    if len(inputs) != 1 or len(inputs[0].shape) != 2 or np.dtype(inputs[0].dtype).kind != "i":
        given = ", ".join(map(str, inputs))
        raise BundleError(f"a step of bundle {name} takes {given}; one that generates takes tokens alone, [1, tokens]")
    fitting = [spec for spec in manifest.model.outputs if len(spec.shape) == 3 and spec.shape[:2] == inputs[0].shape]
    named = [spec for spec in fitting if spec.name == "logits"] or fitting
    if len(named) != 1:
        given = ", ".join(map(str, manifest.model.outputs))
        raise BundleError(
            f"a step of bundle {name} answers {given}; one that generates answers logits after each token, "
            f"[1, {inputs[0].shape[1]}, vocabulary]"
        )
    return inputs[0], named[0]


def _chunks(manifest: Manifest, tokens: str) -> Chunks:
    """Steps of each bucket, which take as long as the plan says of their stages; `tokens` is the input of tokens."""
    found = []
    for number, bucket in enumerate(manifest.buckets):
        extent = next(spec.shape[1] for spec in bucket.inputs if spec.name == tokens)
        seconds = sum(stage.predicted_compute_s for stage in manifest.plan.stages_of(number))
        found.append(Chunk(extent, seconds, bool(bucket.extents) and not bucket.exact))
    return Chunks(tuple(sorted(found, key=lambda chunk: chunk.elements)))


def _joined(answers: Sequence[Future[Result]], output: str) -> Future[Logits]:
    """What steps answer, which are answered in their order, as one array; what one of them raises."""
    joined: Future[Logits] = Future()
    joined.set_running_or_notify_cancel()

    def finish(_: Future[Result]) -> None:
        try:
            rows = [one.result()[output][0].astype(np.float32, copy=False) for one in answers]
        except BaseException as error:  # noqa: BLE001  # raised where the result is asked for
            joined.set_exception(error)
        else:
            joined.set_result(np.concatenate(rows) if len(rows) > 1 else rows[0])

    answers[-1].add_done_callback(finish)
    return joined
