"""Softmax and norms of rows."""

from __future__ import annotations

from tvmpipe.passes.kernels.kernel import Kernel
from tvmpipe.passes.kernels.rows.compute import ROWS, legalizations
from tvmpipe.passes.kernels.rows.cost import ROWS_COST
from tvmpipe.passes.kernels.rows.schedule import schedule_rows

KERNEL = Kernel(ROWS, schedule_rows, ROWS_COST, legalizations)
