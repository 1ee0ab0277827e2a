"""The command line: arguments in, calls out."""

from __future__ import annotations

import atexit
import dataclasses
import functools
import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.logging import RichHandler

from tvmpipe.commands.connect_options import connect_options
from tvmpipe.commands.generation_options import generation_options
from tvmpipe.commands.outcome import Outcome
from tvmpipe.commands.parameters import (
    DURATION,
    RATE,
    SIZE,
    Bucket,
    Dim,
    Finite,
    Key,
    ObjectiveName,
    Pad,
    Pin,
    Shape,
    StatePair,
    Value,
)
from tvmpipe.commands.progress import stderr
from tvmpipe.commands.stdout import reserve_stdout
from tvmpipe.console import PlainConsole
from tvmpipe.errors import InputError, TvmpipeError
from tvmpipe.runtime.tvm_runtime import import_runtime
from tvmpipe.text import clean

if TYPE_CHECKING:
    from tvmpipe.passes.frontend.options import ImportOptions
    from tvmpipe.runtime.head.options import ConnectOptions

_PIPED_WIDTH = 4096  # characters: nothing is wrapped or cut for a pipe, whose reader may look for names

_FIND_TRACKERS = ("agent", "doctor")
"""Commands that take "auto" for a tracker themselves: one waits for it, one says what it found."""

_EXTRAS = {
    **dict.fromkeys(("tokenizers", "jinja2"), "generate"),
    "zeroconf": "discovery",
    **dict.fromkeys(("starlette", "uvicorn", "prometheus_client", "h11"), "serve"),
    **dict.fromkeys(("grpc", "google"), "grpc"),
}
"""Packages that are not of the extra `compile`."""


def _command(function: Callable[..., Outcome | None]) -> Callable[..., None]:
    """Print what a command returns; turn its errors into one sentence and an exit code."""

    @click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
    @functools.wraps(function)
    def wrapped(*args: Any, as_json: bool, **kwargs: Any) -> None:
        try:
            if kwargs.get("tracker") == "auto" and function.__name__ not in _FIND_TRACKERS:
                kwargs["tracker"] = _found_tracker(kwargs)
            outcome = function(*args, **kwargs)
        except TvmpipeError as error:
            _fail(error, str(error), error.exit_code, as_json)
        except ModuleNotFoundError as error:
            _fail(error, _what_to_install(error), InputError.exit_code, as_json)
        if outcome is not None and as_json:
            click.echo(json.dumps(outcome.facts, indent=2))
        elif outcome is not None:
            PlainConsole(width=None if sys.stdout.isatty() else _PIPED_WIDTH).print(outcome.view)
        if outcome is not None and outcome.exit_code:
            sys.exit(outcome.exit_code)

    return wrapped


def _found_tracker(given: Mapping[str, Any]) -> str:
    """The address of the tracker of the cluster that a command's options are about."""
    from tvmpipe.runtime.security.keys import ClusterKey
    from tvmpipe.runtime.transport.discover import find_tracker

    path = given["connecting"].cluster_key if "connecting" in given else given.get("cluster_key")
    found = find_tracker(None if path is None else ClusterKey.load(path))
    click.echo(f"tracker {found.address}: {clean(found.why)}", err=True)
    return found.address


def _what_to_install(error: ModuleNotFoundError) -> str:
    extra = _EXTRAS.get(str(error.name).partition(".")[0], "compile")
    return f"this command needs the package {error.name!r}; install tvmpipe[{extra}]"


def _fail(error: Exception, message: str, code: int, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"error": type(error).__name__, "message": message}))
    click.echo(f"tvmpipe: error: {clean(message)}", err=True)
    sys.exit(code)


def _named(option: str, parameter: str, kind: click.ParamType[Any], told: str) -> Callable[[Any], Any]:
    """An option that may be given several times, each time for another name; a dict in the end."""

    def by_name(_: click.Context, __: click.Parameter, values: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        return dict(values)

    return click.option(option, parameter, type=kind, multiple=True, callback=by_name, help=told)


def _import_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of reading a model; the command gets them as `importing`."""

    @functools.wraps(function)
    def collected(*args: Any, **kwargs: Any) -> Any:
        from tvmpipe.passes.frontend.options import ImportOptions

        given = {one.name: kwargs.pop(one.name) for one in dataclasses.fields(ImportOptions)}
        return function(*args, importing=ImportOptions(**given), **kwargs)

    padding = "Pad an input of smaller samples with a number, if that leaves results as they are."
    options: list[Callable[[Any], Any]] = [
        _named("--shape", "shapes", Shape(), "Fix an input with open dimensions."),
        _named("--dim", "dims", Dim(), "Fix an open dimension in all inputs."),
        _named("--value", "values", Value(), "Make an input a constant."),
        _named("--bucket", "buckets", Bucket(), "Extents that an open dimension may have."),
        _named("--pad", "pads", Pad(), padding),
        _fallback_option,
        _named("--state", "states", StatePair(), "An output that is an input of a sequence's next step."),
        click.option("--no-state", "stateful", flag_value=False, default=True, help="Find no states by their names."),
        click.option(
            "--sequences", type=click.IntRange(1, 1 << 20), default=1, help="That devices hold states of at once."
        ),
        click.option(
            "--context", type=click.IntRange(1, 1 << 24), help="Elements that states which grow have room for."
        ),
    ]
    return functools.reduce(lambda inner, option: option(inner), reversed(options), collected)


def _fallback_option(function: Callable[..., Any]) -> Callable[..., Any]:
    told = "Let ONNX Runtime run the nodes that cannot be compiled, or refuse the model."
    return click.option("--fallback/--no-fallback", default=True, help=told)(function)


def _announce_option(function: Callable[..., Any]) -> Callable[..., Any]:
    told = "Tell the local network (mDNS) where zeroconf is installed, for --tracker auto."
    return click.option("--announce/--no-announce", default=True, help=told)(function)


def _planning_options(function: Callable[..., Any]) -> Callable[..., Any]:
    options: list[Callable[[Any], Any]] = [
        _import_options,
        click.option("--objective", type=ObjectiveName(), default="throughput", help="What the plan is for."),
        click.option("--time-limit", "time_limit_s", type=Finite(min=0.1), default=60.0, help="Seconds."),
        _named("--pin", "pins", Pin(), "Put ONNX nodes (shell pattern) on a device."),
        click.option("--plan", type=click.Path(path_type=Path), help="Follow this plan file instead of searching."),
        click.option("--replicate", is_flag=True, help="Let devices take samples in turn where that is faster."),
        click.option("--failover", is_flag=True, help="Also plan for the loss of each device."),
        click.option("--elastic", is_flag=True, help="Keep what other plans can be made of where the bundle runs."),
        click.option(
            "--compress",
            type=click.Choice(["none", "fp16", "int8"]),
            default="none",
            help="What links that are slower than every device may send float32 tensors as.",
        ),
        click.option("--prompt", type=click.IntRange(min=0), help="Elements that a sequence begins with."),
        click.option("--generate", type=click.IntRange(min=0), help="Elements that follow, one by one."),
        click.option("--robust", is_flag=True, help="Plan for costs at the upper ends of their intervals."),
        click.option(
            "--profiles", type=click.Path(exists=True, path_type=Path), help="Folder that `profile` wrote to."
        ),
        click.option("--dump", type=click.Path(path_type=Path), help="Write the module after each pass here."),
    ]
    return functools.reduce(lambda inner, option: option(inner), reversed(options), function)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tvmpipe")
@click.option("-v", "--verbose", count=True, help="Say more on stderr; twice for debugging.")
def cli(verbose: int) -> None:
    """Compile one ONNX model for several unequal machines and run it on all of them as a pipeline."""
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    handler = RichHandler(console=stderr, show_path=False, show_time=False)
    logging.basicConfig(level=level, format="%(message)s", handlers=[handler])


@cli.command("compile")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--cluster", type=click.Path(path_type=Path), help="Devices and links (TOML); default: ask --tracker.")
@_planning_options
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Bundle to write; a directory or a .tar file.")
@click.option("--force", "overwrite", is_flag=True, help="Replace an existing bundle.")
@click.option("--records", type=click.Path(path_type=Path), help="Folder of measured schedules to use.")
@click.option("--tune", type=click.IntRange(min=1), default=None, help="Measure so many schedules a hot primitive.")
@click.option("--tracker", metavar="HOST:PORT|auto", help="TVM RPC tracker to ask for devices, and to tune on.")
@click.option("--cluster-key", type=click.Path(path_type=Path), help="Key file of the cluster; needed off loopback.")
@_command
def compile_(model: Path, output: Path | None, tune: int | None, cluster: Path | None, **options: Any) -> Outcome:
    """Compile MODEL (ONNX) for the devices of a cluster and write a bundle.

    Without --cluster, for those behind --tracker as `tvmpipe init` describes them.
    """
    from tvmpipe.commands.compile import compile_model

    target = output or Path(f"{model.stem}.tvmpipe")
    if cluster is None and options["tracker"] is None:
        raise InputError("what to compile for is missing: give --cluster FILE, or --tracker to ask the devices there")
    devices: Any = cluster
    if cluster is None:
        import_runtime()
        from tvmpipe.commands.init import cluster_behind

        devices = cluster_behind(options["tracker"], options["cluster_key"])
    return compile_model(model, devices, output=target, tune=tune or 0, **options)


@cli.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--cluster", type=click.Path(path_type=Path), required=True, help="Devices and links (TOML).")
@_planning_options
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write plan.yaml here.")
@click.option("--simulate", type=click.IntRange(min=1), metavar="N", help="Send N samples through the plan, on paper.")
@click.option("--jitter", type=Finite(min=0), default=0.0, help="Relative spread of every step of these.")
@_command
def plan(model: Path, **options: Any) -> Outcome:
    """Say what would go where and what it should cost, without compiling."""
    from tvmpipe.commands.compile import plan_model

    return plan_model(model, **options)


@cli.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--cluster", type=click.Path(path_type=Path), required=True, help="Devices and links (TOML).")
@_planning_options
@_command
def explain(model: Path, **options: Any) -> Outcome:
    """Say why the plan is as it is: what bounds it, what is left over, and what would change it."""
    from tvmpipe.commands.explain import explain_model

    return explain_model(model, **options)


@cli.command()
@click.argument("model", type=click.Path(path_type=Path))
@_import_options
@_command
def show(model: Path, importing: ImportOptions) -> Outcome:
    """List the fused primitives of MODEL with their operators, shapes, FLOPs and bytes."""
    from tvmpipe.commands.compile import show_model

    return show_model(model, importing)


@cli.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--device", default="native", help="Target to compile for, such as x86-64-v3; this host must have it.")
@click.option("--cluster", type=click.Path(path_type=Path), help="Cluster file that describes the target of --device.")
@click.option("--threads", type=click.IntRange(1, 1024), default=1, help="Threads of either side.")
@click.option("--against", type=click.Choice(["onnxruntime", "none"]), default="onnxruntime")
@_import_options
@click.option("-i", "--input", "sample", type=click.Path(path_type=Path), help="Inputs (.npz, .npy); default: random.")
@click.option("--runs", type=click.IntRange(min=1), default=20, help="Timed runs of each, at least.")
@click.option("--seconds", type=Finite(min=0), default=5.0, help="Go on for so long, at least.")
@_command
def bench(model: Path, **options: Any) -> Outcome:
    """Time MODEL on this host against ONNX Runtime, run by run in turns, and each primitive on its own."""
    from tvmpipe.commands.bench import run_bench

    return run_bench(model, **options)


@cli.command()
@click.argument("models", metavar="[MODEL]...", type=click.Path(path_type=Path), nargs=-1)
@click.option("--cluster", type=click.Path(path_type=Path), required=True, help="Devices to measure (TOML).")
@click.option("--tracker", required=True, metavar="HOST:PORT|auto", help="TVM RPC tracker with the devices.")
@_import_options
@click.option("--store", type=click.Path(path_type=Path), help="Folder to keep measurements in; default: your cache.")
@click.option("--budget", "budget_s", type=Finite(min=1), help="Seconds to measure; default: 600, or all.")
@click.option("--passes", type=click.IntRange(min=1), default=3, help="Measure until two agree, at most so often.")
@click.option("--again", is_flag=True, help="Also measure what was measured before; the fastest counts.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of what is measured when no MODEL is given.")
@click.option("--links/--no-links", default=True, help="Measure the links between the devices too.")
@click.option("--cluster-key", type=click.Path(path_type=Path), help="Key file of the cluster; needed off loopback.")
@_command
def profile(models: tuple[Path, ...], **options: Any) -> Outcome:
    """Measure links, and what primitives cost on devices: those of each MODEL, or a sample of what models hold."""
    from tvmpipe.commands.profile import run_profile

    return run_profile(models, **options)


@cli.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("-i", "--input", "inputs", type=click.Path(path_type=Path), multiple=True, help="A sample (.npz, .npy).")
@click.option("--random", type=click.IntRange(min=1), help="Run this many random samples.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Seed of the random samples.")
@click.option("--repeat", type=click.IntRange(min=1), default=1, help="Run all samples this many times.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write results here (.npz, .npy).")
@click.option("--inflight", type=click.IntRange(min=1), help="Samples in the pipeline at once.")
@click.option("--batch", type=click.IntRange(min=1), help="Samples that travel together; default: as periods ask.")
@connect_options
@click.option("--elastic", is_flag=True, help="Make plans for the devices that are there; `compile --elastic` first.")
@click.option("--cluster", type=click.Choice(["auto"]), help="auto: use whoever registers with the tracker, too.")
@click.option(
    "--horizon",
    "horizon_s",
    type=Finite(min=0),
    default=60.0,
    show_default=True,
    help="Seconds in which a change to another plan has to pay, with --elastic.",
)
@click.option("--trace", type=click.Path(path_type=Path), help="Write what devices did when here, for Perfetto.")
@click.option("--learn", is_flag=True, help="Keep what stages took, for the plans to come.")
@click.option("--store", type=click.Path(path_type=Path), help="Folder to keep that in; default: your cache.")
@_command
def run(
    bundle: Path,
    *,
    inflight: int | None,
    batch: int | None,
    horizon_s: float,
    connecting: ConnectOptions,
    **options: Any,
) -> Outcome:
    """Run samples through BUNDLE on the devices behind a tracker."""
    from tvmpipe.commands.run import run_bundle

    connecting = dataclasses.replace(connecting, inflight=inflight, batch=batch, horizon_s=horizon_s)
    return run_bundle(bundle, options=connecting, **options)


@cli.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@_command  # above options whose values may not go together
@click.option("--tokenizer", type=click.Path(path_type=Path), required=True, help="tokenizer.json, or its folder.")
@click.option("--prompt", help="Text to go on with.")
@click.option("--prompt-file", type=click.Path(path_type=Path), help="The same in a file; '-' for stdin.")
@click.option("--chat", is_flag=True, help="The prompt is a message; without one, lines of stdin are a conversation.")
@click.option("--system", metavar="TEXT", help="What a conversation begins with.")
@generation_options
@connect_options
def generate(bundle: Path, **options: Any) -> Outcome | None:
    """Let the language model in BUNDLE go on with a text, on the devices behind a tracker."""
    from tvmpipe.commands.generate import generate_text

    as_json = click.get_current_context().params["as_json"]
    outcome = generate_text(bundle, quiet=as_json, **options)
    return outcome if as_json else None  # the text has been streamed


@cli.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--tokenizer", type=click.Path(path_type=Path), help="tokenizer.json, or its folder: serve text.")
@click.option("--name", help="What clients call the model; default: the bundle's name.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any that is free.")
@click.option(
    "--token-file", type=click.Path(path_type=Path), help="Token that clients must send; needed off loopback."
)
@click.option("--grpc-port", type=click.IntRange(1, 65535), help="Serve tensors over gRPC there, too.")
@click.option("--queue", type=click.IntRange(min=0), default=64, show_default=True, help="Answers that may wait.")
@click.option("--drain", "drain_s", type=Finite(min=0), default=30.0, help="Seconds to finish what runs at the end.")
@click.option("--draft", type=click.IntRange(min=0), default=0, help="Tokens to guess for greedy requests.")
@connect_options
@_command
def serve(
    bundle: Path,
    *,
    host: str,
    port: int,
    token_file: Path | None,
    queue: int,
    drain_s: float,
    draft: int,
    tokenizer: Path | None,
    grpc_port: int | None,
    **connecting: Any,
) -> None:
    """Serve the model in BUNDLE over HTTP: with --tokenizer a language model, as OpenAI's API has it, else tensors in
    and out, as the Open Inference Protocol has them."""
    from tvmpipe.commands.serve import serve_tensors, serve_text
    from tvmpipe.serve.server import ServeOptions

    options = ServeOptions(host, port, token_file, queue, drain_s)
    if tokenizer is None:
        if draft:
            raise InputError("--draft guesses tokens of text, which needs --tokenizer")
        serve_tensors(bundle, options=options, grpc_port=grpc_port, **connecting)
        return
    if grpc_port is not None:
        raise InputError("--grpc-port serves tensors; text is served over HTTP, so leave out one of it and --tokenizer")
    serve_text(bundle, options=options, tokenizer=tokenizer, draft=draft, **connecting)


@cli.command()
@click.option("--tracker", required=True, metavar="HOST:PORT|auto", help="TVM RPC tracker to ask.")
@click.option("--cluster-key", type=click.Path(path_type=Path), help="Key file of the cluster; needed off loopback.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("cluster.toml"), show_default=True)
@click.option("--links/--no-links", default=True, help="Measure the links between the devices too.")
@click.option("--force", "overwrite", is_flag=True, help="Replace an existing file.")
@_command
def init(tracker: str, cluster_key: Path | None, output: Path, links: bool, overwrite: bool) -> Outcome:
    """Write a cluster file for the devices behind a tracker, as they describe themselves, with their links measured."""
    import_runtime()
    from tvmpipe.commands.init import init_cluster

    return init_cluster(tracker, cluster_key, output, links=links, overwrite=overwrite)


@cli.command()
@click.option("--tracker", required=True, metavar="HOST:PORT|auto", help="TVM RPC tracker to ask.")
@click.option("--cluster-key", type=click.Path(path_type=Path), help="Key file of the cluster, for --tracker auto.")
@_command
def devices(tracker: str, cluster_key: Path | None) -> Outcome:
    """List the devices a tracker knows."""
    from tvmpipe.commands.devices import list_devices

    return list_devices(tracker)


@cli.command()
@click.option("--tracker", required=True, metavar="HOST:PORT|auto", help="TVM RPC tracker to ask.")
@click.option("--cluster-key", type=click.Path(path_type=Path), help="Key file of the cluster; needed off loopback.")
@click.option("--once", is_flag=True, help="Print one table and end, as with --json and where there is no terminal.")
@_command
def top(tracker: str, cluster_key: Path | None, once: bool) -> Outcome | None:
    """Show what the devices behind a tracker are doing, anew every two seconds."""
    import_runtime()
    from tvmpipe.commands.top import show_once, watch

    if once or click.get_current_context().params["as_json"] or not sys.stdout.isatty():
        return show_once(tracker, cluster_key)
    watch(tracker, cluster_key)
    return None


@cli.command()
@click.option("--tracker", required=True, metavar="HOST:PORT|auto", help="TVM RPC tracker to ask.")
@click.option("--key", type=Key(), help="Look at the devices with this key only.")
@click.option("--cluster-key", type=click.Path(path_type=Path), help="Key file of the cluster; needed off loopback.")
@_command
def doctor(tracker: str, key: str | None, cluster_key: Path | None) -> Outcome:
    """Try every step on the way to each device, and say what to do about those that fail."""
    import_runtime()
    from tvmpipe.commands.doctor import examine

    return examine(tracker, key, cluster_key)


@cli.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", type=click.IntRange(1, 65535), default=9190, show_default=True, help="Port to listen on.")
@click.option("--cluster-key", type=click.Path(path_type=Path), help="Key file of the cluster, for --tracker auto.")
@_announce_option
@_command
def tracker(**options: Any) -> None:
    """Tell heads where devices are: TVM's RPC tracker, until it is interrupted."""
    from tvmpipe.commands.tracker import run_tracker

    run_tracker(**options)


@cli.command()
@click.option("--tracker", required=True, metavar="HOST:PORT|auto", help="TVM RPC tracker to register with.")
@click.option("--key", required=True, type=Key(), help="Name under which heads ask for this device.")
@click.option("--host", help="Address to listen on, loopback's unless said; whoever reaches it can run code.")
@click.option("--interface", metavar="NAME", help="Listen on the address of this network interface, such as eth0.")
@click.option("--port", type=click.IntRange(1, 65535), default=9091, help="First port to try.")
@click.option("--port-end", type=click.IntRange(2, 65536), default=9199, help="Port to stop before.")
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads for stages; default: the physical cores.")
@click.option("--memory", "memory_bytes", type=SIZE, help="Memory to offer, such as 512MiB; default: all.")
@click.option("--store", type=click.Path(path_type=Path), help="Folder for libraries and weights that were sent.")
@click.option(
    "--store-limit", "store_limit_bytes", type=SIZE, help="Keep no more than this there; what is used least goes first."
)
@click.option("--link-port", type=click.IntRange(1, 65535), default=9200, help="First port to try for tensors.")
@click.option("--advertise", metavar="HOST:PORT", help="Where others reach the link port, if it is elsewhere.")
@click.option("--cluster-key", type=click.Path(path_type=Path), help="Key file of the cluster; needed off loopback.")
@click.option("--slowdown", type=Finite(min=1), default=1.0, help="Emulate a device so much slower.")
@click.option("--like", metavar="TARGET", help="Slower than the machine that TARGET's measurements are of, not this.")
@click.option("--cluster", type=click.Path(path_type=Path), help="Cluster file that describes TARGET, for --like.")
@click.option("--profiles", type=click.Path(path_type=Path), help="Folder that `profile` wrote to, for --like.")
@click.option("--bandwidth", "bandwidth_bps", type=RATE, help="Emulate a link that sends at this rate: 100Mbps.")
@click.option("--latency", "latency_s", type=DURATION, default="0s", help="Emulate a link with this delay: 1ms.")
@click.option(
    "--metrics-port", type=click.IntRange(1, 65535), help="Serve /metrics and /healthz here; default: do not."
)
@_announce_option
@click.option("--user-limits", is_flag=True, help="Give stages the memory that they promised, and no more.")
@_command
def agent(**options: Any) -> None:
    """Offer this machine as a device."""
    from tvmpipe.commands.agent import serve_agent

    serve_agent(**options)


@cli.command()
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@_command
def key(path: Path) -> Outcome:
    """Make a cluster key FILE: agents and heads that are given it accept each other and nobody else."""
    from tvmpipe.commands.key import make_key

    return make_key(path)


@cli.command()
@click.argument("model", type=click.Path(path_type=Path), required=False)
@click.option("--samples", type=click.IntRange(min=2), default=32)
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("demo"), help="Folder to write to.")
@_fallback_option
@_command
def demo(model: Path | None, samples: int, output: Path, fallback: bool) -> Outcome:
    """Compile a model for three unequal local devices, run it on them, and check it against ONNX Runtime."""
    from tvmpipe.commands.demo import run_demo

    return run_demo(model, samples, output, fallback=fallback)


def invoke(arguments: Sequence[str] | None = None) -> int:
    """Run a command of this process's arguments, or of those given; its exit code."""
    try:
        cli.main(arguments, prog_name="tvmpipe", standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("tvmpipe: interrupted", err=True)
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except ModuleNotFoundError as error:  # of an option, which is read before the command runs
        click.echo(f"tvmpipe: error: {_what_to_install(error)}", err=True)
        return InputError.exit_code
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    return 0


def main() -> None:
    """Entry point of the `tvmpipe` script."""
    reserve_stdout()
    code = invoke()
    if any(thread.daemon for thread in threading.enumerate()):
        # One may wait in TVM for a device that never answers; Python's own end aborts the process when it wakes.
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
