"""Syne Tune: its ASHA on the local backend, two trials at a time."""

import tempfile
from pathlib import Path

from command import flags
from syne_tune import StoppingCriterion, Tuner
from syne_tune.backend import LocalBackend
from syne_tune.config_space import loguniform, uniform
from syne_tune.optimizer.baselines import ASHA


def main() -> None:
    """Search."""
    args = flags(__doc__)
    space = {
        "base": loguniform(4.0, 32.0),
        "growth": uniform(1.2, 2.0),
        "epochs": args.epochs,
        "seed": args.seed,
        "data": str(args.data),
        "trace": str(args.trace),
    }
    scheduler = ASHA(
        space,
        metric="val_map",
        time_attr="epoch",
        max_t=args.epochs,
        do_minimize=False,
        random_seed=args.seed,
        grace_period=1,
        reduction_factor=3,
    )
    tuner = Tuner(
        trial_backend=LocalBackend(entry_point=str(Path(__file__).with_name("syne_tune_trial.py"))),
        scheduler=scheduler,
        stop_criterion=StoppingCriterion(max_num_evaluations=args.budget, max_num_trials_finished=args.trials),
        n_workers=2,
        sleep_time=0.5,  # its default of 5 s would cost short epochs dearly
        trial_backend_path=tempfile.mkdtemp(),
    )
    tuner.run()


if __name__ == "__main__":
    main()
