"""Which scheduler and sampler find a good configuration first: hundreds of replays on stored trainings.

`bank.parquet` has configurations of `anchors,lr_schedules` that were all trained to the end (tiny backbone, drawn
data), with the score of every epoch. A replay simulates a search with two slots on them, in the order of the reports.
All combinations have the same seeds. Regret is the best score of the bank minus the best score of the search so far.

    python -m search.run --space anchors,lr_schedules --scheduler none --sampler random --screen off --trials 72 \\
        --epochs 8 --name bank
    python benchmarks/search.py bank runs/bank
    python benchmarks/search.py replay [--repeats 200] [-o replay.json]
"""

import argparse
import heapq
import json
import math
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if sys.path[0] == str(Path(__file__).parent):  # or `search` would be this very file
    sys.path[0] = str(Path(__file__).parents[1])

import numpy as np
import optuna
import pyarrow.parquet as pq
from numpy.typing import NDArray
from optuna.trial import TrialState
from scipy.stats import spearmanr

from search.cli.settings import SearchSettings, make_plan
from search.policy.proposals import build_sampler, startup_trials
from search.policy.stopping import Asha, Median, NoStopping, Rule

BANK = Path(__file__).with_name("bank.parquet")
SPACE = "anchors,lr_schedules"
SLOTS = 2
BUDGETS = (12, 24, 48, 96)
"""Epochs at which the regret is printed; 96 are the twelve configurations of a default search without stopping."""

PARAMS = (
    "anchor_base",
    "anchor_growth",
    "schedule",
    "lr",
    "step_epochs",
    "step_gamma",
    "onecycle_peak",
    "warmup_epochs",
)
LOGARITHMIC = {"anchor_base", "lr", "step_gamma"}
RANGES = {
    "anchor_base": (4, 32), "anchor_growth": (1.2, 2), "lr": (1e-4, 5e-3), "step_epochs": (1, 6),
    "step_gamma": (0.05, 0.5), "onecycle_peak": (0.1, 0.5), "warmup_epochs": (0, 0.5),
}  # fmt: skip


@dataclass(frozen=True)
class Bank:
    """Trained settings.

    Attributes:
        params: of each, as the space draws them.
        curves: float [settings, epochs], val_map.
        coverage: float [settings], the anchor screen's mean best IoU.
    """

    params: list[dict[str, Any]]
    curves: NDArray[np.float64]
    coverage: NDArray[np.float64]


def make_bank(run: Path, target: Path) -> None:
    """Take the trainings of a run folder that were drawn by its space and ended."""
    import pandas as pd

    from results.record.folder import read_record_of

    record = read_record_of(run)
    rows = [
        {
            "trial_id": trial.trial_id,
            **{name: trial.params.get(name) for name in PARAMS},
            "coverage": trial.coverage["mean_iou"],
            "epoch": epoch["epoch"],
            **{name: epoch[name] for name in ("train_loss", "val_loss", "val_map", "val_number_accuracy")},
        }
        for trial in record.trials.values()
        if trial.status == "finished" and trial.params
        for epoch in trial.epochs.values()
    ]
    pd.DataFrame(rows).to_parquet(target, index=False, compression="zstd")
    print(f"{len({row['trial_id'] for row in rows})} settings, {len(rows)} epochs in {target}")


def read_bank(path: Path) -> Bank:
    """The bank of a file."""
    table = pq.read_table(path).to_pandas()
    wide = table.pivot(index="trial_id", columns="epoch", values="val_map")
    first = table.groupby("trial_id").first().loc[wide.index]
    params = [
        {name: row[name] for name in PARAMS if row[name] is not None and row[name] == row[name]}
        for row in first.to_dict("records")
    ]
    for one in params:
        if "step_epochs" in one:
            one["step_epochs"] = int(one["step_epochs"])
    return Bank(params, wide.to_numpy(), first["coverage"].to_numpy())


class Picker:
    """Proposes the next configuration and receives every score."""

    def __init__(self, bank: Bank, seed: int) -> None:
        """Begin with all configurations in a random order given by `seed`."""
        self.bank, self.rng = bank, np.random.default_rng(seed)
        self.left = self.rng.permutation(len(bank.params)).tolist()

    def next(self) -> int | None:
        """The next configuration in the random order."""
        return self.left.pop(0) if self.left else None

    def tell(self, setting: int, epoch: int, value: float, end: str | None) -> None:
        """`end` is `whole`, `stopped` or None."""


class Screened(Picker):
    """Proposes the one of several random configurations whose anchors cover the digits best."""

    def __init__(self, bank: Bank, seed: int, most: int) -> None:
        """Select from `most` configurations at a time."""
        super().__init__(bank, seed)
        self.most = most

    def next(self) -> int | None:
        """The others go back to the end of the line."""
        if not self.left:
            return None
        some, self.left = self.left[: self.most], self.left[self.most :]
        best = max(some, key=lambda setting: self.bank.coverage[setting])
        self.left += [setting for setting in some if setting != best]
        return best


class Sampled(Picker):
    """An Optuna sampler; what it draws becomes the nearest setting of the bank not yet tried."""

    plan = make_plan(SearchSettings(space=SPACE))

    def __init__(self, bank: Bank, seed: int, name: str, *, start: int = 1, then: int = 1) -> None:
        """While the sampler draws at random, the best covering of `start` drawings is taken; of `then` after that."""
        super().__init__(bank, seed)
        self.study = optuna.create_study(direction="maximize", sampler=build_sampler(name, seed, self.plan.trials))
        self.trials: dict[int, optuna.Trial] = {}
        self.best: dict[int, float] = {}
        self.start, self.then = start, then

    def next(self) -> int | None:
        """Ask, take the nearest, and let Optuna believe that it asked for that one."""
        if not self.left:
            return None
        done = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        at_random = len(done) < startup_trials(self.plan.trials)
        if at_random and self.start > 1:
            some = self.rng.choice(self.left, min(self.start, len(self.left)), replace=False).tolist()
        else:
            some = []
            for _ in range(self.then):
                asked = self.study.ask()
                self.plan.space.draw(asked)
                self.study.tell(asked, state=TrialState.FAIL)
                some.append(min(self.left, key=lambda setting: distance(asked.params, self.bank.params[setting])))
        chosen = max(some, key=lambda setting: self.bank.coverage[setting])
        self.left.remove(chosen)
        self.study.enqueue_trial(self.bank.params[chosen])
        trial = self.study.ask()
        self.plan.space.draw(trial)
        self.trials[chosen] = trial
        return chosen

    def tell(self, setting: int, epoch: int, value: float, end: str | None) -> None:
        """As the searcher tells Optuna."""
        trial = self.trials[setting]
        trial.report(value, epoch)
        self.best[setting] = max(value, self.best.get(setting, value))
        if end == "whole":
            self.study.tell(trial, self.best[setting])
        elif end == "stopped":
            self.study.tell(trial, state=TrialState.PRUNED)


def distance(a: dict[str, Any], b: dict[str, Any]) -> float:
    """Between two settings, each parameter scaled to its range; another schedule is a whole range away."""
    total = float(a["schedule"] != b["schedule"])
    for name, (low, high) in RANGES.items():
        if name in a and name in b:
            one, other = a[name], b[name]
            if name in LOGARITHMIC:
                one, other, low, high = math.log(one), math.log(other), math.log(low), math.log(high)
            total += ((one - other) / (high - low)) ** 2
    return total


class Hyperband:
    """Asynchronous Hyperband: settings are dealt to brackets of ASHA with later and later first rungs."""

    def __init__(self, epochs: int, factor: int) -> None:
        """As many brackets as there are rungs; each gets an equal share of the epochs."""
        self.epochs = epochs
        graces = [factor**power for power in range(int(math.log(epochs, factor)) + 1)]
        self.rules = [Asha("val_map", epochs, grace=grace, factor=factor) for grace in graces]
        self.spent = [0.0] * len(graces)
        self.bracket: dict[str, int] = {}

    def decide(self, trial: str, epoch: int, value: float) -> str | None:
        """By the bracket of the setting."""
        if trial not in self.bracket:
            self.bracket[trial] = int(np.argmin(self.spent))
        self.spent[self.bracket[trial]] += 1
        return self.rules[self.bracket[trial]].decide(trial, epoch, value)


class Rejudging(Asha):
    """ASHA that asks again at every epoch whether the rungs behind a setting would still let it through."""

    def decide(self, trial: str, epoch: int, value: float) -> str | None:
        """Early arrivals passed where there was little to compare with."""
        reason = super().decide(trial, epoch, value)
        if reason is not None or epoch >= self.epochs:
            return reason
        for rung, scores in self._rungs.items():
            if rung <= epoch and trial in scores:
                others = [score for other, score in scores.items() if other != trial]
                if others and scores[trial] < np.percentile(others, 100 * (1 - 1 / self._factor)):
                    return "would no longer pass"
        return None


class Promoting:
    """ASHA that pauses at every rung, and goes on with a paused setting once it is among the best of its rung."""

    def __init__(self, epochs: int, grace: int, factor: int) -> None:
        """Begin with empty rungs."""
        self.epochs, self.factor = epochs, factor
        self.rungs: dict[int, dict[int, float]] = {}
        self.gone: dict[int, set[int]] = {}
        rung = grace
        while rung < epochs:
            self.rungs[rung], self.gone[rung] = {}, set()
            rung *= factor

    def paused(self, setting: int, epoch: int, value: float) -> bool:
        """Whether the setting waits after this epoch."""
        if epoch in self.rungs:
            self.rungs[epoch][setting] = value
        return epoch in self.rungs

    def promoted(self) -> tuple[int, int] | None:
        """A setting to go on with and the epoch that it stands at."""
        for rung in sorted(self.rungs, reverse=True):
            scores = self.rungs[rung]
            best = sorted(scores, key=lambda setting: -scores[setting])[: len(scores) // self.factor]
            for setting in best:
                if setting not in self.gone[rung]:
                    self.gone[rung].add(setting)
                    return setting, rung
        return None


def replay(bank: Bank, picker: Picker, rule: Rule | Promoting, budget: int) -> NDArray[np.float64]:
    """The best score seen after each epoch of the search, float [budget]."""
    epochs, best, seen = bank.curves.shape[1], -np.inf, []
    running: list[tuple[int, int, int, int]] = []  # when the epoch ends, slot, setting, epoch

    def begin(now: int, slot: int) -> None:
        going = rule.promoted() if isinstance(rule, Promoting) else None
        if going is None:
            setting = picker.next()
            going = None if setting is None else (setting, 0)
        if going is not None:
            heapq.heappush(running, (now + 1, slot, going[0], going[1] + 1))

    for slot in range(SLOTS):
        begin(0, slot)
    while running and len(seen) < budget:
        now, slot, setting, epoch = heapq.heappop(running)
        value = float(bank.curves[setting, epoch - 1])
        best = max(best, value)
        seen.append(best)
        if isinstance(rule, Promoting):
            stopped, paused = False, rule.paused(setting, epoch, value)
        else:
            stopped, paused = rule.decide(str(setting), epoch, value) is not None, False
        picker.tell(setting, epoch, value, "whole" if epoch == epochs else "stopped" if stopped else None)
        if stopped or paused or epoch == epochs:
            begin(now, slot)
        else:
            heapq.heappush(running, (now + 1, slot, setting, epoch + 1))
    return np.array(seen + [best] * (budget - len(seen)))


def schedulers(epochs: int) -> dict[str, Callable[[], Rule | Promoting]]:
    """By name: grace period and reduction factor in brackets."""
    asha = {
        f"asha ({grace}, {factor})": lambda grace=grace, factor=factor: Asha(
            "val_map", epochs, grace=grace, factor=factor
        )
        for grace, factor in ((1, 2), (1, 3), (1, 4), (2, 2), (2, 3), (4, 3))
    }
    return {
        "none": lambda: NoStopping("val_map", epochs),
        "median": lambda: Median("val_map", epochs),
        **asha,
        **{
            f"asha rejudging ({grace}, {factor})": lambda grace=grace, factor=factor: Rejudging(
                "val_map", epochs, grace=grace, factor=factor
            )
            for grace, factor in ((1, 2), (1, 3), (2, 2))
        },
        "hyperband (3)": lambda: Hyperband(epochs, 3),
        "promoting (1, 2)": lambda: Promoting(epochs, 1, 2),
        "promoting (1, 3)": lambda: Promoting(epochs, 1, 3),
    }


PICKERS: dict[str, tuple[Callable[[Bank, int], Picker], float]] = {
    "random": (Picker, 1.0),
    "screened 3": (lambda bank, seed: Screened(bank, seed, 3), 1.0),
    "screened 8": (lambda bank, seed: Screened(bank, seed, 8), 1.0),
    "tpe": (lambda bank, seed: Sampled(bank, seed, "tpe"), 0.5),
    "tpe, start screened 3": (lambda bank, seed: Sampled(bank, seed, "tpe", start=3), 0.5),
    "tpe, start screened 8": (lambda bank, seed: Sampled(bank, seed, "tpe", start=8), 0.5),
    "tpe, all screened 3": (lambda bank, seed: Sampled(bank, seed, "tpe", start=3, then=3), 0.25),
    "gp": (lambda bank, seed: Sampled(bank, seed, "gp"), 0.1),
    "gp, start screened 3": (lambda bank, seed: Sampled(bank, seed, "gp", start=3), 0.1),
}
"""By name, with the share of the repeats that their own cost leaves them."""


def main() -> None:
    """Make the bank, or replay."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    make = actions.add_parser("bank")
    make.add_argument("run", type=Path)
    make.add_argument("-o", "--out", type=Path, default=BANK)
    run = actions.add_parser("replay")
    run.add_argument("--bank", type=Path, default=BANK)
    run.add_argument("--repeats", type=int, default=200)
    run.add_argument("--schedulers", nargs="+")
    run.add_argument("--pickers", nargs="+", choices=PICKERS)
    run.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    if args.action == "bank":
        make_bank(args.run, args.out)
        return
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    bank = read_bank(args.bank)
    epochs = bank.curves.shape[1]
    final, top = bank.curves[:, -1], float(bank.curves.max())
    print(f"{len(bank.params)} settings of {epochs} epochs; best {top:.3f}, median at the end {np.median(final):.3f}")
    ranks = [f"{epoch}: {spearmanr(bank.curves[:, epoch - 1], final).statistic:.2f}" for epoch in (1, 2, 3, 4, 6)]
    print(f"Spearman of an epoch with the end: {', '.join(ranks)}")
    print(f"Spearman of the screen's coverage with the end: {spearmanr(bank.coverage, final).statistic:.2f}\n")
    print("| sampler | scheduler | " + " | ".join(f"{budget} epochs" for budget in BUDGETS) + " |")
    print("|---|---|" + "---|" * len(BUDGETS), flush=True)
    results = {}
    for name, (picker, share) in PICKERS.items():
        if args.pickers and name not in args.pickers:
            continue
        for rule_name, rule in schedulers(epochs).items():
            if args.schedulers and rule_name not in args.schedulers:
                continue
            repeats = max(2, round(args.repeats * share))
            started = time.perf_counter()
            seen = np.array([replay(bank, picker(bank, seed), rule(), max(BUDGETS)) for seed in range(repeats)])
            regret = top - seen[:, np.array(BUDGETS) - 1]
            low, middle, high = np.quantile(regret, (0.1, 0.5, 0.9), axis=0)
            cells = [f"{m:.3f} ({a:.3f} to {b:.3f})" for a, m, b in zip(low, middle, high, strict=True)]
            print(f"| {name} | {rule_name} | " + " | ".join(cells) + " |", flush=True)
            results[f"{name} / {rule_name}"] = {
                "repeats": repeats,
                "seconds": time.perf_counter() - started,
                "mean": (top - seen).mean(axis=0).tolist(),
                "quantiles": np.quantile(top - seen, (0.1, 0.5, 0.9), axis=0).tolist(),
            }
    if args.out is not None:
        args.out.write_text(json.dumps(results))


if __name__ == "__main__":
    main()
