"""TVM's runtime library without its compiler, for processes that run stages, or talk to those that do."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

_RUNTIME_ONLY = "TVM_USE_RUNTIME_LIB"


def import_runtime() -> None:
    """Import TVM's runtime alone, and what a device needs beside it. Where TVM is imported already, it stays as it is.

    The runtime's library has 3 MB, the compiler's 259 MB. `libtvm_runtime_extra` sorts, which compiled stages call, and
    fills tensors at random, with which `profile` measures; TVM itself loads it only together with its compiler.
    """
    if "tvm" not in sys.modules:
        with _environment(_RUNTIME_ONLY, "1"), _known_types_only():
            import tvm  # noqa: F401
    _load_extra()


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextlib.contextmanager
def _known_types_only() -> Iterator[None]:
    """Have TVM's Python classes ask for those object types only that its libraries have.

    For a type of the compiler's the runtime raises an error, which TVM's Python passes over. But for the backtrace of
    its first one it reads the symbols of all libraries of the process: 34 MB that stay, and most of the import's time.
    """
    import tvm_ffi
    from tvm_ffi import registry

    core: Any = tvm_ffi.core
    index_of = core._object_type_key_to_index
    known = set(registry.get_registered_type_keys())

    def index_of_known(key: str) -> int | None:
        if key not in known:
            known.update(registry.get_registered_type_keys())  # some come with a library that was loaded meanwhile
        index: int | None = index_of(key) if key in known else None
        return index

    core._object_type_key_to_index = index_of_known
    try:
        yield
    finally:
        core._object_type_key_to_index = index_of


def _load_extra() -> None:
    from tvm import base, libinfo
    from tvm_ffi.libinfo import load_lib_ctypes

    if "tvm_runtime_extra" not in base._LOADED_LIBS:
        library = load_lib_ctypes("tvm", "tvm_runtime_extra", "RTLD_LOCAL", libinfo.package_lib_paths())
        base._LOADED_LIBS["tvm_runtime_extra"] = library
