"""What may stand after an option, and the sentence when something else does."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import click

from tvmpipe.units import parse_duration, parse_rate, parse_size

_NUMBER = r"0*[1-9][0-9]{0,8}"


class Shape(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.2 on
    """An input's name and its dimensions: numbers, names, and numbers to choose from with ":" between them."""

    name = "NAME=D,D,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        name, separator, dims = str(value).rpartition("=")
        shape = [_extent(dim.strip()) for dim in dims.split(",")] if dims else []
        if not separator or not name or None in shape:
            said = "of the form x=1,3,224,224, nor x=1,16:64 with a choice, nor x=N,3,224,224 with a name"
            self.fail(f"{value!r} is not {said}", param, ctx)
        return name, tuple(shape)


def _extent(text: str) -> int | str | tuple[int, ...] | None:
    """What a part of a shape says; None where that is nothing."""
    if re.fullmatch(_NUMBER, text):
        return int(text)
    if re.fullmatch(rf"{_NUMBER}(:{_NUMBER})+", text):
        return tuple(map(int, text.split(":")))
    return text if re.fullmatch(r"[^\W\d][^:,=]*", text) else None


class Dim(click.ParamType):  # type: ignore[type-arg]
    """The name of an open dimension and its extent."""

    name = "NAME=D"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        name, separator, extent = str(value).rpartition("=")
        if not separator or not name or not re.fullmatch(_NUMBER, extent):
            self.fail(f"{value!r} is not of the form sequence=64, with a number from 1", param, ctx)
        return name, int(extent)


class Value(click.ParamType):  # type: ignore[type-arg]
    """An input's name and what it always is: a number, numbers, an array in a file, or "none" of an optional."""

    name = "NAME=V,V,...|NAME=@FILE.npy|NAME=none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        name, separator, file = str(value).partition("=@")
        if separator and name:
            return name, self._read(file, param, ctx)
        name, separator, text = str(value).rpartition("=")
        if separator and name and text.lower() == "none":
            return name, None
        numbers = [_number(part.strip()) for part in text.split(",")]
        if len(numbers) > 1 and not text.rpartition(",")[2].strip():
            numbers.pop()  # `x=5,` is a list of one
        if not separator or not name or None in numbers:
            self.fail(f"{value!r} is not of the form sr=16000, scales=1,0.5 or weights=@file.npy", param, ctx)
        return name, numbers if "," in text else numbers[0]

    def _read(self, file: str, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        import numpy as np

        from tvmpipe.errors import reason_of

        try:
            array = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            self.fail(f"{file} is no .npy file that can be read: {reason_of(error)}", param, ctx)
        if not isinstance(array, np.ndarray):
            self.fail(f"{file} holds several arrays; an input takes one (.npy)", param, ctx)
        return array


def _number(text: str) -> bool | int | float | None:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return None


class Bucket(click.ParamType):  # type: ignore[type-arg]
    """The name of an open dimension and the extents that it may have."""

    name = "NAME=D,D,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        name, separator, extents = str(value).rpartition("=")
        if not separator or not name or not re.fullmatch(rf"{_NUMBER}([,:]{_NUMBER})*", extents):
            self.fail(f"{value!r} is not of the form sequence=16,64, with numbers from 1", param, ctx)
        return name, tuple(int(extent) for extent in re.split("[,:]", extents))


class Pad(click.ParamType):  # type: ignore[type-arg]
    """An input and the number that it is padded with."""

    name = "INPUT=NUMBER"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        name, separator, number = str(value).rpartition("=")
        try:
            pad = float(number)
        except ValueError:
            pad = math.nan
        if not separator or not name or not math.isfinite(pad):
            self.fail(f"{value!r} is not of the form mask=0, with a number that is finite", param, ctx)
        return name, pad


class StatePair(click.ParamType):  # type: ignore[type-arg]
    """An output and the input of the next step that it is."""

    name = "OUTPUT=INPUT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        output, separator, name = str(value).partition("=")
        if not separator or not output or not name:
            self.fail(f"{value!r} is not of the form stateN=state", param, ctx)
        return output, name


class Bias(click.ParamType):  # type: ignore[type-arg]
    """A token's number and what to add to its logit."""

    name = "TOKEN=NUMBER"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        token, _, number = str(value).partition("=")
        try:
            bias = float(number)
        except ValueError:
            bias = math.nan
        if not re.fullmatch(r"[0-9]{1,9}", token) or not math.isfinite(bias):
            self.fail(f"{value!r} is not of the form 198=-5, with a token's number and one that is finite", param, ctx)
        return int(token), bias


class Pin(click.ParamType):  # type: ignore[type-arg]
    """A pattern of primitives and a device."""

    name = "PRIMITIVE=DEVICE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        pattern, separator, device = str(value).rpartition("=")
        if not separator or not pattern or not device:
            self.fail(f"{value!r} is not of the form 003.fused_conv2d=fast", param, ctx)
        return pattern, device


class ObjectiveName(click.ParamType):  # type: ignore[type-arg]
    """The name of an objective; what there is is imported when it is asked for, so that a device needs none of it."""

    name = "objective"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        from tvmpipe.passes.objectives import NAMES

        return f"[{'|'.join(NAMES)}]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from tvmpipe.errors import InputError
        from tvmpipe.passes.objectives import find_objective

        if not isinstance(value, str):
            return value
        try:
            return find_objective(value)
        except InputError as error:
            self.fail(str(error), param, ctx)


class Finite(click.FloatRange):
    """A number in a range, neither NaN, which no comparison keeps out, nor infinite."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


class _Quantity(click.ParamType):  # type: ignore[type-arg]
    def __init__(self, name: str, parse: Callable[[object], float]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


SIZE = _Quantity("SIZE", parse_size)
RATE = _Quantity("RATE", parse_rate)
DURATION = _Quantity("DURATION", parse_duration)


class Key(click.ParamType):  # type: ignore[type-arg]
    """A name in the tracker."""

    name = "KEY"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", str(value)):
            self.fail(f"{value!r} is no key; letters, digits, '_', '.' and '-' are allowed", param, ctx)
        return value
