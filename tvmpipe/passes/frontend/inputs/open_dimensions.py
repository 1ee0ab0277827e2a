"""Open dimensions of a model's inputs: the extents that each may have, and the buckets that follow from them.

A dimension is known by a name: the one that the file gives it, the one that the user gives it in a shape, or that of
its place ("ids[1]"). Dimensions of one name have one extent. A bucket is one choice of an extent for each of them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import onnx

from tvmpipe.errors import InputError
from tvmpipe.passes.frontend.inputs.fix_dimensions import inputs_of

MOST_BUCKETS = 64
"""Each is imported, fused and compiled."""

Extent = int | str | Collection[int]
"""What a user says of a dimension: its extent, a name, or the extents that it may have."""


@dataclass(frozen=True)
class OpenDimensions:
    """What is left open of a model's inputs, and how.

    Attributes: `axes` for each input that has an open dimension the names of its dimensions, "" for those that are
    fixed; `buckets` the extents by name, first those of the largest; `shapes` and `dims` what the user says of each
    bucket, as `fix_inputs` takes it.
    """

    axes: Mapping[str, tuple[str, ...]]
    buckets: tuple[Mapping[str, int], ...]
    shapes: tuple[Mapping[str, tuple[int, ...]], ...]
    dims: tuple[Mapping[str, int], ...]


def open_dimensions(
    model: onnx.ModelProto,
    shapes: Mapping[str, Sequence[Extent]],
    dims: Mapping[str, int],
    buckets: Mapping[str, Collection[int]],
) -> OpenDimensions:
    """The buckets of a model: the product of what each of its open dimensions may be.

    `shapes` are of whole inputs, by name; `dims` have one extent and `buckets` several for a dimension that the file
    names, or that a shape does. What is said of a dimension of an input that the file names holds wherever that name
    is. Raises InputError, in one sentence, for what does not fit together.
    """
    return _Request(model, shapes, dims, buckets).expand()


@dataclass
class _Request:
    model: onnx.ModelProto
    shapes: Mapping[str, Sequence[Extent]]
    dims: Mapping[str, int]
    buckets: Mapping[str, Collection[int]]
    choices: dict[str, tuple[int, ...]] = field(default_factory=dict)
    called: dict[str, str] = field(default_factory=dict)  # the file's name of a dimension -> the user's

    def expand(self) -> OpenDimensions:
        self.in_file = {
            value.name: [dim.dim_param for dim in value.type.tensor_type.shape.dim] for value in inputs_of(self.model)
        }
        self._take_names()
        self._take_buckets()
        self._take_choices()
        self._check()
        count = math.prod(len(extents) for extents in self.choices.values())
        if count > MOST_BUCKETS:
            each = " x ".join(f"{len(extents)} of {name!r}" for name, extents in self.choices.items())
            raise InputError(f"{each} are {count} buckets; at most {MOST_BUCKETS} are allowed")
        largest_first = [sorted(extents, reverse=True) for extents in self.choices.values()]
        every = [dict(zip(self.choices, extents, strict=True)) for extents in itertools.product(*largest_first)]
        opened = {name for name, extents in self.choices.items() if len(extents) > 1}
        axes = {name: self._axes(name, opened) for name in self.in_file}
        return OpenDimensions(
            axes={name: mine for name, mine in axes.items() if any(mine)},
            buckets=tuple({name: extent for name, extent in one.items() if name in opened} for one in every),
            shapes=tuple(self._shapes(one) for one in every),
            dims=tuple(self._dims(one) for one in every),
        )

    def _take_names(self) -> None:
        """Names that shapes give to dimensions which the file calls otherwise, or not at all."""
        self.given: set[str] = set()
        for name, extents in self.shapes.items():
            for place, extent in enumerate(extents):
                if not isinstance(extent, str):
                    continue
                self.given.add(extent)
                in_file = self._in_file(name, place)
                if in_file and self.called.setdefault(in_file, extent) != extent:
                    raise InputError(
                        f"--shape {name} calls the dimension {in_file!r} {extent!r}, and another one "
                        f"{self.called[in_file]!r}; it needs one name"
                    )

    def _take_buckets(self) -> None:
        known = [*sorted(self.given), *self._named()]
        for name, extents in self.buckets.items():
            if name not in known:
                hint = f"allowed: {', '.join(known)}" if known else "--shape x=N,3,224,224 would name one"
                raise InputError(f"--bucket names {name!r}, which is no open dimension of the model's inputs; {hint}")
            self._choose(name, extents, f"--bucket {name}")

    def _take_choices(self) -> None:
        for name, extents in self.shapes.items():
            for place, extent in enumerate(extents):
                if isinstance(extent, str):
                    if extent not in self.choices and extent not in self.dims:
                        raise InputError(
                            f"--shape {name} names a dimension {extent!r}, of which nothing is said; "
                            f"for example --bucket {extent}=1,2,4"
                        )
                elif not isinstance(extent, int):
                    self._choose(self._name(name, place), extent, f"--shape {name}")

    def _choose(self, name: str, extents: Collection[int], where: str) -> None:
        chosen = tuple(sorted(set(extents)))
        shown = ", ".join(map(str, chosen))
        if not chosen or any(not isinstance(extent, int) or extent < 1 for extent in chosen):
            raise InputError(f"{where} has the extents [{shown}]; an open dimension takes one or more numbers from 1")
        if name in self.dims:
            raise InputError(f"{where} has several extents for {name!r}, which --dim makes {self.dims[name]}")
        if self.choices.setdefault(name, chosen) != chosen:
            other = ", ".join(map(str, self.choices[name]))
            raise InputError(f"{name!r} has the extents [{other}], and by {where} [{shown}]; say one of them")

    def _check(self) -> None:
        """An extent in a shape must not contradict what its name may be."""
        for name, extents in self.shapes.items():
            for place, extent in enumerate(extents):
                called = self._name(name, place)
                if isinstance(extent, int) and len(self.choices.get(called, ())) > 1:
                    raise InputError(
                        f"--shape {name} fixes its dimension {place}, {called!r}, which may be "
                        f"{', '.join(map(str, self.choices[called]))}; say {called!r} or leave the shape out"
                    )

    def _named(self) -> list[str]:
        """Names that the file gives to dimensions, and the user does not change."""
        names = dict.fromkeys(name for dims in self.in_file.values() for name in dims if name)
        return [name for name in names if name not in self.called]

    def _in_file(self, name: str, place: int) -> str:
        dims = self.in_file.get(name, [])
        return dims[place] if place < len(dims) else ""

    def _name(self, name: str, place: int) -> str:
        in_file = self._in_file(name, place)
        return self.called.get(in_file, in_file) or f"{name}[{place}]"

    def _axes(self, name: str, opened: Collection[str]) -> tuple[str, ...]:
        if name in self.shapes:
            said = self.shapes[name]
            names = [
                extent if isinstance(extent, str) else self._name(name, place) for place, extent in enumerate(said)
            ]
        else:
            names = [self._name(name, place) for place in range(len(self.in_file[name]))]
        return tuple(called if called in opened else "" for called in names)

    def _shapes(self, bucket: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        extent_of = {**self.dims, **bucket}
        return {
            name: tuple(
                extent if isinstance(extent, int) else extent_of[extent if isinstance(extent, str) else called]
                for extent, called in ((extent, self._name(name, place)) for place, extent in enumerate(extents))
            )
            for name, extents in self.shapes.items()
        }

    def _dims(self, bucket: Mapping[str, int]) -> dict[str, int]:
        named = {name for dims in self.in_file.values() for name in dims}
        dims = {name: extent for name, extent in self.dims.items() if name in named or name not in self.given}
        dims |= {name: extent for name, extent in bucket.items() if name in named and name not in self.called}
        every = {**self.dims, **bucket}
        return dims | {in_file: every[name] for in_file, name in self.called.items() if name in every}


def check_pads(pads: Mapping[str, float], dimensions: OpenDimensions) -> None:
    """Raise InputError for a pad of what is no input with an open dimension."""
    for name in pads:
        if name not in dimensions.axes:
            known = ", ".join(dimensions.axes)
            hint = f"allowed: {known}" if known else "no input of the model has one"
            raise InputError(f"--pad names {name!r}, which is no input with an open dimension; {hint}")
