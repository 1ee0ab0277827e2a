"""The command line: arguments in, calls out."""

from __future__ import annotations

import functools
import json
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.logging import RichHandler

from tvmpipe.commands.outcome import Outcome
from tvmpipe.commands.progress import stderr
from tvmpipe.errors import InputError, TvmpipeError
from tvmpipe.units import parse_size


class _Shape(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.2 on
    name = "NAME=D,D,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        name, separator, dims = str(value).rpartition("=")
        try:
            shape = tuple(int(dim) for dim in dims.split(",")) if dims else ()
        except ValueError:
            shape = (-1,)
        if not separator or not name or any(dim < 1 for dim in shape):
            self.fail(f"{value!r} is not of the form x=1,3,224,224", param, ctx)
        return name, shape


class _Pin(click.ParamType):  # type: ignore[type-arg]
    name = "PRIMITIVE=DEVICE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        pattern, separator, device = str(value).rpartition("=")
        if not separator or not pattern or not device:
            self.fail(f"{value!r} is not of the form 003.fused_conv2d=fast", param, ctx)
        return pattern, device


class _Size(click.ParamType):  # type: ignore[type-arg]
    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return parse_size(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _Key(click.ParamType):  # type: ignore[type-arg]
    name = "KEY"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", str(value)):
            self.fail(f"{value!r} is no key; letters, digits, '_', '.' and '-' are allowed", param, ctx)
        return value


def _command(function: Callable[..., Outcome | None]) -> Callable[..., None]:
    """Print what a command returns; turn its errors into one sentence and an exit code."""

    @click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
    @functools.wraps(function)
    def wrapped(*args: Any, as_json: bool, **kwargs: Any) -> None:
        try:
            outcome = function(*args, **kwargs)
        except TvmpipeError as error:
            _fail(error, str(error), error.exit_code, as_json)
        except ModuleNotFoundError as error:
            message = f"this command needs the package {error.name!r}; install tvmpipe[compile]"
            _fail(error, message, InputError.exit_code, as_json)
        if outcome is not None and as_json:
            click.echo(json.dumps(outcome.facts, indent=2))
        elif outcome is not None:
            Console(width=None if sys.stdout.isatty() else 160).print(outcome.view)

    return wrapped


def _fail(error: Exception, message: str, code: int, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"error": type(error).__name__, "message": message}))
    click.echo(f"tvmpipe: error: {message}", err=True)
    sys.exit(code)


def _planning_options(function: Callable[..., Any]) -> Callable[..., Any]:
    options = [
        click.option("--cluster", type=click.Path(path_type=Path), required=True, help="Devices and links (TOML)."),
        click.option("--shape", "shapes", type=_Shape(), multiple=True, help="Fix an input with open dimensions."),
        click.option("--objective", type=click.Choice(["throughput", "latency"]), default="throughput"),
        click.option("--time-limit", "time_limit_s", type=click.FloatRange(min=0.1), default=60.0, help="Seconds."),
        click.option("--pin", "pins", type=_Pin(), multiple=True, help="Put primitives (shell pattern) on a device."),
        click.option("--plan", type=click.Path(path_type=Path), help="Follow this plan file instead of searching."),
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
@_planning_options
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Bundle to write; a directory or a .tar file.")
@click.option("--force", "overwrite", is_flag=True, help="Replace an existing bundle.")
@click.option("--records", type=click.Path(path_type=Path), help="Folder of measured schedules to use.")
@click.option("--tune", type=click.IntRange(min=1), default=None, help="Measure so many schedules a hot primitive.")
@click.option("--tracker", metavar="HOST:PORT", help="TVM RPC tracker with the devices to tune on.")
@_command
def compile_(model: Path, output: Path | None, shapes: Any, pins: Any, tune: int | None, **options: Any) -> Outcome:
    """Compile MODEL (ONNX) for the devices of a cluster and write a bundle."""
    from tvmpipe.commands.compile import compile_model

    target = output or Path(f"{model.stem}.tvmpipe")
    return compile_model(model, output=target, shapes=dict(shapes), pins=dict(pins), tune=tune or 0, **options)


@cli.command()
@click.argument("model", type=click.Path(path_type=Path))
@_planning_options
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write plan.yaml here.")
@_command
def plan(model: Path, shapes: Any, pins: Any, **options: Any) -> Outcome:
    """Say what would go where and what it should cost, without compiling."""
    from tvmpipe.commands.compile import plan_model

    return plan_model(model, shapes=dict(shapes), pins=dict(pins), **options)


@cli.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--shape", "shapes", type=_Shape(), multiple=True, help="Fix an input with open dimensions.")
@_command
def show(model: Path, shapes: Any) -> Outcome:
    """List the fused primitives of MODEL with their operators, shapes, FLOPs and bytes."""
    from tvmpipe.commands.compile import show_model

    return show_model(model, dict(shapes))


@cli.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--device", default="native", help="Target to compile for, such as x86-64-v3; this host must have it.")
@click.option("--threads", type=click.IntRange(1, 1024), default=1, help="Threads of either side.")
@click.option("--against", type=click.Choice(["onnxruntime", "none"]), default="onnxruntime")
@click.option("--shape", "shapes", type=_Shape(), multiple=True, help="Fix an input with open dimensions.")
@click.option("--runs", type=click.IntRange(min=1), default=20, help="Timed runs of each.")
@_command
def bench(model: Path, shapes: Any, **options: Any) -> Outcome:
    """Time MODEL on this host against ONNX Runtime, run by run in turns, and each primitive on its own."""
    from tvmpipe.commands.bench import run_bench

    return run_bench(model, shapes=dict(shapes), **options)


@cli.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--tracker", required=True, metavar="HOST:PORT", help="TVM RPC tracker with the devices.")
@click.option("-i", "--input", "inputs", type=click.Path(path_type=Path), multiple=True, help="A sample (.npz, .npy).")
@click.option("--random", type=click.IntRange(min=1), help="Run this many random samples.")
@click.option("--seed", type=int, default=0, help="Seed of the random samples.")
@click.option("--repeat", type=click.IntRange(min=1), default=1, help="Run all samples this many times.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write results here (.npz, .npy).")
@click.option("--inflight", type=click.IntRange(min=1), help="Samples in the pipeline at once.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0.01), default=60.0, help="Seconds a step may take.")
@_command
def run(bundle: Path, **options: Any) -> Outcome:
    """Run samples through BUNDLE on the devices behind a tracker."""
    from tvmpipe.commands.run import run_bundle

    return run_bundle(bundle, **options)


@cli.command()
@click.option("--tracker", required=True, metavar="HOST:PORT", help="TVM RPC tracker to ask.")
@_command
def devices(tracker: str) -> Outcome:
    """List the devices a tracker knows."""
    from tvmpipe.commands.run import list_devices

    return list_devices(tracker)


@cli.command()
@click.option("--tracker", required=True, metavar="HOST:PORT", help="TVM RPC tracker to register with.")
@click.option("--key", required=True, type=_Key(), help="Name under which heads ask for this device.")
@click.option("--host", default="127.0.0.1", help="Address to listen on; whoever reaches it can run code.")
@click.option("--port", type=click.IntRange(1, 65535), default=9091, help="First port to try.")
@click.option("--port-end", type=click.IntRange(2, 65536), default=9199, help="Port to stop before.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads for stages; default: the physical cores.")
@click.option("--memory", "memory_bytes", type=_Size(), help="Memory to offer, such as 512MiB; default: all.")
@click.option("--store", type=click.Path(path_type=Path), help="Folder for libraries and weights that were sent.")
@_command
def agent(**options: Any) -> None:
    """Offer this machine as a device."""
    from tvmpipe.runtime.agent import AgentOptions, serve

    serve(AgentOptions(**options))


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
@_command
def demo(model: Path | None, samples: int, output: Path) -> Outcome:
    """Compile a model for three unequal local devices, run it on them, and check it against ONNX Runtime."""
    from tvmpipe.commands.demo import run_demo

    return run_demo(model, samples, output)


def main() -> None:
    """Entry point of the `tvmpipe` script."""
    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("tvmpipe: interrupted", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
