"""Plain Optuna: the Hyperband pruner and two processes on one journal study."""

import multiprocessing
import tempfile
from argparse import Namespace

import optuna
from command import flags
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

WORKERS = 2


def work(args: Namespace, journal: str, worker: int) -> None:
    """One of the processes."""
    import torch
    from detector import Trace, Training, anchor_setting

    torch.set_num_threads(1)
    trace = Trace(args.trace)

    def objective(trial: optuna.Trial) -> float:
        base = trial.suggest_float("base", 4.0, 32.0, log=True)
        growth = trial.suggest_float("growth", 1.2, 2.0)
        value = 0.0
        training = Training(anchor_setting(base, growth), args.data, args.epochs, args.seed)
        for epoch, value in enumerate(training.epochs(), start=1):
            trace.add(str(trial.number), epoch, value, training)
            trial.report(value, epoch)
            if trace.count() >= args.budget:
                trial.study.stop()
                raise optuna.TrialPruned
            if trial.should_prune():
                raise optuna.TrialPruned
        return value

    study = optuna.load_study(
        study_name="peer",
        storage=JournalStorage(JournalFileBackend(journal)),
        sampler=optuna.samplers.TPESampler(seed=args.seed + 1000 * worker),
        pruner=optuna.pruners.HyperbandPruner(min_resource=1, max_resource=args.epochs, reduction_factor=3),
    )
    study.optimize(objective, n_trials=args.trials // WORKERS)


def main() -> None:
    """Search."""
    args = flags(__doc__)
    journal = f"{tempfile.mkdtemp()}/study.log"
    optuna.create_study(study_name="peer", direction="maximize", storage=JournalStorage(JournalFileBackend(journal)))
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=work, args=(args, journal, worker)) for worker in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    main()
