"""A problem with what its file calls things, and how files that are not of a format are refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import networkx as nx
import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from tvmpipe.errors import InputError
from tvmpipe.passes.placement.problem import Problem

T = TypeVar("T")


@dataclass(frozen=True)
class Named:
    """A problem whose "seconds" are in the file's own unit; `tasks` and `devices` are what the file calls them."""

    name: str
    problem: Problem
    tasks: tuple[int | str, ...]
    devices: tuple[int | str, ...]
    unit: str


def refuse_cycles(path: Path, named: Named) -> Named:
    """The same, if tasks can be put in an order in which they can run. Raises InputError."""
    try:
        found = nx.find_cycle(named.problem.graph)
    except nx.NetworkXNoCycle:
        return named
    circle = [str(named.tasks[before]) for before, _ in found]
    raise InputError(f"workload {path}: tasks wait for each other in a circle: {' -> '.join([*circle, circle[0]])}")


def read_json(path: Path, kind: type[T]) -> T:
    """A JSON file as a type that pydantic knows. Raises InputError."""
    return _checked(path, json.loads, kind)


def read_yaml(path: Path, kind: type[T]) -> T:
    """A YAML file as a type that pydantic knows. Raises InputError."""
    return _checked(path, yaml.safe_load, kind)


def _checked(path: Path, parse: Any, kind: type[T]) -> T:
    try:
        raw = parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"workload {path} cannot be read: {error.strerror}") from None
    except RecursionError:
        raise InputError(f"workload {path} is no file of this format: it is nested too deep") from None
    except (ValueError, yaml.YAMLError) as error:
        raise InputError(f"workload {path} is no file of this format: {' '.join(str(error).split())}") from None
    try:
        return kind.model_validate(raw) if issubclass(kind, BaseModel) else TypeAdapter(kind).validate_python(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(f"workload {path}: {where}: {first['msg']}") from None
