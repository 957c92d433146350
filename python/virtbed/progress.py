"""The progress of a sweep: a progress bar on a terminal, and a line per trial."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from threading import RLock
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from virtbed.trial import Trial
from virtbed_contract.counts import count

# With MLPerf's rules a trial takes at least ten minutes, however long earlier trials took.
STUDY_S = 630.0

GuessS = Callable[[str, bool], float]
"""Estimates the seconds of a trial from its platform and whether it is emulated, if none is known.
"""
_Kind = tuple[str, bool, bool, bool]  # platform, emulated, with MLPerf's rules, with neighbours


def estimate_s(trials: Iterable[Trial], seen_s: Mapping[str, float], guess_s: GuessS) -> float:
    """Return an estimate of the seconds that trials will take.

    Args:
        trials: The trials.
        seen_s: Mean seconds per trial by platform, as far as measured.
        guess_s: Used for other platforms.
    """
    return _estimate_s(Counter(map(_kind, trials)), seen_s, guess_s)


def _kind(trial: Trial) -> _Kind:
    instance = trial.instance
    return instance.platform, trial.emulated, trial.rules == "study", bool(instance.neighbours)


def _estimate_s(counts: Mapping[_Kind, int], seen_s: Mapping[str, float], guess_s: GuessS) -> float:
    return sum(
        # With neighbours a trial takes twice as long: they start before it.
        number * max(seen_s.get(platform) or guess_s(platform, emulated) * (1 + after), least)
        for (platform, emulated, study, after), number in counts.items()
        for least in [STUDY_S if study else 0]
    )


def minutes(seconds: float) -> str:
    """Return a duration in words, in seconds or minutes.

    Example:
        >>> minutes(45), minutes(600)
        ('45 s', '10 min')
    """
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


class Progress:
    """The progress display of a sweep: running trials, and the estimated time of its end.

    Workers of several hosts may use it at the same time, each through `of(host)`.
    """

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
        self._lock = RLock()
        self._missing: dict[str, _Kind] = {}
        self._kinds: Counter[_Kind] = Counter()
        self._seen: dict[str, tuple[int, float]] = {}
        self._total = 0
        self._hosts = 1
        self._doing: dict[str, str] = {}  # the running trial of each host

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def of(self, host: str) -> HostProgress:
        """Return the display of one of several hosts."""
        return HostProgress(self, host)

    def say(self, text: str) -> None:
        """Print one line."""
        with self._lock:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def begin(
        self, total: int, missing: list[Trial], seen_s: Mapping[str, float], hosts: int = 1
    ) -> None:
        """Start counting.

        Args:
            total: Number of trials of the sweep.
            missing: The trials that are still to be carried out.
            seen_s: Mean seconds per trial by platform, as far as known.
            hosts: Number of hosts that carry them out.
        """
        with self._lock:
            self._missing, self._kinds, self._hosts = {}, Counter(), hosts
            self._add(missing)
            self._seen = {platform: (1, seconds) for platform, seconds in seen_s.items()}
            self._total = total
            done = total - len(missing)
            self._bar.update(self._task, total=total, completed=done, eta=self._eta())
            before = f", {done} done before" if done else ""
            self.say(f"{count(total, 'trial')}{before}; {len(missing)} to go, about {self._eta()}")

    def again(self, trials: Iterable[Trial]) -> None:
        """Count trials as missing again that were done or had failed."""
        with self._lock:
            self._add(trials)
            self._bar.update(self._task, completed=self._number, eta=self._eta())

    def doing(self, trial: Trial, host: str = "") -> None:
        """Show the trial that runs now."""
        with self._lock:
            self._doing[host] = trial.id
            more = f" and {len(self._doing) - 1} more" if len(self._doing) > 1 else ""
            self._bar.update(self._task, description=f"{trial.id}{more}")

    def idle(self, host: str) -> None:
        """Show that one of several hosts runs no trial."""
        with self._lock:
            self._doing.pop(host, None)

    def done(self, trial: Trial, seconds: float, error: str, host: str = "") -> None:
        """Count one trial that is done or has failed.

        Args:
            trial: The trial.
            seconds: Its wall time.
            error: Why it failed; empty if it is done.
            host: Its host, if there are several.
        """
        with self._lock:
            self._take(trial)
            seen, sum_s = self._seen.get(trial.instance.platform, (0, 0.0))
            self._seen[trial.instance.platform] = seen + 1, sum_s + seconds
            self._bar.update(self._task, eta=self._eta())
            how = f"FAILED: {error}" if error else "done"
            where = f" on {host}" if host else ""
            eta = self._eta()
            self.say(f"{self._count} {trial.id}{where} {how} ({minutes(seconds)}, ETA {eta})")

    def unneeded(self, trial: Trial) -> None:
        """Count one trial that is left out because its cell has reached the plan's precision."""
        with self._lock:
            self._take(trial)
            self.say(f"{self._count} {trial.id} not needed")

    @property
    def _number(self) -> int:
        return self._total - len(self._missing)

    @property
    def _count(self) -> str:
        return f"[{self._number:>{len(str(self._total))}}/{self._total}]"

    def _add(self, trials: Iterable[Trial]) -> None:
        for trial in trials:
            if trial.id not in self._missing:
                self._missing[trial.id] = kind = _kind(trial)
                self._kinds[kind] += 1

    def _take(self, trial: Trial) -> None:
        if (kind := self._missing.pop(trial.id, None)) is not None:
            self._kinds[kind] -= 1
        self._bar.update(self._task, completed=self._number)

    def _eta(self) -> str:
        means = {platform: sum_s / seen for platform, (seen, sum_s) in self._seen.items()}
        seconds = _estimate_s(self._kinds, means, self._guess_s)
        return minutes(seconds / (len(self._doing) or self._hosts))


@dataclass(frozen=True)
class HostProgress:
    """The progress display of one of several hosts; see `Progress`."""

    whole: Progress
    host: str

    def say(self, text: str) -> None:
        """Print one line about the host."""
        self.whole.say(f"{self.host}: {text}")

    def doing(self, trial: Trial) -> None:
        """Show the trial that runs on the host now."""
        self.whole.doing(trial, self.host)

    def done(self, trial: Trial, seconds: float, error: str) -> None:
        """Count one trial that is done or has failed."""
        self.whole.done(trial, seconds, error, self.host)

    def unneeded(self, trial: Trial) -> None:
        """Count one trial that is left out."""
        self.whole.unneeded(trial)
