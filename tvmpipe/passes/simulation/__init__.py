"""Discrete-event simulation of placements: one sample or a stream through devices, links, ports and queues.

::

    simulation = simulate(problem, solution, samples=100, inflight=8, jitter=0.1, seed=0)
    simulation.period_s, simulation.latency_s, simulation.spans
    rich.print(timeline(simulation))
    write_trace(path, trace_events(simulation))        # tvmpipe.runtime.head.trace, for Perfetto

Without jitter and with enough samples in flight the period is the planner's figure, and one sample through a
schedule takes its makespan.
"""

from tvmpipe.passes.simulation.engine import Simulation, Span, simulate
from tvmpipe.passes.simulation.timeline import timeline, trace_events

__all__ = ["Simulation", "Span", "simulate", "timeline", "trace_events"]
