"""What the planners raise where a problem has no placement, or none was found that keeps what it asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

SizeFormat = Callable[[int], str]


def _plain(size_bytes: int) -> str:
    return f"{size_bytes} bytes"


class Infeasible(Exception):
    """No placement keeps memories, forbidden devices, groups and the order of stages. Its text is one sentence."""

    def sentence(self, size: SizeFormat) -> str:
        """The same sentence, with the sizes in it as `size` writes them."""
        return str(self)


class BlockTooLarge(Infeasible):
    """Nodes that share a device need more memory than any device has that may run them.

    Attributes: `nodes` their names; `need_bytes` what they need; `device`, `memory_bytes` the largest device that is
    allowed; `allowed` the names of those, empty where all are.
    """

    def __init__(
        self, nodes: Sequence[str], need_bytes: float, device: str, memory_bytes: float, allowed: Sequence[str]
    ) -> None:
        self.nodes, self.need_bytes = tuple(nodes), need_bytes
        self.device, self.memory_bytes, self.allowed = device, memory_bytes, tuple(allowed)
        super().__init__(self.sentence(_plain))

    def sentence(self, size: SizeFormat) -> str:
        """What needs how much, and how much is missing where."""
        what = self.nodes[0] + (f" and {len(self.nodes) - 1} that share its device" if len(self.nodes) > 1 else "")
        only = f", of those allowed ({', '.join(self.allowed)})," if self.allowed else ""
        missing = _up(self.need_bytes - self.memory_bytes)
        return (
            f"no placement fits: {what} needs {size(int(self.need_bytes))}, and the largest device{only} is "
            f"{self.device} with {size(int(self.memory_bytes))}; {_missing({self.device: missing}, size)}"
        )


class MemoryShortage(Infeasible):
    """All nodes together need more memory than there is.

    Attributes: `weight_bytes` of all nodes; `working_bytes` the most of one node; `memory_bytes` device -> what it
    has, of those with a limit; `missing_bytes` device -> by how much it would have to grow, in the placement that
    misses the fewest bytes; `restricted`: whether some nodes may not run on all devices.
    """

    def __init__(
        self,
        weight_bytes: float,
        working_bytes: float,
        memory_bytes: Mapping[str, float],
        missing_bytes: Mapping[str, float],
        restricted: bool,
    ) -> None:
        self.weight_bytes, self.working_bytes = weight_bytes, working_bytes
        self.memory_bytes, self.missing_bytes = dict(memory_bytes), dict(missing_bytes)
        self.restricted = restricted
        super().__init__(self.sentence(_plain))

    def sentence(self, size: SizeFormat) -> str:
        """What is to be held on which devices, and how much is missing where."""
        held = ", ".join(f"{name} {size(int(memory))}" for name, memory in self.memory_bytes.items())
        missing = {name: _up(size_bytes) for name, size_bytes in self.missing_bytes.items()}
        return (
            f"no placement fits{' with these pins' if self.restricted else ''}: "
            f"{size(int(self.weight_bytes))} of weights and at least "
            f"{size(int(self.working_bytes))} of activations on {held}; {_missing(missing, size)}"
        )


def _missing(sizes: Mapping[str, int], size: SizeFormat) -> str:
    shown = {count: "" if size(count) == _plain(count) else f" ({size(count)})" for count in sizes.values()}
    where = ", ".join(f"{_plain(count)}{shown[count]} on {name}" for name, count in sizes.items())
    return f"{sum(sizes.values())} bytes are missing: {where}"


def _up(size_bytes: float) -> int:
    return -int(-size_bytes // 1)
