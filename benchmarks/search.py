"""Which scheduler, sampler and prior find a good configuration first: hundreds of replays on stored trainings.

`bank.parquet` has configurations of a wide space that were all trained to the end (tiny backbone, drawn data), with
the score of every epoch. `bank_other.parquet` has other configurations of the same space, trained on half as many
images for half as many epochs: what an earlier search could have left. A replay simulates a search with two slots on
the bank, in the order of the reports. All combinations have the same seeds. Regret is the best score of the bank minus
the best score of the search so far.

    python -m search.run --space anchors,aspect_ratios,roi_heads,lr_schedules --scheduler none --sampler random \\
        --screen off --trials 150 --epochs 12 --images-per-epoch 160 --seed 1 --name bank
    python -m search.run --space anchors,aspect_ratios,roi_heads,lr_schedules --scheduler none --sampler random \\
        --screen off --trials 40 --epochs 6 --images-per-epoch 80 --seed 100 --name other
    python benchmarks/search.py bank runs/bank
    python benchmarks/search.py bank runs/other -o benchmarks/bank_other.parquet
    python benchmarks/search.py replay [--repeats 200] [-o replay.json]
    python benchmarks/search.py learn [--repeats 200]
    python benchmarks/search.py outlook [--repeats 100]
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
from statistics import NormalDist
from typing import Any

if sys.path[0] == str(Path(__file__).parent):  # or `search` would be this very file
    sys.path[0] = str(Path(__file__).parents[1])

import numpy as np
import optuna
import pyarrow.parquet as pq
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import TrialState
from scipy.stats import rankdata, spearmanr

from digits_core.config.parameter import Flat
from search.cli.settings import SearchSettings, make_plan
from search.policy.outlook import FEWEST_TRIALS, chance_of
from search.policy.prior import Learned, Prior
from search.policy.proposals import build_sampler, startup_trials
from search.policy.stopping import Asha, Median, NoStopping, Rule
from spaces.registry import probe

BANK = Path(__file__).with_name("bank.parquet")
OTHER = Path(__file__).with_name("bank_other.parquet")
SPACE = "anchors,aspect_ratios,roi_heads,lr_schedules"
SLOTS = 2
BUDGETS = (12, 24, 48, 96, 144)
"""Epochs at which the regret is printed; 144 are the twelve configurations of a default search without stopping."""

LEARNED = 20
"""Settings of an earlier run that a replay learns from, drawn for each replay."""

REGRET = 0.006
"""The regret whose time is printed: about the standard deviation between two trainings of one configuration."""

PLAN = make_plan(SearchSettings(space=SPACE))
DISTRIBUTIONS: dict[str, BaseDistribution] = {
    name: one for trial, _ in probe(PLAN.space) for name, one in trial.distributions.items()
}


@dataclass(frozen=True)
class Bank:
    """Trained settings.

    Attributes:
        params: of each, as the space draws them.
        overrides: of each, the parameters of the training that the space sets.
        curves: float [settings, epochs], val_map.
        coverage: float [settings], the anchor screen's mean best IoU.
    """

    params: list[dict[str, Any]]
    overrides: list[Flat]
    curves: NDArray[np.float64]
    coverage: NDArray[np.float64]


def make_bank(run: Path, target: Path) -> None:
    """Take the trainings of a run folder that were drawn by its space and ended."""
    import pandas as pd

    from results.record.folder import read_record_of

    record, fields = read_record_of(run), sorted(PLAN.space.fields())
    rows = [
        {
            "trial_id": trial.trial_id,
            "params": json.dumps(trial.params),
            "overrides": json.dumps({name: trial.config[name] for name in fields}),
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
    params, overrides = ([json.loads(text) for text in first[name]] for name in ("params", "overrides"))
    return Bank(params, overrides, wide.to_numpy(), first["coverage"].to_numpy())


class Picker:
    """Proposes the next configuration and receives every score."""

    def __init__(self, bank: Bank, seed: int) -> None:
        """Begin with all configurations in a random order given by `seed`."""
        self.bank, self.rng = bank, np.random.default_rng(seed)
        self.left = self.rng.permutation(len(bank.params)).tolist()

    def next(self) -> int | None:
        """The next configuration in the random order."""
        return int(self.left.pop(0)) if self.left else None

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

    plan = PLAN

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
        chosen = max(self.candidates(), key=lambda setting: self.bank.coverage[setting])
        self.left.remove(chosen)
        self.study.enqueue_trial(self.bank.params[chosen])
        trial = self.study.ask()
        self.plan.space.draw(trial)
        self.trials[chosen] = trial
        return chosen

    @property
    def at_random(self) -> bool:
        """Whether the sampler still draws at random."""
        done = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        return len(done) < startup_trials(self.plan.trials)

    def candidates(self) -> list[int]:
        """Settings of which the one with the best coverage is tried."""
        if self.at_random and self.start > 1:
            return list(self.rng.choice(self.left, min(self.start, len(self.left)), replace=False).tolist())
        some = []
        for _ in range(self.then):
            asked = self.study.ask()
            self.plan.space.draw(asked)
            self.study.tell(asked, state=TrialState.FAIL)
            some.append(min(self.left, key=lambda setting: distance(asked.params, self.bank.params[setting])))
        return some

    def tell(self, setting: int, epoch: int, value: float, end: str | None) -> None:
        """As the searcher tells Optuna."""
        trial = self.trials[setting]
        trial.report(value, epoch)
        self.best[setting] = max(value, self.best.get(setting, value))
        if end == "whole":
            self.study.tell(trial, self.best[setting])
        elif end == "stopped":
            self.study.tell(trial, state=TrialState.PRUNED)


class Learning(Sampled):
    """An Optuna sampler beside what an earlier run knows, as `search.policy.proposals` combines them."""

    def __init__(self, bank: Bank, seed: int, other: Bank) -> None:
        """Learn from `LEARNED` random settings of another bank."""
        super().__init__(bank, seed, "tpe")
        some = self.rng.choice(len(other.params), LEARNED, replace=False).tolist()
        ranks = normal(other.curves[some].max(axis=1))
        self.prior = Prior([Learned(other.overrides[one], rank) for one, rank in zip(some, ranks, strict=True)], {})
        self.ended: dict[int, tuple[float, float]] = {}

    def candidates(self) -> list[int]:
        """The best predicted of several settings, or what the sampler proposes."""
        count = self.prior.draws(len(self.ended))
        if count == 1:
            return super().candidates()
        if self.at_random:
            some = self.rng.choice(self.left, min(count, len(self.left)), replace=False).tolist()
        else:
            some = [one for _ in range(count) for one in super(Learning, self).candidates()]
        ended = [*self.ended]
        order = sorted(self.ended.values())
        scores = normal(np.array([order.index(self.ended[one]) for one in ended], dtype=float))
        seen = [self.bank.overrides[one] for one in ended]
        predicted = self.prior.predict([self.bank.overrides[one] for one in some], seen, scores)
        return [some[int(predicted.argmax())]]

    def tell(self, setting: int, epoch: int, value: float, end: str | None) -> None:
        """Remember the score of a setting that ended; stopped ones rank below those that went on."""
        super().tell(setting, epoch, value, end)
        if end is not None:
            self.ended[setting] = (math.inf if end == "whole" else epoch, self.best[setting])


def normal(values: NDArray[np.float64]) -> list[float]:
    """The ranks of values as quantiles of a normal distribution."""
    return [NormalDist().inv_cdf((rank - 0.5) / len(values)) for rank in rankdata(values)]


def distance(a: dict[str, Any], b: dict[str, Any]) -> float:
    """Between two settings, each parameter scaled to its range; another choice is a whole range away."""
    total = 0.0
    for name, one in DISTRIBUTIONS.items():
        if name in a and name in b:
            if isinstance(one, CategoricalDistribution):
                total += float(a[name] != b[name])
                continue
            first, second, low, high = a[name], b[name], one.low, one.high  # type: ignore[attr-defined]
            if one.log:  # type: ignore[attr-defined]
                first, second, low, high = math.log(first), math.log(second), math.log(low), math.log(high)
            total += ((first - second) / (high - low)) ** 2
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
    epochs, best = bank.curves.shape[1], -np.inf
    seen: list[float] = []
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


def learn(bank: Bank, other: Bank, repeats: int) -> None:
    """Compare searches with and without an earlier run."""
    epochs, top = bank.curves.shape[1], float(bank.curves.max())
    pickers: dict[str, Callable[[int], Picker]] = {
        "random": lambda seed: Picker(bank, seed),
        "tpe, start screened 8 (the default)": lambda seed: Sampled(bank, seed, "tpe", start=8),
        f"the same, learning from {LEARNED} other settings": lambda seed: Learning(bank, seed, other),
    }
    print(
        f"| search | {' | '.join(f'regret after {budget}' for budget in BUDGETS)} | epochs to a regret of {REGRET:g} |"
    )
    print("|---|" + "---|" * (len(BUDGETS) + 1), flush=True)
    for name, picker in pickers.items():
        rows = [replay(bank, picker(seed), Asha("val_map", epochs), 6 * max(BUDGETS)) for seed in range(repeats)]
        regret = top - np.array(rows)
        mean = regret.mean(axis=0)
        reached = np.flatnonzero(mean <= REGRET)
        cells = [f"{mean[budget - 1]:.4f}" for budget in BUDGETS]
        when = f"{reached[0] + 1}" if len(reached) else f"more than {len(mean)}"
        print(f"| {name} | {' | '.join(cells)} | {when} |", flush=True)


def outlook(bank: Bank, repeats: int) -> None:
    """Compare the probability of a gain that a search prints with how often it came."""
    final = bank.curves.max(axis=1)
    pickers: dict[str, Callable[[int], Picker]] = {
        "random": lambda seed: Picker(bank, seed),
        "tpe": lambda seed: Sampled(bank, seed, "tpe"),
    }
    for name, picker in pickers.items():
        said, came = [], []
        for seed in range(repeats):
            chosen: list[int] = []
            one = picker(seed)
            while len(chosen) < 60 and (setting := one.next()) is not None:
                one.tell(setting, bank.curves.shape[1], float(final[setting]), "whole")
                chosen.append(setting)
            for num in range(FEWEST_TRIALS, 31, 2):
                best = float(final[chosen[:num]].max())
                for gain in (0.002, 0.005, 0.01, 0.02):
                    more = max(10, num)
                    said.append(chance_of(final[chosen[:num]].tolist(), best + gain, more))
                    came.append(float(final[chosen[num : num + more]].max()) > best + gain)
        shown, happened = np.array(said), np.array(came)
        print(f"{name}: {len(said)} statements")
        for low, high in ((0, 0.02), (0.02, 0.05), (0.05, 0.1), (0.1, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 1.01)):
            some = (shown >= low) & (shown < high)
            if some.any():
                print(f"  said {shown[some].mean():.0%}, came {happened[some].mean():.0%} ({some.sum()})")


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
    for name in ("learn", "outlook"):
        other = actions.add_parser(name)
        other.add_argument("--bank", type=Path, default=BANK)
        other.add_argument("--other", type=Path, default=OTHER)
        other.add_argument("--repeats", type=int, default=200)
    args = parser.parse_args()
    if args.action == "bank":
        make_bank(args.run, args.out)
        return
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    bank = read_bank(args.bank)
    if args.action == "learn":
        learn(bank, read_bank(args.other), args.repeats)
        return
    if args.action == "outlook":
        outlook(bank, args.repeats)
        return
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
