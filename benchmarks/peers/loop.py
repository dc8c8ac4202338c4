"""A loop of full trainings, one after another, on all cores: how the course reports searched."""

import random

from command import flags
from detector import Trace, Training, anchor_setting


def main() -> None:
    """Train random settings of the space to their end."""
    args = flags(__doc__)
    trace, rng = Trace(args.trace), random.Random(args.seed)
    for trial in range(args.trials):
        setting = anchor_setting(4 * 8 ** rng.random(), rng.uniform(1.2, 2.0))
        training = Training(setting, args.data, args.epochs, args.seed)
        for epoch, value in enumerate(training.epochs(), start=1):
            trace.add(str(trial), epoch, value, training)
            if trace.count() >= args.budget:
                return


if __name__ == "__main__":
    main()
