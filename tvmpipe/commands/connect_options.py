"""The options of finding devices and staying with them, for commands that run a bundle."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tvmpipe.commands.parameters import Finite
from tvmpipe.commands.progress import delivery_progress
from tvmpipe.runtime.tvm_runtime import import_runtime


def connect_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--tracker` as `tracker`, and the others together as `connecting`, a `ConnectOptions`."""

    @functools.wraps(function)
    def collected(
        *args: Any,
        failover: bool,
        connect_timeout_s: float,
        wait_s: float,
        timeout_s: float,
        start_timeout_s: float,
        recover_s: float | None,
        cluster_key: Path | None,
        event_log: Path | None,
        **kwargs: Any,
    ) -> Any:
        import_runtime()
        from tvmpipe.runtime.head.options import ConnectOptions, Limits

        with delivery_progress() as on_delivery:
            connecting = ConnectOptions(
                failover=failover,
                limits=Limits(connect_timeout_s, wait_s, timeout_s, start_timeout_s, recover_s),
                cluster_key=cluster_key,
                event_log=event_log,
                on_delivery=on_delivery,
            )
            return function(*args, connecting=connecting, **kwargs)

    recovering = "Seconds to wait for a lost device that is needed; default: 60 with --failover, 10 without."
    starting = "Seconds a device may take to start Python and TVM, and again to load."
    seconds: list[tuple[str, str, float, float | None, str]] = [
        ("--timeout", "timeout_s", 0.01, 60.0, "Seconds a stage may take."),
        ("--recover", "recover_s", 0, None, recovering),
        ("--wait", "wait_s", 0, 10.0, "Seconds to wait for devices in use."),
        ("--connect-timeout", "connect_timeout_s", 0.1, 10.0, "Seconds to find a device and be reached by it."),
        ("--start-timeout", "start_timeout_s", 0.1, 120.0, starting),
    ]
    options: list[Callable[[Any], Any]] = [
        click.option("--tracker", required=True, metavar="HOST:PORT|auto", help="TVM RPC tracker with the devices."),
        click.option("--failover", is_flag=True, help="Go on without a device that is lost."),
        *(
            click.option(name, to, type=Finite(min=least), default=usual, help=told)
            for name, to, least, usual, told in seconds
        ),
        click.option(
            "--cluster-key", type=click.Path(path_type=Path), help="Key file of the cluster; needed off loopback."
        ),
        click.option("--event-log", type=click.Path(path_type=Path), help="Write what the executor decided on here."),
    ]
    return functools.reduce(lambda inner, option: option(inner), reversed(options), collected)
