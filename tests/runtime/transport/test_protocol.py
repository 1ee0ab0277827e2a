"""What is written down here of TVM's protocols is what TVM has."""

from __future__ import annotations

from tvm.rpc import base

from tvmpipe.runtime.security.handshake import RPC_MAGIC
from tvmpipe.runtime.transport import tracker


def test_numbers_of_the_protocols() -> None:
    codes = base.TrackerCode
    assert (tracker.SUCCESS, tracker.REQUEST, tracker.SUMMARY) == (codes.SUCCESS, codes.REQUEST, codes.SUMMARY)
    assert tracker.TRACKER_MAGIC == base.RPC_TRACKER_MAGIC
    assert RPC_MAGIC == base.RPC_MAGIC
