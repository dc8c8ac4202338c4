"""A plain Ray Tune script: a function trainable, Optuna's sampler, ASHA."""

import os

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import tempfile
from pathlib import Path

from command import flags
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch


def trainable(config: dict) -> None:
    """Train one setting and report every epoch."""
    from detector import Trace, Training, anchor_setting

    trace = Trace(Path(config["trace"]))
    training = Training(
        anchor_setting(config["base"], config["growth"]), Path(config["data"]), config["epochs"], config["seed"]
    )
    for epoch, value in enumerate(training.epochs(), start=1):
        trace.add(tune.get_context().get_trial_id(), epoch, value, training)
        tune.report({"val_map": value})


def main() -> None:
    """Search."""
    args = flags(__doc__)
    reports = 0

    class Budget(tune.Stopper):
        def __call__(self, trial_id: str, result: dict) -> bool:
            nonlocal reports
            reports += 1
            return False

        def stop_all(self) -> bool:
            return reports >= args.budget

    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space={
            "base": tune.loguniform(4.0, 32.0),
            "growth": tune.uniform(1.2, 2.0),
            "data": str(args.data),
            "trace": str(args.trace),
            "epochs": args.epochs,
            "seed": args.seed,
        },
        tune_config=tune.TuneConfig(
            metric="val_map",
            mode="max",
            num_samples=args.trials,
            search_alg=OptunaSearch(seed=args.seed),
            scheduler=ASHAScheduler(max_t=args.epochs, grace_period=1, reduction_factor=3),
        ),
        run_config=tune.RunConfig(storage_path=tempfile.mkdtemp(), stop=Budget(), verbose=0),
    )
    tuner.fit()


if __name__ == "__main__":
    main()
