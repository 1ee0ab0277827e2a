"""Text from a decoder whose layers, and their caches, are on three devices: what the model itself generates."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.generation.fakes import END, byte_level
from tests.passes.frontend.states.decoders import Decoder
from tests.test_cli import sentence, tvmpipe
from tvmpipe.bundle import load
from tvmpipe.generation.open_model import open_language_model
from tvmpipe.generation.tokenizer import Tokenizer, load_tokenizer
from tvmpipe.runtime.emulation.local_cluster import LocalAgent, LocalCluster, local_cluster
from tvmpipe.runtime.head.options import ConnectOptions
from tvmpipe.serve.server import ServeOptions
from tvmpipe.serve.text.server import TextServer

CONTEXT = 96
SEQUENCES = 5


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("decoder") / "decoder.onnx"
    onnx.save(Decoder(layers=3, vocabulary=byte_level().get_vocab_size(), longest=CONTEXT).model(), path)
    return path


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    byte_level().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": END}))
    return folder / "tokenizer.json"


@pytest.fixture(scope="module")
def bundle(decoder: Path, cluster_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A layer on each device, and a plan for the loss of each."""
    path = tmp_path_factory.mktemp("bundle") / "decoder.tvmpipe"
    facts = json.loads(tvmpipe("show", decoder, "--context", CONTEXT, "--json")[0])
    names = [one["name"] for one in facts["primitives"]]
    ends = [number for number, name in enumerate(names) if "cached_attention" in name]
    pins = []
    for number, name in enumerate(names):
        device = ("alpha", "beta", "gamma")[min(sum(number > end for end in ends), 2)]
        pins += ["--pin", f"{name}={device}"] if "cached_attention" in name else []
    tvmpipe(
        *("compile", decoder, "--cluster", cluster_path, "-o", path, "--context", CONTEXT),
        *("--sequences", SEQUENCES, "--bucket", "step=1,4,16", "--failover", *pins),
    )
    sequences = load(path).manifest.sequences
    assert sequences is not None
    stages = [stage for stage in load(path).manifest.plan.stages if stage.in_place]
    assert {stage.device for stage in stages} == {"alpha", "beta", "gamma"}
    return path


class Greedy:
    """The model's own loop, in ONNX Runtime, with its caches fed back."""

    def __init__(self, decoder: Path) -> None:
        self.session = onnxruntime.InferenceSession(str(decoder))
        self.pasts = [one.name for one in self.session.get_inputs() if one.name.startswith("past")]

    def tokens(self, prompt: list[int], count: int) -> list[int]:
        empty = np.zeros((1, Decoder.groups, 0, Decoder.depth), np.float32)
        past, new, length, found = [empty] * len(self.pasts), prompt, 0, []
        for _ in range(count):
            total = length + len(new)
            told = {"attention_mask": np.ones((1, total), np.int64), "position_ids": np.arange(length, total)[None]}
            feed = {"input_ids": np.array([new]), **told, **dict(zip(self.pasts, past, strict=True))}
            logits, *past = self.session.run(None, feed)
            new, length = [int(logits[0, -1].argmax())], total
            found += new
        return found


def text_of(tokenizer: Tokenizer, greedy: Greedy, prompt: str, count: int) -> str:
    """What should come of a prompt; texts end with a token that ends them."""
    tokens = greedy.tokens(tokenizer.encode(prompt), count)
    end = next((place for place, token in enumerate(tokens) if token in tokenizer.eos_ids), count)
    return str(byte_level().decode(tokens[:end], skip_special_tokens=True))


def test_generate(agents: LocalCluster, bundle: Path, decoder: Path, tokenizer: Path) -> None:
    command = ("generate", bundle, "--tokenizer", tokenizer, "--tracker", agents.tracker)
    out, err = tvmpipe(*command, "--prompt", "The quick brown fox jumps", "--max-tokens", 30, "--ignore-eos")
    tokens = Greedy(decoder).tokens(load_tokenizer(tokenizer).encode("The quick brown fox jumps"), 30)
    assert out == byte_level().decode(tokens, skip_special_tokens=True) + "\n"
    assert "answer: 30 tokens" in err
    again, err = tvmpipe(
        *command, "--prompt", "The quick brown fox jumps", "--max-tokens", 30, "--ignore-eos", "--draft", 3
    )
    assert again == out


def test_a_bundle_that_does_not_generate(
    agents: LocalCluster, branchy_bundle: object, tmp_path: Path, tokenizer: Path
) -> None:
    path = tmp_path / "branchy.tvmpipe"
    branchy_bundle.save(path)  # type: ignore[attr-defined]
    _, err = tvmpipe("generate", path, "--tokenizer", tokenizer, "--tracker", agents.tracker, "--prompt", "x", code=1)
    assert "keeps no state from one token to the next" in sentence(err)


def generate_all(
    bundle: Path, greedy: Greedy, tracker: str, options: ConnectOptions, lengths: list[int], then: Callable[[], None]
) -> list[str]:
    """A thread for each sequence; what went wrong."""
    wrong: list[str] = []
    with open_language_model(bundle, tracker, options) as model:
        half = threading.Barrier(len(lengths) + 1)

        def work(number: int, length: int) -> None:
            prompt = np.random.default_rng(number).integers(0, model.vocabulary, length).tolist()
            count = model.context - length - 2
            wanted = greedy.tokens(prompt, count)
            sequence = model.sequence()
            row, found = sequence.feed(prompt).result()[-1], []
            for place in range(count):
                found.append(int(row.argmax()))
                if place == count // 2:
                    half.wait(120)
                row = sequence.feed(found[-1:]).result()[-1]
            sequence.close()
            if found != wanted:
                wrong.append(f"a prompt of {length}: {found} instead of {wanted}")

        workers = [threading.Thread(target=work, args=pair) for pair in enumerate(lengths)]
        for worker in workers:
            worker.start()
        half.wait(120)
        then()
        for worker in workers:
            worker.join(240)
            if worker.is_alive():
                wrong.append("a thread is still there")
    return wrong


def test_sequences_interleaved_with_prompts_of_any_length(agents: LocalCluster, bundle: Path, decoder: Path) -> None:
    lengths = [1, 3, 16, 21, 77]
    assert generate_all(bundle, Greedy(decoder), agents.tracker, ConnectOptions(), lengths, lambda: None) == []


def test_a_device_that_is_lost_in_the_middle(bundle: Path, decoder: Path, tmp_path: Path) -> None:
    with local_cluster([LocalAgent(key) for key in ("alpha", "beta", "gamma")], store=tmp_path) as cluster:
        options = ConnectOptions(failover=True)
        lengths = [2, 9, 40]
        assert (
            generate_all(bundle, Greedy(decoder), cluster.tracker, options, lengths, lambda: cluster.kill("beta")) == []
        )


def test_the_openai_client_over_devices(agents: LocalCluster, bundle: Path, decoder: Path, tokenizer: Path) -> None:
    import openai

    one, greedy = load_tokenizer(tokenizer), Greedy(decoder)
    with open_language_model(bundle, agents.tracker, ConnectOptions()) as model:
        server = TextServer(model, one, "decoder", ServeOptions(port=0, drain_s=5))
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            client = openai.OpenAI(base_url=f"http://{server.address}/v1", api_key="none")
            answers: dict[int, str] = {}

            def ask(number: int) -> None:
                prompt = f"She sells {number} shells"
                stream = client.completions.create(
                    model="decoder", prompt=prompt, max_tokens=20, temperature=0, stream=True
                )
                answers[number] = "".join(piece.choices[0].text for piece in stream if piece.choices)

            askers = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
            for asker in askers:
                asker.start()
            for asker in askers:
                asker.join(120)
            assert answers == {n: text_of(one, greedy, f"She sells {n} shells", 20) for n in range(8)}
        finally:
            server.stop()
            thread.join(60)
        assert not thread.is_alive()
