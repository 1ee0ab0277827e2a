"""`tvmpipe generate` as people type it, on a model that is a table."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import tvm  # noqa: F401 - all of it, before the command imports its runtime alone: other tests in this process compile

from tests.generation.fakes import END, TEMPLATE, TableModel, byte_level
from tests.test_cli import sentence, tvmpipe
from tvmpipe.cli import invoke
from tvmpipe.generation.generate import generate
from tvmpipe.generation.options import GenerationOptions, SamplingOptions
from tvmpipe.generation.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    byte_level().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": END, "chat_template": TEMPLATE}))
    return folder / "tokenizer.json"


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tokenizer: Path) -> TableModel:
    model = TableModel(load_tokenizer(tokenizer).size, never=range(4))

    @contextlib.contextmanager
    def opened(*_: object) -> Iterator[TableModel]:
        yield model

    monkeypatch.setattr("tvmpipe.commands.generate.open_language_model", opened)
    return model


def command(tokenizer: Path, *more: object) -> list[object]:
    return ["generate", "model.tvmpipe", "--tokenizer", tokenizer, "--tracker", "127.0.0.1:1", *more]


def expected(model: TableModel, tokenizer: Path, tokens: list[int], options: GenerationOptions) -> str:
    return "".join(piece.text for piece in generate(model, load_tokenizer(tokenizer), tokens, options))


def test_text_on_stdout_and_figures_on_stderr(model: TableModel, tokenizer: Path) -> None:
    out, err = tvmpipe(*command(tokenizer, "--prompt", "The dog", "--max-tokens", 20))
    options = GenerationOptions(SamplingOptions(temperature=0), max_tokens=20)
    assert out == expected(model, tokenizer, load_tokenizer(tokenizer).encode("The dog"), options) + "\n"
    assert "answer: 20 tokens" in err
    assert "no more tokens were asked for" in err


def test_all_options(model: TableModel, tokenizer: Path, tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("Grüße 🦊")
    sampling = SamplingOptions(0.7, 40, 0.9, 0.05, 1.2, 0.3, 0.1, {300: 2.0, 301: -5.0})
    found = tvmpipe(
        *command(tokenizer, "--prompt-file", tmp_path / "prompt.txt", "--temperature", 0.7, "--top-k", 40),
        *("--top-p", 0.9, "--min-p", 0.05, "--repetition-penalty", 1.2, "--presence-penalty", 0.3, "--seed", 8),
        *("--frequency-penalty", 0.1, "--logit-bias", "300=2", "--logit-bias", "301=-5", "--stop", "never there"),
        *("--max-tokens", 30, "--ignore-eos", "--json"),
    )
    facts = json.loads(found[0])
    options = GenerationOptions(sampling, 30, ("never there",), seed=8, ignore_eos=True)
    assert facts["text"] == expected(model, tokenizer, load_tokenizer(tokenizer).encode("Grüße 🦊"), options)
    assert (facts["finish"], facts["generated_tokens"]) == ("length", 30)
    assert facts["generated_tokens_per_s"] > 0


def test_drafts(model: TableModel, tokenizer: Path) -> None:
    model.repeating = True
    plain, _ = tvmpipe(*command(tokenizer, "--prompt", "a", "--max-tokens", 99))
    out, err = tvmpipe(*command(tokenizer, "--prompt", "a", "--max-tokens", 99, "--draft", 4))
    assert out == plain
    assert "drafted tokens were right" in err


def test_a_message(model: TableModel, tokenizer: Path) -> None:
    found = tvmpipe(*command(tokenizer, "--chat", "--system", "Be brief.", "--prompt", "Hi", "--max-tokens", 9))
    tokens = load_tokenizer(tokenizer).encode_chat(
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    )
    options = GenerationOptions(SamplingOptions(temperature=0), max_tokens=9)
    assert found[0] == expected(model, tokenizer, tokens, options) + "\n"


def test_a_conversation(model: TableModel, tokenizer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Hi\n\nAnd then?\n"))
    out, _ = tvmpipe(*command(tokenizer, "--chat", "--max-tokens", 5))
    options = GenerationOptions(SamplingOptions(temperature=0), max_tokens=5)
    one = load_tokenizer(tokenizer)
    first = expected(model, tokenizer, one.encode_chat([{"role": "user", "content": "Hi"}]), options)
    told = [("user", "Hi"), ("assistant", first), ("user", "And then?")]
    tokens = one.encode_chat([{"role": role, "content": text} for role, text in told])
    assert out == f"{first}\n{expected(model, tokenizer, tokens, options)}\n"
    assert model.open == 0


def test_nobody_reads_any_more(
    model: TableModel, tokenizer: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As with `| head`: the model stops, and there is one sentence."""

    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

        def fileno(self) -> int:
            return file.fileno()

    err = io.StringIO()
    with (tmp_path / "out").open("w") as file, contextlib.redirect_stdout(Closed()), contextlib.redirect_stderr(err):
        assert invoke([str(one) for one in command(tokenizer, "--prompt", "a")]) == 1
    assert sentence(err.getvalue()) == "tvmpipe: error: nobody reads the text any more: stdout is closed"
    assert model.open == 0
    assert model.fed < 10


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ([], "there is no prompt: give --prompt TEXT or --prompt-file FILE, or --chat for a conversation"),
        (["--prompt", "a", "--prompt-file", "b"], "--prompt and --prompt-file both say what to go on with; give one"),
        (["--prompt-file", "nothing"], "prompt file nothing does not exist"),
        (["--prompt", "a", "--system", "b"], "--system is a message of a conversation; give --chat too"),
        (["--prompt", ""], "the prompt has no tokens; at least one is needed"),
        (["--prompt", "a", "--stop", ""], "a stop string is empty; at least one character is needed"),
        (["--prompt", "a", "--draft", "2", "--temperature", "1"], "drafts of 2 tokens need greedy sampling"),
        (["--prompt", "x" * 3000], "the prompt has 3000 tokens, and the model's context of 512 must hold the answer"),
    ],
)
def test_mistakes(model: TableModel, tokenizer: Path, more: list[str], told: str) -> None:
    assert told in sentence(tvmpipe(*command(tokenizer, *more), code=1)[1])
    assert model.open == 0


def test_a_bundle_without_state(tokenizer: Path, tmp_path: Path, chain_bundle: object) -> None:
    from tvmpipe.bundle import Bundle

    assert isinstance(chain_bundle, Bundle)
    chain_bundle.save(tmp_path / "chain.tvmpipe")
    _, err = tvmpipe(
        *("generate", tmp_path / "chain.tvmpipe", "--tokenizer", tokenizer, "--tracker", "127.0.0.1:1"),
        *("--prompt", "a"),
        code=1,
    )
    assert "keeps no state from one token to the next (a KV cache, say), so that it cannot generate" in sentence(err)


def test_a_wrong_bias(tokenizer: Path) -> None:
    _, err = tvmpipe(*command(tokenizer, "--prompt", "a", "--logit-bias", "x=1"), code=2)
    assert "'x=1' is not of the form 198=-5, with a token's number and one that is finite" in err
