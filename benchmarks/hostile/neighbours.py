"""Another machine on the same network, at every door: network namespaces with a cable between them."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.hostile.intrusions import Plot, carry_out, must
from benchmarks.hostile.pipelines import KEY, make_bundle
from benchmarks.hostile.row import Intrusion, Options
from tests.runtime.machines import NO_NAMESPACES, Machine, two_machines
from tests.waiting import PATIENCE_S, wait_until
from tvmpipe.errors import reason_of
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.runtime.transport.address import WILDCARDS

_TRACKER_PORT = 9190
_TRACKER = f"127.0.0.1:{_TRACKER_PORT}"
_MOST_FRAMES = 2000
_WAIT = "from tvmpipe.runtime.transport.tracker import wait_for_keys\nwait_for_keys({!r}, {}, {})"

_CONNECT = """
import sys, tvmpipe
from tvmpipe.errors import TvmpipeError
try:
    tvmpipe.connect(sys.argv[1], sys.argv[2], connect_timeout_s=5).close()
    print("a pipeline was opened on it")
except TvmpipeError as error:
    print(error)
"""


@dataclass(frozen=True)
class Scene:
    """On the machine `here` a tracker, the agent "alpha" on 0.0.0.0 with the cluster key and a pipeline on it, and the
    agent "bare" without a key; the stranger is `there`."""

    here: Machine
    there: Machine
    folder: Path
    key: Path
    options: Options

    def ports(self, *, outside: bool) -> list[int]:
        """What others reach that listens here, or what is on loopback alone."""
        found = ask(self.here, "listening")
        shown = {port for host, port in found if host in (*WILDCARDS, self.here.address)}
        return sorted(shown if outside else {port for _, port in found} - shown)

    @property
    def tracker(self) -> str:
        """As it is reached from there."""
        return f"{self.here.address}:{_TRACKER_PORT}"

    @property
    def links(self) -> list[int]:
        """Ports of ZeroMQ: what others reach, but for the tracker and the TLS server."""
        return [port for port in self.ports(outside=True) if port not in (_TRACKER_PORT, self.tls_server)]

    @property
    def tls_server(self) -> int:
        """Where the agent with the key is registered."""
        code = f"from tvmpipe.runtime.transport.tracker import Tracker\nwith Tracker({_TRACKER!r}) as tracker:\n"
        code += f"    print(*(one.addresses[0] for one in tracker.status() if one.key == {KEY!r}))"
        return int(self.here.run("-c", code).stdout.rpartition(":")[2])

    def secret(self) -> str:
        """The cluster's."""
        return ClusterKey.load(self.key).secret.hex()

    def going_on(self) -> None:
        """Raise Fault when the pipeline has ended."""
        told = self.folder / "told"
        must(not told.exists(), f"the pipeline has ended: {told.read_text() if told.exists() else ''}")


def _await(here: Machine, *keys: str) -> None:
    """Wait until devices are registered. Raises RuntimeError when they are not."""
    came = here.run("-c", _WAIT.format(_TRACKER, keys, PATIENCE_S))
    if came.returncode:
        raise RuntimeError(f"{' and '.join(keys)} did not come up: {came.stderr[-300:]}")


def ask(machine: Machine, what: str, **arguments: Any) -> Any:
    """What a function of `knocking` returns there. Raises RuntimeError when it fails."""
    done = machine.run("-m", "benchmarks.hostile.knocking", what, json.dumps(arguments))
    if done.returncode:
        raise RuntimeError(f"{what} failed: {reason_of(done.stderr)}")
    return json.loads(done.stdout)


@contextlib.contextmanager
def _scene(options: Options) -> Iterator[Scene]:
    with (
        tempfile.TemporaryDirectory(prefix="tvmpipe-hostile-") as name,
        two_machines("10.77.0.1/24", "10.77.0.2/24") as (here, there),
    ):
        folder = Path(name)
        key = folder / "key"
        ClusterKey.generate(key)
        make_bundle().save(folder / "bundle")
        code = f"from tvm.rpc import tracker; tracker.PopenTrackerServerState('0.0.0.0', {_TRACKER_PORT}, 9191, True)"
        here.start("-c", code, log=folder / "tracker.log")
        for device, more in ((KEY, ("--host", "0.0.0.0", "--cluster-key", str(key))), ("bare", ())):
            arguments = ["--tracker", _TRACKER, "--key", device, "--store", str(folder / device), *more]
            here.start("-m", "tvmpipe", "agent", *arguments, "--threads", "1", log=folder / f"{device}.log")
        came = here.run("-c", _WAIT.format(_TRACKER, [KEY, "bare"], 60))
        if came.returncode:
            raise RuntimeError(f"the agents did not come up: {came.stderr[-300:]}")
        head = ["-m", "benchmarks.hostile.pipelines", str(folder / "bundle"), _TRACKER, str(key), str(folder)]
        here.start(*head, log=folder / "head.log")
        wait_until((folder / "up").exists, lambda: (folder / "head.log").read_text()[-300:])
        yield Scene(here, there, folder, key, options)


def _match_key(scene: Scene) -> str:
    came = ask(scene.there, "match_key", tracker=scene.tracker, name=KEY)
    must(came == "turned away", f"the stranger was {came}")
    guest = ask(scene.there, "guest", tracker=scene.tracker, name=KEY, key=str(scene.key))
    must(guest == "let in", "a holder of the key is turned away as well")
    return "turned away; from there with the key: let in"


def _other_tls(scene: Scene) -> str:
    port = scene.tls_server
    came = ask(scene.there, "tls", host=scene.here.address, port=port, secret=bytes(32).hex())
    must(came == "turned away", f"the stranger was {came}")
    guest = ask(scene.there, "tls", host=scene.here.address, port=port, secret=scene.secret())
    must(guest == "let in", "a holder of the key is turned away as well")
    return "turned away; with the cluster's key: let in"


def _zeromq(secret: Callable[[Scene], str], *, impostor: bool = False) -> Callable[[Scene], str]:
    def act(scene: Scene) -> str:
        ports = scene.links
        must(len(ports) >= 3, f"host and head listen on {ports} only")

        def knock(secret: str, *, impostor: bool = False) -> list[str]:
            where = {"host": scene.here.address, "secret": secret, "impostor": impostor, "message": "injected"}
            return [ask(scene.there, "zeromq", port=port, **where) for port in ports]

        came = knock(secret(scene), impostor=impostor)
        must("let in" not in came, f"at ports {ports} the stranger was {came}")
        guest = knock(scene.secret())
        must("turned away" not in guest, f"at ports {ports} a holder of the key was {guest}")
        scene.going_on()
        return f"turned away at {len(ports)} ports; with the cluster's key: let in"

    return act


def _garbage(scene: Scene) -> str:
    count = min(scene.options.mutations, _MOST_FRAMES)
    ports = scene.ports(outside=True)
    others = [port for port in ports if port != _TRACKER_PORT]
    began = time.monotonic()
    where = {"host": scene.here.address, "ports": others, "tracker_port": _TRACKER_PORT}
    ask(scene.there, "garbage", **where, count=count, seed=scene.options.seed)
    scene.going_on()
    left = sorted(set(ports) - set(scene.ports(outside=True)))
    must(not left, f"nothing listens at {left} any more")
    guest = ask(scene.there, "guest", tracker=scene.tracker, name=KEY, key=str(scene.key))
    must(guest == "let in", "the agent is not reached any more")
    return f"{count} frames to each of {len(ports)} ports in {time.monotonic() - began:.0f} s: all serve as before"


def _keyless(scene: Scene) -> str:
    ports = scene.ports(outside=False)
    inside = ask(scene.here, "reach", host="127.0.0.1", ports=ports)
    must(inside, "nothing is reached on its own machine either")
    guest = ask(scene.here, "guest", tracker=_TRACKER, name="bare")
    must(guest == "let in", "the agent does not work on its own machine either")
    found = ask(scene.there, "reach", host=scene.here.address, ports=ports)
    must(not found, f"the stranger reached ports {found}")
    came = ask(scene.there, "reach", host=scene.here.address, ports=[_TRACKER_PORT])
    must(came, "the stranger reaches nothing at all")
    return f"none of {len(ports)} ports on loopback is reached; on its own machine the agent is"


def _keyless_outside(scene: Scene) -> str:
    arguments = ["--tracker", _TRACKER, "--key", "open", "--host", "0.0.0.0", "--store", str(scene.folder / "open")]
    done = scene.here.run("-m", "tvmpipe", "agent", *arguments)
    sentence = done.stderr.strip()
    must(done.returncode == 1 and "off loopback (0.0.0.0) an agent needs --cluster-key" in sentence, sentence)
    return f"exit code 1: {sentence}"


def _stock(scene: Scene) -> str:
    log = scene.folder / "stock.log"
    server = ["-m", "tvm.exec.rpc_server", "--host", "0.0.0.0", "--custom-addr", scene.there.address]
    scene.there.start(*server, "--tracker", scene.tracker, "--key", "stock", log=log)
    path = make_bundle("stock").save(scene.folder / "stock-bundle")
    _await(scene.here, "stock")
    sentence = scene.here.run("-c", _CONNECT, str(path), _TRACKER).stdout.strip()
    must("off loopback" in sentence and "only with a cluster key" in sentence, sentence or "the head said nothing")
    must("connect" not in log.read_text().lower(), f"the server saw it: {log.read_text()[-200:]}")
    return sentence


def _pipeline(scene: Scene) -> str:
    (scene.folder / "stop").touch()
    told = scene.folder / "told"
    wait_until(told.exists, lambda: (scene.folder / "head.log").read_text()[-300:])
    said = json.loads(told.read_text())
    must(not said["wrong"], said["wrong"])
    return f"{said['answered']} answers, all as the first"


PLOTS: tuple[Plot[Scene], ...] = (
    Plot("TVM RPC of an agent on 0.0.0.0", "the match key, no cluster key", "turned away", _match_key),
    Plot("TLS server", "another cluster key", "turned away", _other_tls),
    Plot("host and head (ZeroMQ)", "no key", "turned away", _zeromq(lambda _: "")),
    Plot("host and head (ZeroMQ)", "another cluster key", "turned away", _zeromq(lambda _: bytes(32).hex())),
    Plot(
        "host and head (ZeroMQ)", "the cluster's public key alone", "turned away", _zeromq(Scene.secret, impostor=True)
    ),
    Plot("every port", "damaged frames of all protocols", "all serve as before", _garbage),
    Plot("an agent without a key", "to connect", "not reached", _keyless),
    Plot("an agent without a key", "its user: --host 0.0.0.0", "refused in one sentence", _keyless_outside),
    Plot("a head without a key", "a stock RPC server off loopback", "not spoken to", _stock),
    Plot("a pipeline during all this", "its answers", "right", _pipeline),
)


def check(options: Options) -> Iterator[Intrusion]:
    """Each door, tried from a machine beside."""
    return carry_out(PLOTS, NO_NAMESPACES, lambda: _scene(options))
