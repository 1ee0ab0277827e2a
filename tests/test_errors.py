"""The reason of a failure in one line, whatever C++ and Python write around it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tvmpipe.errors import reason_of

BUILDER = "[10:20:36] /project/src/relax/ir/block_builder.cc:67: Warning: BlockBuilder destroyed with remaining blocks!"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("it is wrong", "it is wrong"),
        ("first\n  it is wrong  \n\n", "it is wrong"),
        (f"TopK k must be a constant\n{BUILDER}\n", "TopK k must be a constant"),
        (f"{BUILDER}\n{BUILDER}", "ValueError"),
        ("[10:20:36] /project/src/a.cc:9: Check failed: n > 0 is false: no", "Check failed: n > 0 is false: no"),
        ('Traceback (most recent call last):\n  File "x.py", line 3, in f\nTypeError: no\n     ^^^\n', "TypeError: no"),
        ("no rows\nStack trace:\n  [bt] (0) libtvm.so\n  1: tvm::relax::Pass() at /src/a.cc:3\n", "no rows"),
        ("no rows\nnote: run with `TVM_BACKTRACE=1` environment variable to display a backtrace.", "no rows"),
        ("", "ValueError"),
    ],
)  # fmt: skip
def test_the_reason_is_found(text: str, reason: str) -> None:
    assert reason_of(ValueError(text)) == reason


def test_text_of_a_process_has_a_reason_or_none() -> None:
    assert reason_of("warming up\ncannot bind 0.0.0.0:80") == "cannot bind 0.0.0.0:80"
    assert reason_of("\n") == "no reason given"


REFUSED = """
from onnx import TensorProto, helper
import tvmpipe
from tvmpipe.errors import TvmpipeError
from tvmpipe.targets.description.cluster import parse_cluster
inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3]),
          helper.make_tensor_value_info("pads", TensorProto.INT64, [4])]
graph = helper.make_graph([helper.make_node("Pad", ["x", "pads"], ["y"], name="frame")], "g", inputs,
                          [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
try:
    tvmpipe.build(model, parse_cluster('[[device]]\\nname = "d"\\n'), fallback=False)
except TvmpipeError as error:
    print(error)
"""


def test_tvm_says_nothing_of_its_block_builder() -> None:
    """Neither as the reason nor on stderr, at the failure or at the end of the process."""
    done = subprocess.run(
        [sys.executable, "-c", REFUSED], capture_output=True, text=True, check=True, timeout=200, env=os.environ
    )
    assert done.stdout.strip() == (
        "TVM cannot import node 'frame' (Pad): Dynamic pads are not supported yet; "
        "the Pad reads float32[2,3] and int64[4]; ONNX Runtime can run it, without --no-fallback (fallback=False)"
    )
    assert "BlockBuilder" not in done.stderr
