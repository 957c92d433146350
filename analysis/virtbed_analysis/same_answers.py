"""Detection of results whose answers do not match their digest.

Platforms are compared by the digest of their answers only, so the digest in a result must be that
of its answers. `trust` leaves other results out.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

from virtbed_analysis.reading import Json


def changed(results: Mapping[str, Json]) -> Iterator[tuple[str, str]]:
    """Yield each result whose answers or digest were changed, with a reason.

    Only results that share a digest but differ in an answer are examined. Those whose answers do
    not hash to the digest are reported; if none hashes to it (another version of the harness), the
    minority is.

    Args:
        results: Results, by the trial's id.
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
        if all(len(own) == 1 for own in counts.values()):
            continue
        usual = {name: own.most_common(1)[0][0] for name, own in counts.items()}
        wrong = [trial for trial in trials if _digest(results[trial]) != digest]
        if len(wrong) == len(trials):
            wrong = [t for t in trials if any(usual[n] != a for n, a in _answers(results[t]))]
        for trial in wrong:
            yield (
                trial,
                f"has answers that are not those of its digest, {digest[:19]}, which "
                f"{len(trials) - len(wrong)} other results have too: one of the two was changed",
            )


def _answers(result: Json) -> list[tuple[str, str]]:
    return sorted((one["input"], one["answer"]) for one in result["answers"]["by_input"])


def _digest(result: Json) -> str:
    """Return the digest of a result's answers, computed as the harness does."""
    return "sha256:" + hashlib.sha256(json.dumps(_answers(result)).encode()).hexdigest()
