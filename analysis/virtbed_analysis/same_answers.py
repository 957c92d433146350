"""Results with one digest of their answers, and other answers: one of the two was changed.

Answers are compared between platforms by their digest alone, so a digest must be that of the
answers next to it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

from virtbed_analysis.reading import Json


def changed(results: Mapping[str, Json]) -> Iterator[tuple[str, str]]:
    """Give each result whose answers were changed under their digest, or the reverse, and why.

    Of results that share a digest and answer an input unlike each other: those whose answers do not
    make it; where none does, as of a harness with another digest, those that differ from most.
    """
    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for trial, result in results.items():
        work = result["application"]
        key = (work["name"], str(work["version"]), work["scale"], result["answers"]["digest"])
        alike[key].append(trial)
    for (*_, digest), trials in alike.items():
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for trial in trials:
            for name, answer in _answers(results[trial]):
                counts[name][answer] += 1
        if all(len(found) == 1 for found in counts.values()):
            continue
        usual = {name: found.most_common(1)[0][0] for name, found in counts.items()}
        wrong = [trial for trial in trials if _digest(results[trial]) != digest]
        if len(wrong) == len(trials):
            wrong = [t for t in trials if any(usual[n] != a for n, a in _answers(results[t]))]
        for trial in wrong:
            yield (
                trial,
                f"has answers that are not those of its digest, {digest[:19]}, which "
                f"{len(trials) - len(wrong)} other results have with their own: either was changed",
            )


def _answers(result: Json) -> list[tuple[str, str]]:
    return sorted((one["input"], one["answer"]) for one in result["answers"]["by_input"])


def _digest(result: Json) -> str:
    """Return the digest as the harness takes it."""
    return "sha256:" + hashlib.sha256(json.dumps(_answers(result)).encode()).hexdigest()
