"""The progress of a sweep: a live bar on a terminal, a line per trial elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from virtbed.trial import Trial

# By MLPerf's rules a trial takes ten minutes at least, whatever others took.
STUDY_S = 630.0

GuessS = Callable[[str, bool], float]
"""Seconds that a trial takes on a platform, emulated or not, before the host has shown its own."""
_Kind = tuple[str, bool, bool, bool]  # platform, emulated, by MLPerf's rules, with neighbours


def estimate_s(trials: Iterable[Trial], seen_s: Mapping[str, float], guess_s: GuessS) -> float:
    """Return the seconds that trials will take, as seen of their platform, else a guess.

    Args:
        trials: The trials.
        seen_s: Mean seconds of a trial by platform, as far as known.
        guess_s: What is taken for a platform that is not among these.
    """
    return _estimate_s(Counter(map(_kind, trials)), seen_s, guess_s)


def _kind(trial: Trial) -> _Kind:
    instance = trial.instance
    return instance.platform, trial.emulated, trial.rules == "study", bool(instance.neighbours)


def _estimate_s(counts: Mapping[_Kind, int], seen_s: Mapping[str, float], guess_s: GuessS) -> float:
    return sum(
        # Neighbours start before the trial, which takes as long again.
        number * max(seen_s.get(platform) or guess_s(platform, emulated) * (1 + after), least)
        for (platform, emulated, study, after), number in counts.items()
        for least in [STUDY_S if study else 0]
    )


def minutes(seconds: float) -> str:
    """Return a duration as a person says it."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


class Progress:
    """Shows what a sweep does, and when it will be done."""

    def __init__(self, console: Console, guess_s: GuessS) -> None:
        self._console = console
        self._guess_s = guess_s
        self._bar = Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA {task.fields[eta]}", markup=False),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None, eta="?")
        self._missing: Counter[_Kind] = Counter()
        self._seen: dict[str, tuple[int, float]] = {}
        self._total = 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """Print one line."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def begin(self, total: int, missing: list[Trial], seen_s: Mapping[str, float]) -> None:
        """Start counting; `seen_s` is the mean seconds of a trial by platform, as far as known."""
        self._missing = Counter(map(_kind, missing))
        self._seen = {platform: (1, seconds) for platform, seconds in seen_s.items()}
        self._total = total
        self._bar.update(self._task, total=total, completed=total - len(missing), eta=self._eta())
        before = f", {total - len(missing)} done before" if len(missing) < total else ""
        self.say(f"{total} trials{before}; {len(missing)} to go, about {self._eta()}")

    def doing(self, trial: Trial) -> None:
        """Show what is done right now."""
        self._bar.update(self._task, description=trial.id)

    def done(self, trial: Trial, seconds: float, error: str) -> None:
        """Count one trial, done or failed."""
        number = self._counted(trial)
        seen, sum_s = self._seen.get(trial.instance.platform, (0, 0.0))
        self._seen[trial.instance.platform] = seen + 1, sum_s + seconds
        self._bar.update(self._task, eta=self._eta())
        how = f"FAILED: {error}" if error else "done"
        self.say(
            f"[{number:>{len(str(self._total))}}/{self._total}] {trial.id} {how} "
            f"({minutes(seconds)}, ETA {self._eta()})"
        )

    def unneeded(self, trial: Trial) -> None:
        """Count one trial that is left out, since its cell is known closely enough."""
        number = self._counted(trial)
        self.say(f"[{number:>{len(str(self._total))}}/{self._total}] {trial.id} not needed")

    def _counted(self, trial: Trial) -> int:
        self._missing[_kind(trial)] -= 1
        number = self._total - self._missing.total()
        self._bar.update(self._task, completed=number)
        return number

    def _eta(self) -> str:
        means = {platform: sum_s / seen for platform, (seen, sum_s) in self._seen.items()}
        return minutes(_estimate_s(self._missing, means, self._guess_s))
