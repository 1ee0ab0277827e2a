"""The process that plans and compiles beside a running pipeline: `python -m tvmpipe.elastic.worker BUNDLE FOLDER`.

It is a process of its own because TVM's passes keep others of one from running, and a head must hear its devices. It
reads a line of JSON with a question from stdin and writes one with the answer, until stdin ends.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tvmpipe.bundle import Bundle
from tvmpipe.elastic.planner import Planner
from tvmpipe.errors import TvmpipeError, reason_of
from tvmpipe.manifest import Manifest
from tvmpipe.runtime.head.agent_facts import check_agent_facts
from tvmpipe.runtime.head.replanner import Request, Speeds


def answer(planner: Planner, question: dict[str, Any]) -> dict[str, Any]:
    """What a question is answered with; raises TvmpipeError."""
    if question["do"] == "describe":
        facts = None if question["facts"] is None else check_agent_facts(question["facts"])
        device = planner.describe(question["name"], question["key"], question["table"], facts)
        return device.model_dump(mode="json")
    if question["do"] == "knows":
        return {"known": planner.knows(question["name"])}
    if question["do"] == "propose":
        links = {(first, second): factor for first, second, factor in question["links"]}
        speeds = Speeds(question["devices"], links)
        return asdict(planner.propose(Request(tuple(question["present"]), speeds, question["time_limit_s"])))
    plan, devices = planner.make(question["number"])
    return {"plan": plan.model_dump(mode="json"), "devices": [one.model_dump(mode="json") for one in devices]}


def main() -> None:
    """Answer questions."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # solvers print there
    root, folder, profiles = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None
    planner: Planner | None = None
    for line in sys.stdin:
        told: dict[str, Any]
        try:
            if planner is None:
                manifest = Manifest.model_validate_json((root / "manifest.json").read_bytes())
                planner = Planner(Bundle(root, manifest), folder, None if profiles is None else Path(profiles))
            told = {"answer": answer(planner, json.loads(line))}
        except TvmpipeError as error:
            told = {"error": type(error).__name__, "message": str(error)}
        except Exception as error:  # noqa: BLE001  # whatever it is, the head goes on and says so
            told = {"error": "DeviceError", "message": f"planning failed: {type(error).__name__}: {reason_of(error)}"}
        answers.write(json.dumps(told) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
