"""Text, speech and other models of transformers in small configurations, recurrent nets, and control flow."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from benchmarks.zoo.architecture import Architecture, AsTensors, ones, words

_SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 99,
}
_EMBEDDED = {"embedding_size": 32}
_ENCODERS: dict[str, dict[str, Any]] = {
    name: {}
    for name in [
        "Bert",
        "Roberta",
        "Camembert",
        "MPNet",
        "LayoutLM",
        "RemBert",
        "Ernie",
        "MegatronBert",
        "Nystromformer",
        "Xmod",
    ]
} | {
    "Albert": _EMBEDDED,
    "ConvBert": _EMBEDDED,
    "DebertaV2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "Electra": _EMBEDDED,
    "MobileBert": {"embedding_size": 32, "intra_bottleneck_size": 32},
    "RoFormer": _EMBEDDED,
    "SqueezeBert": _EMBEDDED,
}
_GROUPED = {"num_key_value_heads": 2}
_DECODERS: dict[str, dict[str, Any]] = {
    "Bloom": {"n_layer": 2, "n_head": 4},
    "Falcon": {},
    "GPTNeoX": {},
    "Gemma": {**_GROUPED, "head_dim": 8},
    "Gemma2": {**_GROUPED, "head_dim": 8},
    "Llama": _GROUPED,
    "Mistral": {**_GROUPED, "sliding_window": 8},
    "Mixtral": {**_GROUPED, "num_local_experts": 2},
    "OPT": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "Olmo": {},
    "Phi": {},
    "Phi3": {**_GROUPED, "pad_token_id": 0},
    "Qwen2": _GROUPED,
    "Qwen3": {**_GROUPED, "head_dim": 8},
    "SmolLM3": {**_GROUPED, "pad_token_id": 0},
    "StableLm": _GROUPED,
}
_GPT = {"vocab_size": 99, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
_STATES = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}
_MORE_DECODERS: dict[str, dict[str, Any]] = {
    "CodeGen": {**_GPT, "rotary_dim": 4},
    "GPT2LMHead": _GPT,
    "GPTJ": {**_GPT, "rotary_dim": 4},
    "GPTNeo": {
        **{"vocab_size": 99, "hidden_size": 32, "num_layers": 2, "num_heads": 4},
        "attention_types": [[["global", "local"], 1]],
    },
    "Mamba": _STATES,
    "Mamba2": {**_STATES, "num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 8},
    "Rwkv": {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32},
}
_BOTH = {
    **{"vocab_size": 99, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2},
    **{"encoder_attention_heads": 4, "decoder_attention_heads": 4},
    **{"encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "use_cache": False},
}
_WHISPER = {
    **_BOTH,
    **{"max_source_positions": 50, "max_target_positions": 32, "num_mel_bins": 20, "pad_token_id": 0},
    **{"bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1},
}
_SPEECH = {
    **{**_SMALL, "vocab_size": 32},
    **{"conv_dim": (16, 16), "conv_kernel": (10, 3), "conv_stride": (5, 2), "num_feat_extract_layers": 2},
    **{"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4},
}
_PATCHES = {
    **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64},
    **{"image_size": 32, "patch_size": 8},
}


def architectures() -> dict[str, Architecture]:
    """By name."""
    found = {}
    for name, more in _ENCODERS.items():
        make = _model(f"{name}Model", f"{name}Config", {**_SMALL, **more})
        found[name.lower()] = _named(
            make, lambda: (words(11), ones(1, 11)), ["input_ids", "attention_mask"], ["last_hidden_state"]
        )
    decoders = {name: {**_SMALL, "max_position_embeddings": 64, **more} for name, more in _DECODERS.items()}
    for name, settings in (decoders | _MORE_DECODERS).items():
        model = f"{name}Model" if name.endswith("Head") else f"{name}ForCausalLM"
        make = _model(model, f"{name.removesuffix('LMHead')}Config", {**settings, "use_cache": False})
        found[name.lower()] = _named(make, lambda: (words(9),), ["input_ids"], ["logits"])
    found |= _with_two_halves()
    for name in ("Wav2Vec2", "Hubert", "WavLM"):
        make = _model(f"{name}ForCTC", f"{name}Config", _SPEECH)
        found[name.lower()] = _named(make, lambda: (torch.randn(1, 800),), ["input_values"], ["logits"])
    for name in ("ViT", "DeiT", "Dinov2", "ViTMAE", "Beit", "ViTMSN", "IJepa"):
        make = _model(f"{name}Model", f"{name}Config", _PATCHES)
        found[f"hf_{name.lower()}"] = _named(
            make, lambda: (torch.randn(1, 3, 32, 32),), ["pixel_values"], ["last_hidden_state"]
        )
    found["segformer"] = _named(
        _model(
            "SegformerForSemanticSegmentation",
            "SegformerConfig",
            {
                **{"depths": [1] * 4, "hidden_sizes": [16, 32, 40, 64], "num_attention_heads": [1, 2, 4, 4]},
                "decoder_hidden_size": 32,
            },
        ),
        lambda: (torch.randn(1, 3, 64, 64),),
        ["pixel_values"],
        ["logits"],
    )
    for kind in ("LSTM", "GRU"):
        found[f"{kind.lower()}_ctc"] = Architecture(
            lambda kind=kind: _Recognizer(kind),  # type: ignore[misc]
            lambda: (torch.randn(1, 1, 16, 20),),
        )
    found["branch_on_data"] = Architecture(_Branch, lambda: (torch.randn(2, 3),))
    return found


def _with_two_halves() -> dict[str, Architecture]:
    """Encoders with decoders."""
    both = ["input_ids", "decoder_input_ids"]
    found = {}
    settings = {
        "Bart": {**_BOTH, "max_position_embeddings": 64},
        "Marian": {**_BOTH, "max_position_embeddings": 64, "pad_token_id": 98},
        "T5": {
            **{"vocab_size": 99, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4},
            "use_cache": False,
        },
    }
    for name, chosen in settings.items():
        make = _model(f"{name}Model", f"{name}Config", chosen)
        found[name.lower()] = _named(make, lambda: (words(11), words(7)), both, ["last_hidden_state"])
    whisper = _model("WhisperModel", "WhisperConfig", _WHISPER)
    found["whisper_encoder"] = _named(
        lambda: whisper().encoder, lambda: (torch.randn(1, 20, 100),), ["input_features"], ["last_hidden_state"]
    )
    found["whisper_decoder"] = _named(
        lambda: whisper().decoder,
        lambda: (words(7), torch.randn(1, 50, 32)),
        ["input_ids", "encoder_hidden_states"],
        ["last_hidden_state"],
    )
    return found


def _model(name: str, configuration: str, settings: dict[str, Any]) -> Any:
    return lambda: getattr(transformers, name)(getattr(transformers, configuration)(**settings))


def _named(make: Any, arguments: Any, names: list[str], results: list[str]) -> Architecture:
    return Architecture(lambda: AsTensors(make(), names, results), arguments)


class _Recognizer(torch.nn.Module):  # type: ignore[misc]
    """A convolution, a recurrent net of two layers in both directions, and the scores that CTC decodes."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(1, 8, 3, padding=1)
        self.recurrent = getattr(torch.nn, kind)(128, 16, 2, bidirectional=True, batch_first=True)
        self.scores = torch.nn.Linear(32, 30)

    def forward(self, x: Any) -> Any:
        features = torch.relu(self.convolution(x))
        batch, channels, height, width = features.shape
        columns = features.permute(0, 3, 1, 2).reshape(batch, width, channels * height)
        return self.scores(self.recurrent(columns)[0]).log_softmax(-1)


class _Branch(torch.nn.Module):  # type: ignore[misc]
    def forward(self, x: Any) -> Any:
        return torch.cond(x.sum() > 0, lambda x: x * 2, lambda x: x - 1, (x,))
