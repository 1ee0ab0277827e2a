"""The options of choosing tokens and of ending a text."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from tvmpipe.commands.parameters import Bias, Finite


def generation_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """All of `GenerationOptions` but probabilities; the command gets them as `generating`."""

    @functools.wraps(function)
    def collected(
        *args: Any,
        temperature: float,
        top_k: int,
        top_p: float,
        min_p: float,
        repetition_penalty: float,
        presence_penalty: float,
        frequency_penalty: float,
        logit_bias: tuple[tuple[int, float], ...],
        max_tokens: int | None,
        stop: tuple[str, ...],
        seed: int | None,
        draft: int,
        ignore_eos: bool,
        **kwargs: Any,
    ) -> Any:
        from tvmpipe.generation.options import GenerationOptions, SamplingOptions

        sampling = SamplingOptions(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
            logit_bias=dict(logit_bias),
        )
        generating = GenerationOptions(
            sampling, max_tokens=max_tokens, stop=stop, seed=seed, draft=draft, ignore_eos=ignore_eos
        )
        return function(*args, generating=generating, **kwargs)

    numbers: list[tuple[str, float, Finite, str]] = [
        ("--temperature", 0.0, Finite(min=0), "Divides logits; 0 takes the most probable token each time."),
        ("--top-p", 1.0, Finite(0, 1, min_open=True), "Draw from the fewest tokens that are so probable together."),
        ("--min-p", 0.0, Finite(0, 1), "Draw from tokens with this share of the largest probability."),
        ("--repetition-penalty", 1.0, Finite(0, min_open=True), "Divides logits of tokens that were there before."),
        ("--presence-penalty", 0.0, Finite(-2, 2), "Taken from logits of tokens in the answer."),
        ("--frequency-penalty", 0.0, Finite(-2, 2), "The same, for each time that a token is in the answer."),
    ]
    options: list[Callable[[Any], Any]] = [
        click.option("--max-tokens", type=click.IntRange(min=1), default=256, show_default=True, help="At most."),
        click.option("--stop", multiple=True, metavar="TEXT", help="End in front of this text; may be repeated."),
        click.option("--seed", type=click.IntRange(min=0), help="Of what is drawn; default: another each time."),
        *(
            click.option(name, type=kind, default=usual, help=told, show_default=True)
            for name, usual, kind, told in numbers
        ),
        click.option("--top-k", type=click.IntRange(min=0), default=0, help="Draw from so many tokens; 0: from all."),
        click.option("--logit-bias", type=Bias(), multiple=True, help="Add to the logit of a token; may be repeated."),
        click.option(
            "--draft",
            type=click.IntRange(min=0),
            default=0,
            help="Guess so many tokens from the text so far and try them at once; greedy only.",
        ),
        click.option("--ignore-eos", is_flag=True, help="Go on behind a token that ends texts."),
    ]
    return functools.reduce(lambda inner, option: option(inner), reversed(options), collected)
