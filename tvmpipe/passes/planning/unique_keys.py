"""YAML as people write it, in which nothing stands twice: PyYAML takes the last of two and says nothing."""

from __future__ import annotations

from typing import Any

import yaml

_MERGE = "tag:yaml.org,2002:merge"  # `<<`, with which a mapping begins as another


class _UniqueKeys(yaml.SafeLoader):
    pass


def _mapping(loader: _UniqueKeys, node: yaml.MappingNode) -> dict[Any, Any]:
    lines: dict[Any, int] = {}
    for key_node, _ in node.value:
        if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == _MERGE:
            continue
        key, line = loader.construct_object(key_node), key_node.start_mark.line + 1
        if lines.setdefault(key, line) != line:
            raise yaml.YAMLError(f"{key!r} stands in line {lines[key]} and again in line {line}; one of them must go")
    return loader.construct_mapping(node, deep=True)


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load_yaml(text: str) -> Any:
    """What a text says. Raises yaml.YAMLError, also where a key stands twice in one mapping."""
    return yaml.load(text, _UniqueKeys)
