"""Which code the schedule rules make now: measurements of other code do not count."""

from __future__ import annotations

SCHEDULE_VERSION = "dbf570e705e0"
"""12 hex digits of a digest of the scheduled code of a list of primitives that has every kernel in it.

What the rules make counts, not how they are written or where they lie: moving a file changes nothing.
`python -m benchmarks.restamp` writes it, and a test fails where the rules make other code than it says. What comes
before the rules changes the primitive, and so the key of its measurements.
"""
