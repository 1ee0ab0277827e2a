"""A server under load: whether texts are right, sequences are freed, and every request has its answer.

    python -m benchmarks.serve_load http://127.0.0.1:8000/v1 [--token TOKEN] [--seconds 30] [--json]

The server is one of `tvmpipe serve`. First each prompt is completed once, alone and greedily: those are the texts that
all later ones must equal. Then many clients stream, one after the other, and each second one of them hangs up. Then
many requests come at once. In the end no sequence may be open. Exits with 1 where anything of this is not so.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field

import click
import openai
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

from tvmpipe.commands.stdout import reserve_stdout

PROMPTS = tuple(f"{number}. {line}" for number in range(1, 5) for line in (
    "The quick brown fox", "Once upon a time there was", "def add(a, b):", "In the beginning",
))  # fmt: skip
_SETTLED_S = 60.0


@dataclass
class Streams:
    """What streaming clients saw."""

    right: int = 0
    wrong: int = 0
    left: int = 0
    refused: int = 0
    pieces: int = 0
    first_s: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Server:
    """Where it is, how to ask it, and what the texts are."""

    client: openai.AsyncOpenAI
    model: str
    tokens: int
    texts: dict[str, str]


async def complete(server: Server, prompt: str) -> str:
    """A whole text."""
    found = await server.client.completions.create(
        model=server.model, prompt=prompt, temperature=0, max_tokens=server.tokens
    )
    return found.choices[0].text


async def stream_one(server: Server, prompt: str, leave: asyncio.Event, seen: Streams) -> None:
    """One text as a stream, until `leave` is set."""
    started = time.perf_counter()
    text = ""
    try:
        stream = await server.client.completions.create(
            model=server.model, prompt=prompt, temperature=0, max_tokens=server.tokens, stream=True
        )
    except openai.RateLimitError:
        seen.refused += 1
        await asyncio.sleep(0.2)
        return
    async with stream:
        async for chunk in stream:
            if not text:
                seen.first_s.append(time.perf_counter() - started)
            text += chunk.choices[0].text
            seen.pieces += 1
            if leave.is_set():
                leave.clear()
                seen.left += 1
                seen.wrong += not server.texts[prompt].startswith(text)
                return
    if text == server.texts[prompt]:
        seen.right += 1
    else:
        seen.wrong += 1


async def stream_all(server: Server, clients: int, seconds: float) -> Streams:
    """Many clients for so long; each second one of them leaves."""
    seen = Streams()
    leave = [asyncio.Event() for _ in range(clients)]
    generator = random.Random(0)
    end = time.monotonic() + seconds

    async def client(number: int) -> None:
        turn = number
        while time.monotonic() < end:
            await stream_one(server, PROMPTS[turn % len(PROMPTS)], leave[number], seen)
            turn += 1

    async def hang_up() -> None:
        while time.monotonic() < end:
            await asyncio.sleep(min(1.0, seconds / 4))
            generator.choice(leave).set()

    await asyncio.gather(hang_up(), *(client(number) for number in range(clients)))
    return seen


async def flood(server: Server, count: int) -> Counter[str]:
    """So many requests at once: how many were answered rightly, wrongly, and refused with which status."""

    async def one(number: int) -> str:
        prompt = PROMPTS[number % len(PROMPTS)]
        try:
            return "right" if await complete(server, prompt) == server.texts[prompt] else "wrong"
        except openai.APIStatusError as error:
            return f"status {error.status_code}"
        except openai.APIConnectionError:
            return "no answer"

    return Counter(await asyncio.gather(*(one(number) for number in range(count))))


def open_sequences(url: str, token: str) -> int:
    """Sequences that run or wait, as the server's metrics say."""
    request = urllib.request.Request(
        url.removesuffix("/").removesuffix("/v1") + "/metrics", headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    names = ("tvmpipe_serve_sequences_open", "tvmpipe_serve_sequences_waiting")
    return sum(int(sample.value) for family in families for sample in family.samples if sample.name in names)


async def measure(
    url: str, token: str, clients: int, seconds: float, requests: int, tokens: int
) -> tuple[Streams, Counter[str], int]:
    """Everything: streams, flood, and the sequences that stay open."""
    async with openai.AsyncOpenAI(base_url=url, api_key=token, max_retries=0, timeout=600) as client:
        models = await client.models.list()
        server = Server(client, models.data[0].id, tokens, {})
        for prompt in PROMPTS:
            server.texts[prompt] = await complete(server, prompt)
        seen = await stream_all(server, clients, seconds)
        answers = await flood(server, requests)
    end = time.monotonic() + _SETTLED_S
    while (left := open_sequences(url, token)) and time.monotonic() < end:
        await asyncio.sleep(0.1)
    return seen, answers, left


@click.command()
@click.argument("url")
@click.option("--token", default="none", help="The server's token.")
@click.option("--clients", default=16)
@click.option("--seconds", default=30.0, help="How long clients stream.")
@click.option("--requests", default=200, help="How many come at once.")
@click.option("--tokens", default=32, help="Tokens of each text.")
@click.option("--json", "as_json", is_flag=True)
def main(url: str, token: str, clients: int, seconds: float, requests: int, tokens: int, as_json: bool) -> None:
    """Load the server at URL."""
    seen, answers, left = asyncio.run(measure(url, token, clients, seconds, requests, tokens))
    first_s = statistics.quantiles(seen.first_s, n=20) if len(seen.first_s) > 1 else [0.0] * 19
    rows = {
        "streams that were right": seen.right,
        "streams that were wrong": seen.wrong,
        "streams that the client left": seen.left,
        "streams refused for lack of a place": seen.refused,
        "pieces of text per second": round(seen.pieces / seconds, 1),
        "seconds to the first piece, median": round(first_s[9], 3),
        "seconds to the first piece, 95 %": round(first_s[18], 3),
        **{f"of {requests} at once: {what}": count for what, count in sorted(answers.items())},
        "sequences open in the end": left,
    }
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        table = Table(title=f"{clients} clients for {seconds:g} s, one leaving each second; then {requests} at once")
        table.add_column("")
        table.add_column("", justify="right")
        for name, value in rows.items():
            table.add_row(name, str(value))
        Console(width=100).print(table)
    refused = {"right", "status 429"}
    if seen.wrong or left or not seen.right or set(answers) - refused or not answers["right"]:
        raise SystemExit(1)


if __name__ == "__main__":
    reserve_stdout()
    main()
