"""Export small decoders with caches and seeded weights. For a Python with torch, transformers and onnxruntime-genai.

    python -m benchmarks.sequences.export FOLDER [PATTERN ...]

Writes `KIND_torchscript.onnx`, `KIND_dynamo.onnx` and, as onnxruntime-genai's builder does from saved weights,
`KIND_genai_fp32.onnx` and `KIND_genai_int4.onnx`. What is there already is not written again. The steps of a Mamba take
one token each and replace its states.
"""

from __future__ import annotations

import argparse
import fnmatch
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch
import transformers
from transformers.cache_utils import DynamicCache

LAYERS, HEADS, GROUPS, DEPTH, HIDDEN, INNER, VOCABULARY = 3, 4, 2, 32, 128, 256, 512
TAPS, STATE, RANK = 4, 16, 8  # of a Mamba: of its convolution, numbers of a channel, rank of its time steps
CONTEXT = 2048  # positions that the models know
STEP, PAST = 3, 5  # of the example that torch exports with
_SHAPE: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": GROUPS,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
    "initializer_range": 0.15,  # so that attention weighs tokens differently, and texts do not end in a circle
}
KINDS: dict[str, Callable[[str], Any]] = {
    "llama": lambda attention: transformers.LlamaForCausalLM(_config("Llama", attention)),
    "qwen2": lambda attention: transformers.Qwen2ForCausalLM(_config("Qwen2", attention)),
    "qwen3": lambda attention: transformers.Qwen3ForCausalLM(_config("Qwen3", attention, head_dim=DEPTH)),
    "gemma": lambda attention: transformers.GemmaForCausalLM(_config("Gemma", attention, head_dim=DEPTH)),
    "gpt2": lambda attention: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            n_embd=HIDDEN,
            n_layer=LAYERS,
            n_head=HEADS,
            vocab_size=VOCABULARY,
            n_positions=CONTEXT,
            initializer_range=_SHAPE["initializer_range"],
            attn_implementation=attention,
        )
    ),
}
_ATTENTION = {"torchscript": "eager", "dynamo": "sdpa"}
GENAI = ("llama", "qwen2", "qwen3", "gemma")  # that the builder knows


class WithCache(torch.nn.Module):  # type: ignore[misc]
    """A decoder whose cache goes in and comes out as tensors: for each layer keys, values."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Any, attention_mask: Any, position_ids: Any, *past: Any) -> tuple[Any, ...]:
        """Logits and the caches."""
        cache = DynamicCache()
        for layer in range(LAYERS):
            cache.update(past[2 * layer], past[2 * layer + 1], layer)
        answer = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
        )
        kept = [tensor for layer in answer.past_key_values.layers for tensor in (layer.keys, layer.values)]
        return (answer.logits, *kept)


def make(kind: str, attention: str) -> Any:
    """A model with seeded weights."""
    torch.manual_seed(0)
    return KINDS[kind](attention).eval()


def export(kind: str, exporter: str, path: Path) -> None:
    """Write a model with open numbers of new and kept tokens."""
    model = make(kind, _ATTENTION[exporter])
    groups = getattr(model.config, "num_key_value_heads", None) or model.config.n_head
    kept = [f"{layer}.{part}" for layer in range(LAYERS) for part in ("key", "value")]
    example = (
        torch.randint(0, VOCABULARY, (1, STEP)),
        torch.ones(1, PAST + STEP, dtype=torch.long),
        torch.arange(PAST, PAST + STEP)[None],
        *(torch.randn(1, groups, PAST, DEPTH) for _ in kept),
    )
    told = ["input_ids", "attention_mask", "position_ids"]
    pasts, presents = [f"past_key_values.{name}" for name in kept], [f"present.{name}" for name in kept]
    named = {"input_names": [*told, *pasts], "output_names": ["logits", *presents]}
    if exporter == "torchscript":
        axes = {
            "input_ids": {1: "sequence"},
            "attention_mask": {1: "total"},
            "position_ids": {1: "sequence"},
            "logits": {1: "sequence"},
            **{name: {2: "past"} for name in pasts},
            **{name: {2: "total"} for name in presents},
        }
        options: dict[str, Any] = {"dynamic_axes": axes, "opset_version": 17, "dynamo": False}
    else:
        any_ = torch.export.Dim.DYNAMIC
        shapes = ({1: any_}, {1: any_}, {1: any_}, tuple({2: any_} for _ in kept))
        options = {"dynamic_shapes": shapes, "dynamo": True, "external_data": False}
    with torch.no_grad():
        torch.onnx.export(WithCache(model), example, str(path), **named, **options)


class MambaStep(torch.nn.Module):  # type: ignore[misc]
    """A token through blocks of a Mamba (Gu and Dao, 2023), each with a state and last inputs of its convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(VOCABULARY, HIDDEN)
        self.norms = torch.nn.ModuleList([torch.nn.LayerNorm(HIDDEN) for _ in range(LAYERS + 1)])
        self.ins = torch.nn.ModuleList([torch.nn.Linear(HIDDEN, 2 * INNER, bias=False) for _ in range(LAYERS)])
        self.taps = torch.nn.ParameterList([torch.randn(INNER, TAPS) for _ in range(LAYERS)])
        self.chosen = torch.nn.ModuleList([torch.nn.Linear(INNER, RANK + 2 * STATE, bias=False) for _ in range(LAYERS)])
        self.steps = torch.nn.ModuleList([torch.nn.Linear(RANK, INNER) for _ in range(LAYERS)])
        self.decays = torch.nn.ParameterList([torch.rand(INNER, STATE) * STATE for _ in range(LAYERS)])
        self.skips = torch.nn.ParameterList([torch.ones(INNER) for _ in range(LAYERS)])
        self.outs = torch.nn.ModuleList([torch.nn.Linear(INNER, HIDDEN, bias=False) for _ in range(LAYERS)])
        self.head = torch.nn.Linear(HIDDEN, VOCABULARY, bias=False)
        for one in self.outs:  # so that texts do not end in a circle
            torch.nn.init.normal_(one.weight, std=1.0)

    def forward(self, input_ids: Any, *states: Any) -> tuple[Any, ...]:
        """Logits [1, 1, vocabulary] and the states after the token [1, 1]."""
        hidden, kept = self.table(input_ids)[:, 0], []
        for layer in range(LAYERS):
            window, state = states[2 * layer], states[2 * layer + 1]
            x, gate = self.ins[layer](self.norms[layer](hidden)).chunk(2, dim=-1)
            window = torch.cat([window[:, :, 1:], x[:, :, None]], dim=2)
            x = torch.nn.functional.silu((window * self.taps[layer]).sum(-1))
            rank, b, c = self.chosen[layer](x).split([RANK, STATE, STATE], dim=-1)
            time = torch.nn.functional.softplus(self.steps[layer](rank))[:, :, None]
            state = state * torch.exp(-time * self.decays[layer]) + time * b[:, None, :] * x[:, :, None]
            y = (state * c[:, None, :]).sum(-1) + self.skips[layer] * x
            hidden = hidden + self.outs[layer](y * torch.nn.functional.silu(gate))
            kept += [window, state]
        return (self.head(self.norms[LAYERS](hidden))[:, None], *kept)


def export_mamba(exporter: str, path: Path) -> None:
    """Write a Mamba's step."""
    torch.manual_seed(0)
    model = MambaStep().eval()
    names = [f"{part}_state_{layer}" for layer in range(LAYERS) for part in ("conv", "ssm")]
    states = [torch.zeros(1, INNER, TAPS if "conv" in name else STATE) for name in names]
    named = {"input_names": ["input_ids", *names], "output_names": ["logits", *(f"{name}_out" for name in names)]}
    with torch.no_grad():
        example = (torch.zeros(1, 1, dtype=torch.long), *states)
        options: dict[str, Any] = {"opset_version": 18, "dynamo": exporter == "dynamo"}
        torch.onnx.export(model, example, str(path), **named, **options)


def build_genai(kind: str, precision: str, path: Path) -> None:
    """Have onnxruntime-genai's builder write a model from weights and a tokenizer on disk, and put it into one file."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source", Path(folder) / "target"
        make(kind, "eager").save_pretrained(source)
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
        )
        tokenizer.train_from_iterator(["the quick brown fox"], trainer)
        transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>"
        ).save_pretrained(source)
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(source), "-o", str(target)]
        command += ["-p", precision, "-e", "cpu", "-c", str(Path(folder) / "cache")]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        onnx.save(onnx.load(target / "model.onnx"), path)


def _config(name: str, attention: str, **more: Any) -> Any:
    return getattr(transformers, f"{name}Config")(**_SHAPE, **more, attn_implementation=attention)


def main() -> None:
    """Export what is not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("patterns", nargs="*", default=["*"], help="names of files, without their suffix")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    files = [(kind, way) for kind in (*KINDS, "mamba") for way in _ATTENTION]
    files += [(kind, f"genai_{precision}") for kind in GENAI for precision in ("fp32", "int4")]
    for kind, way in files:
        path = options.folder / f"{kind}_{way}.onnx"
        if path.exists() or not any(fnmatch.fnmatch(path.stem, pattern) for pattern in options.patterns):
            continue
        if kind == "mamba":
            export_mamba(way, path)
        elif way in _ATTENTION:
            export(kind, way, path)
        else:
            build_genai(kind, way.removeprefix("genai_"), path)
        print(path, flush=True)


if __name__ == "__main__":
    main()
