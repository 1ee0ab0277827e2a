"""Recurrent layers (LSTM, GRU, RNN): all time steps in one kernel."""

from __future__ import annotations

from tvmpipe.passes.kernels.kernel import Kernel
from tvmpipe.passes.kernels.recurrent.cost import RECURRENT_COST
from tvmpipe.passes.kernels.recurrent.layer import RECURRENT
from tvmpipe.passes.kernels.recurrent.schedule import schedule_recurrent

KERNEL = Kernel(RECURRENT, schedule_recurrent, RECURRENT_COST)
