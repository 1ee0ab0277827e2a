"""The passes in order, and what runs them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tvmpipe.errors import InputError
from tvmpipe.passes.backend.lower import Lower
from tvmpipe.passes.backend.partition import Partition
from tvmpipe.passes.backend.tune import Tune
from tvmpipe.passes.backend.write_bundle import WriteBundle
from tvmpipe.passes.base import CompileState, Detailed, Pass
from tvmpipe.passes.frontend.import_onnx import ImportOnnx
from tvmpipe.passes.planning.compression import Compress
from tvmpipe.passes.planning.cost_table import Cost
from tvmpipe.passes.planning.failover import Failover
from tvmpipe.passes.planning.fit import Fit
from tvmpipe.passes.planning.place import Place
from tvmpipe.passes.rewrite.fuse import Fuse

FRONT: tuple[Pass, ...] = (ImportOnnx(), Fuse())
PLAN: tuple[Pass, ...] = (*FRONT, Cost(), Place(), Compress(), Failover())
COMPILE: tuple[Pass, ...] = (*PLAN, Partition(), Tune(), Lower(), Fit(), WriteBundle())

_TELL_S = 2.0

Progress = Callable[[str, int, int, float], None]
"""Called before each pass with its name (and perhaps what it will do), its number, how many there are, and seconds."""


def run_passes(
    state: CompileState,
    passes: tuple[Pass, ...] = COMPILE,
    *,
    progress: Progress | None = None,
    dump: Path | None = None,
) -> CompileState:
    """Apply `passes` in order. With `dump`, the module after each pass is written there as TVMScript."""
    if dump is not None:
        try:
            dump.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"dump folder {dump} cannot be made: {error.strerror}") from None
    started = time.perf_counter()
    for number, one in enumerate(passes):
        if progress is not None:
            detail = one.detail(state) if isinstance(one, Detailed) else ""
            title = f"{one.name}: {detail}" if detail else one.name
            progress(title, number, len(passes), time.perf_counter() - started)
            state = replace(state, tell=_teller(progress, one.name, number, len(passes), started))
        state = one.apply(state)
        if dump is not None:
            _dump(state, one.name, number, dump)
    if progress is not None:
        progress("done", len(passes), len(passes), time.perf_counter() - started)
    return state


def _teller(progress: Progress, name: str, number: int, total: int, started: float) -> Callable[[str], None]:
    """Passes on what a pass says, at most every few seconds."""
    last = started

    def tell(text: str) -> None:
        nonlocal last
        now = time.perf_counter()
        if now - last > _TELL_S:
            last = now
            progress(f"{name}: {text}", number, total, now - started)

    return tell


def _dump(state: CompileState, name: str, number: int, folder: Path) -> None:
    stages = (*state.stages, *(stage for spare in state.spares for stage in spare.stages))
    modules = {f"-{stage.name}": stage.module for stage in stages} or {"": state.module}
    for suffix, module in modules.items():
        path = folder / f"{number:02d}-{name}{suffix}.py"
        path.write_text(module.script(show_meta=False), encoding="utf-8")
