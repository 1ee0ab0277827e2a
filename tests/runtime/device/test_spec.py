"""What a device is told of an opening, and the memory that it takes there."""

from __future__ import annotations

from tests.runtime.manifests import FILE, SHAPE, stage
from tvmpipe.manifest import StateEntry, Turn
from tvmpipe.runtime.device.spec import HostSpec
from tvmpipe.tensors import TensorSpec


def test_buckets_share_weights_and_states_count_for_every_sequence() -> None:
    weights = FILE.model_copy(update={"path": "weights/w.safetensors", "size_bytes": 1000})
    held = {"weight_files": (weights,), "weight_names": ("w",), "weight_bytes": 1000}
    large = stage("s0", "beta", [0, 10], [1, 11]).model_copy(update={**held, "activation_bytes": 70})
    small = large.model_copy(update={"name": "b1-s0", "bucket": 1, "activation_bytes": 30})
    state = StateEntry(
        name="h", output="h'", spec=TensorSpec(name="h", shape=SHAPE, dtype="float32"), values=((10, 11), (10, 11))
    )
    spec = HostSpec(
        session="0" * 16,
        device="beta",
        owner="us",
        threads=1,
        turn=Turn(),
        stages=(large, small),
        depths={"s0": 0, "b1-s0": 0},
        routes={},
        peers=(),
        status_address="127.0.0.1:9",
        lease_s=1.0,
        max_batches=1,
        limit_bytes=1000,
        states=(state,),
        slots=5,
    )
    assert spec.state_bytes == 5 * 24
    assert spec.memory_bytes == 1000 + 70 + 5 * 24
