"""Which engines and reductions the planners use: all of them, unless somebody asks what one of them is worth.

`benchmarks.ablate` leaves out one at a time. What is not here cannot be left out: single devices, the first placement
that fits, path bounds of a makespan, groups of nodes as one node, and equal devices as one kind.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PeriodEngines:
    """Parts of the search for the least period.

    Attributes:
        presolve: close what no placement better than the best uses (`reduce.presolve`).
        dominated: join nodes that some best placement has on one device (`reduce.dominated`).
        bound: the divisible assignment, a bound before anything is searched (`throughput.period_bounds`).
        chain: the dynamic program for chains (`throughput.chain`).
        in_line: the same for a graph in one order (`reduce.chain_order`).
        stages: stages between downsets (`throughput.downsets`).
        crowded: these once more with links counted as if every stage shared them.
        reassign: stages moved to the devices that suit them best (`throughput.assign.reassigned`).
        kinds: many devices rounded to a few kinds (`throughput.assign.rounded_kinds`).
        local_search: moves of nodes (`throughput.local_search`).
        levels: local search on coarser graphs in between (`reduce.multilevel`).
        windows: parts solved again by HiGHS while the rest stays (`throughput.large_neighbourhood`).
        program: HiGHS on all that is left (`exact.period_program`).
        wide_groups, kind_groups, moved_members: how groups of devices in turn are found (`throughput.replicas`).
    """

    presolve: bool = True
    dominated: bool = True
    bound: bool = True
    chain: bool = True
    in_line: bool = True
    stages: bool = True
    crowded: bool = True
    reassign: bool = True
    kinds: bool = True
    local_search: bool = True
    levels: bool = True
    windows: bool = True
    program: bool = True
    wide_groups: bool = True
    kind_groups: bool = True
    moved_members: bool = True


@dataclass(frozen=True)
class MakespanEngines:
    """Parts of the search for the least makespan.

    Attributes:
        heft, etf: list schedules to start from (`latency.list_scheduling`).
        levels: starts from coarser graphs (`latency.coarse_start`).
        ancestors: the bound of nodes whose ancestors share a device (`latency.ancestor_bounds`).
        flow: the bound that a period would have (`throughput.period_bounds`).
        relaxation: the linear program of paths and loads (`latency.relaxation`).
        annealing: `latency.local_search`.
        sweeps: `latency.sweep`.
        pieces: exact pieces where the graph narrows, by CP-SAT (`latency.shortest_path`).
        whole: CP-SAT on everything.
        windows: parts solved again by CP-SAT while the rest stays (`latency.large_neighbourhood`).
    """

    heft: bool = True
    etf: bool = True
    levels: bool = True
    ancestors: bool = True
    flow: bool = True
    relaxation: bool = True
    annealing: bool = True
    sweeps: bool = True
    pieces: bool = True
    whole: bool = True
    windows: bool = True

    @property
    def exact(self) -> bool:
        """Whether CP-SAT is asked for anything."""
        return self.pieces or self.whole or self.windows
