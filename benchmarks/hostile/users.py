"""Another user of the machine, at every door of an agent, a stage host and a head: nothing in, nothing out."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

import tvmpipe
from benchmarks.hostile import knocking
from benchmarks.hostile.intrusions import Plot, carry_out, must
from benchmarks.hostile.pipelines import KEY, Going, make_bundle
from benchmarks.hostile.row import Intrusion, Options
from tests.runtime.fakes import registered
from tests.runtime.processes import listening, rpc_port, stage_host
from tests.runtime.strangers import NO_OTHER_USER, OTHER_UID, PUSH, SHAKE, line_of, run_as_other, running_as_other
from tests.waiting import PATIENCE_S
from tvmpipe.bundle import Bundle
from tvmpipe.errors import DeviceError, InputError
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, LocalCluster, local_cluster
from tvmpipe.runtime.security.keys import ClusterKey
from tvmpipe.runtime.transport.sockets import Sockets, head_hosts
from tvmpipe.runtime.transport.tracker import Tracker

_KNOCK = "from benchmarks.hostile.knocking import zeromq"
_QUIET_MS = 1000  # what was sent over loopback would be there by then


@dataclass(frozen=True)
class Scene:
    """A tracker and agents of this user: "keyed" has the cluster key in the file `key`, the others have none."""

    cluster: LocalCluster
    folder: Path
    key: Path
    bundle: Bundle


@contextlib.contextmanager
def _scene() -> Iterator[Scene]:
    with tempfile.TemporaryDirectory(prefix="tvmpipe-hostile-") as name:
        folder = Path(name)
        ClusterKey.generate(folder / "key")
        keyed = LocalAgent("keyed", options=("--cluster-key", str(folder / "key")))
        with local_cluster([keyed, LocalAgent("bare"), LocalAgent(KEY)], store=folder) as cluster:
            yield Scene(cluster, folder, folder / "key", make_bundle())


def _match_key(name: str) -> Callable[[Scene], str]:
    def act(scene: Scene) -> str:
        port = rpc_port(scene.cluster, name)
        code = "print(flush=True)\nport, key = input().split()\nprint(shake(int(port), key))"
        with running_as_other(code, SHAKE) as process:
            line_of(process)  # it is ready: a match key that nobody uses is worth nothing after some seconds
            with Tracker(scene.cluster.tracker) as tracker:
                key = tracker.request(name, PATIENCE_S).match_key
            assert process.stdin is not None
            process.stdin.write(f"{port} {key}\n")
            came = line_of(process)
        must(came == "turned away", f"the other user was {came or 'gone before it was answered'}")
        guest = knocking.guest(scene.cluster.tracker, name, str(scene.key) if name == "keyed" else "")
        must(guest == "let in", "this user is turned away as well")
        return "turned away; this user is let in"

    return act


def _inject(kind: str) -> Callable[[Scene], str]:
    def act(_: Scene) -> str:
        with Sockets() as there, Sockets() as here:
            listen = there.pull if kind == "PUSH" else there.router
            inbox, port = listen(head_hosts(None))
            code = f"push.connect('tcp://127.0.0.1:{port}'); push.send(b'injected'); print('sent', flush=True); input()"
            with running_as_other(code, PUSH.replace("zmq.PUSH", f"zmq.{kind}")) as process:
                must(line_of(process) == "sent", "the other user could not try")
                must(not inbox.poll(_QUIET_MS), "the message of the other user came in")
                # The monitor is kept, since ZeroMQ waits for whoever should read it.
                good, *_monitor = (
                    here.push(("127.0.0.1", port)) if kind == "PUSH" else [here.dealer(("127.0.0.1", port))]
                )
                good.send(b"good")
                must(inbox.poll(int(PATIENCE_S * 1e3)), "this user's message does not come in either")
                came = inbox.recv_multipart()[-1]
                must(came == b"good" and not inbox.poll(_QUIET_MS), f"{came!r} came in, or more than this user sent")
        return "nothing came in; this user's message did"

    return act


def _pipeline(scene: Scene) -> str:
    """Every port of its head and of its stage host."""
    before = set(listening(os.getpid()))
    with tvmpipe.connect(scene.bundle, scene.cluster.tracker, connect_timeout_s=30) as pipe:
        going = Going(pipe)
        agent = psutil.Process(scene.cluster.process(KEY).pid)
        ports = sorted({*listening(os.getpid()), *listening(stage_host(agent).pid)} - before)
        must(len(ports) >= 3, f"a pipeline listens on {ports} only")
        code = f"print([zeromq('127.0.0.1', port, message='injected') for port in {ports}])"
        found = run_as_other(code, _KNOCK)
        must("let in" not in found, f"at ports {ports} the other user was {found}")
        own = [knocking.zeromq("127.0.0.1", port) for port in ports]
        must("turned away" not in own, f"at ports {ports} this user was {own}")
        wrong = going.stop()
        must(not wrong, wrong)
        return f"turned away at {len(ports)} ports, where this user is let in; {going.answered} answers right meanwhile"


def _impostor(scene: Scene) -> str:
    code = (
        "listener = socket.create_server(('127.0.0.1', 0)); print(listener.getsockname()[1], flush=True)\n"
        "listener.settimeout(5)\n"
        "try:\n    print('got', listener.accept()[0].recv(100), flush=True)\n"
        "except TimeoutError:\n    print('got nothing', flush=True)"
    )
    asked = make_bundle("impostor")
    with running_as_other(code, "import socket") as process:
        with registered(scene.cluster.tracker, "impostor", int(line_of(process))):
            try:
                tvmpipe.connect(asked, scene.cluster.tracker, connect_timeout_s=3).close()
                sentence = "a pipeline was opened on it"
            except DeviceError as error:
                sentence = str(error)
        got = line_of(process)
    must("is not spoken to" in sentence and f"uid {OTHER_UID}" in sentence, sentence)
    must(got == "got nothing", f"the impostor {got}")
    return f"it {got}; the head says: {sentence}"


def _left_port(_: Scene) -> str:
    code = (
        "pull = zmq.Context().socket(zmq.PULL)\n"
        "print(pull.bind_to_random_port('tcp://127.0.0.1'), flush=True)\n"
        "print('got a tensor' if pull.poll(3000) else 'got nothing', flush=True)"
    )
    with running_as_other(code, "import zmq") as process, Sockets() as here:
        push, _monitor = here.push(("127.0.0.1", int(line_of(process))))
        push.send(b"secret")
        got = line_of(process)
    must(got == "got nothing", f"the other user {got}")
    return f"it {got}"


def _open_key(scene: Scene) -> str:
    path = scene.folder / "open"
    ClusterKey.generate(path)
    path.chmod(0o644)
    arguments = ["--tracker", scene.cluster.tracker, "--key", "open", "--cluster-key", str(path)]
    agent = subprocess.run(
        [sys.executable, "-m", "tvmpipe", "agent", *arguments, "--store", str(scene.folder / "open-store")],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    sentence = agent.stderr.strip()
    must(agent.returncode == 1 and "is open to other users (mode 0644)" in sentence, f"an agent says {sentence!r}")
    try:
        tvmpipe.connect(scene.bundle, scene.cluster.tracker, cluster_key=path).close()
        said = "a pipeline was opened with it"
    except InputError as error:
        said = str(error)
    must("is open to other users (mode 0644)" in said, said)
    path.chmod(0o600)
    ClusterKey.load(path)
    return "an agent and a head refuse it, and take it with mode 0600"


PLOTS: tuple[Plot[Scene], ...] = (
    Plot("TVM RPC of an agent", "its tracker's match key", "turned away", _match_key("bare")),
    Plot("TVM RPC behind a TLS server", "its tracker's match key", "turned away", _match_key("keyed")),
    Plot("stage link (PULL)", "a message", "nothing comes in", _inject("PUSH")),
    Plot("status port (ROUTER)", "a message", "nothing comes in", _inject("DEALER")),
    Plot("a running pipeline", "messages to each port of head and host", "turned away, answers right", _pipeline),
    Plot("a device's key at the tracker", "to be registered under it", "gets nothing of a head", _impostor),
    Plot("a port that a device has left", "to listen there", "gets no tensor", _left_port),
    Plot("cluster key file", "to read it, mode 0644", "refused in one sentence", _open_key),
)


def check(_: Options) -> Iterator[Intrusion]:
    """Each door, tried by a process of uid 65534."""
    return carry_out(PLOTS, NO_OTHER_USER, _scene)
