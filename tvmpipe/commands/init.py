"""`init`: a cluster file from what the devices behind a tracker say of themselves, and from their links as measured."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tvmpipe.commands.outcome import Outcome
from tvmpipe.commands.progress import warn, work_progress
from tvmpipe.console import PlainTable
from tvmpipe.elastic.described import device_table
from tvmpipe.errors import DeviceUnavailableError, InputError
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.runtime.tools.allpairs import time_links
from tvmpipe.runtime.tools.cluster_status import ClusterStatus, DeviceReport
from tvmpipe.targets.description.cluster import Cluster, Link, parse_cluster
from tvmpipe.targets.store.link_times import fit_link
from tvmpipe.text import clean
from tvmpipe.units import format_size

Pair = tuple[str, str]


def init_cluster(tracker: str, cluster_key: Path | None, output: Path, *, links: bool, overwrite: bool) -> Outcome:
    """Write a cluster file for the devices behind a tracker; with `links`, measure each pair's.

    Raises InputError for a file that is there, TrackerError, and DeviceUnavailableError where no agent answers.
    """
    if output.exists() and not overwrite:
        raise InputError(f"{output} exists; --force replaces it")
    if not output.parent.is_dir():
        raise InputError(f"{output} is not a file in a folder that exists")
    devices, measured = _look(tracker, cluster_key, links=links)
    text = cluster_text(tracker, devices, measured)
    parse_cluster(text, str(output))  # what is written can be read
    _write(output, text)
    facts = {
        "cluster": str(output),
        "devices": [{"name": name, **table} for name, table in devices.items()],
        "links": [
            {"between": list(pair), "bandwidth_bps": link.bandwidth_bps, "latency_s": link.latency_s}
            for pair, link in measured.items()
        ],
    }
    return Outcome(facts, _table(output, devices))


def cluster_behind(tracker: str, cluster_key: Path | None) -> Cluster:
    """The cluster that `init` would write a file of. Raises TrackerError, DeviceUnavailableError, InputError."""
    return parse_cluster(cluster_text(tracker, *_look(tracker, cluster_key, links=True)), f"the tracker {tracker}")


def _look(tracker: str, cluster_key: Path | None, *, links: bool) -> tuple[dict[str, dict[str, Any]], dict[Pair, Link]]:
    """Tables of the devices that answer, and their links if wanted."""
    key = None if cluster_key is None else ClusterKey.load(cluster_key)
    with ClusterStatus(tracker, key) as status:
        reports = status.poll()
    for report in reports:
        if report.kind != "agent":
            what = "it is a stock TVM RPC server" if report.kind == "stock" else report.message
            warn(f"{report.key} at {report.address} is left out: {what}")
    devices = describe(reports)
    if not devices:
        raise DeviceUnavailableError(f"no agent answers behind the tracker {tracker}, whose devices could be described")
    alone = [name for name, table in devices.items() if "key" not in table]
    return devices, _measured(tracker, alone, key) if links else {}


def describe(reports: Iterable[DeviceReport]) -> dict[str, dict[str, Any]]:
    """[[device]] tables by the devices' names: the keys of their agents, with numbers where several have one."""
    agents = [report for report in reports if report.facts is not None]
    keys = [report.key for report in agents]
    tables = {}
    counts = dict.fromkeys(keys, 0)
    for report in agents:
        assert report.facts is not None
        counts[report.key] += 1
        name = report.key if keys.count(report.key) == 1 else f"{report.key}-{counts[report.key]}"
        own = {} if name == report.key else {"key": report.key}
        tables[name] = {**own, **device_table(report.facts)}
    return tables


def cluster_text(tracker: str, devices: Mapping[str, Mapping[str, Any]], links: Mapping[Pair, Link]) -> str:
    """The file. `links` are between names of devices, or "head" and one."""
    lines = [f"# What the agents behind the tracker {clean(tracker)} said of themselves."]
    for name, table in devices.items():
        lines += ["", "[[device]]", f"name = {_string(name)}"]
        lines += [f"{key} = {_value(key, value)}" for key, value in table.items() if (key, value) not in _USUAL]
    if links:
        lines += ["", "# As measured by this command, while nothing else was sent."]
    for pair, link in links.items():
        lines += ["[[link]]", f"between = [{_string(pair[0])}, {_string(pair[1])}]"]
        lines += [f'bandwidth = "{link.bandwidth_bps / 1e6:.4g}MB/s"', f'latency = "{1e3 * link.latency_s:.3g}ms"', ""]
    return "\n".join(lines).rstrip() + "\n"


_USUAL = (("slowdown", 1.0), ("onnxruntime", True))
"""What a cluster file need not say."""


def _value(key: str, value: Any) -> str:
    if key == "memory":
        return f'"{value >> 20}MiB"'
    if isinstance(value, str):
        return _string(value)
    return str(value).lower() if isinstance(value, bool) else f"{value:g}"


def _string(text: str) -> str:
    """As TOML writes strings; names of trackers' keys may be anything."""
    escaped = "".join(
        f"\\{one}" if one in '"\\' else one if one.isprintable() else f"\\U{ord(one):08X}" for one in text
    )
    return f'"{escaped}"'


def _measured(tracker: str, names: Sequence[str], key: ClusterKey | None) -> dict[Pair, Link]:
    """Links that could be measured; warnings for the others. `names` are keys too: a tracker hands out those that share
    one in turn, so that links of theirs cannot be told apart."""
    found = {}
    with work_progress("links") as notice:
        for timed in time_links(tracker, names, key, notice):
            if timed.times is None:
                warn(timed.failure)
                continue
            found[timed.between] = fit_link(timed.times.trips_s, timed.times.sent, timed.times.received)
    return found


def _write(path: Path, text: str) -> None:
    """The whole file or nothing. Raises InputError."""
    try:
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
            file.write(text)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(file.name, 0o666 & ~umask)
        os.replace(file.name, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from None


def _table(path: Path, devices: Mapping[str, Mapping[str, Any]]) -> PlainTable:
    table = PlainTable(title=f"{path}: {len(devices)} devices")
    table.add_names("device")
    for column in ("target", "threads", "memory"):
        table.add_column(column)
    for name, told in devices.items():
        table.add_row(name, str(told["target"]), str(told["threads"]), format_size(told["memory"]))
    return table
