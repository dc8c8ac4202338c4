"""Readers poll a run's tables while its writer is killed at random: never a broken or a shrinking one.

python tests/chaos/views.py --kills 1000
"""

import argparse
import os
import random
import signal
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from digits_core.config.train_config import TrainConfig
from results.record.folder import EPOCHS_FILE, LEADERBOARD_FILE
from results.record.log import EventWriter
from results.tables.parquet import read_arrow
from results.views.leaderboard import write_views

TRIALS = 20


@dataclass
class Found:
    """What the reader saw.

    Attributes:
        kills: of the writer.
        reads: tables read, whole.
        rows: of the epochs' table at the end.
        broken: tables that could not be read, or had fewer rows than before.
    """

    kills: int = 0
    reads: int = 0
    rows: int = 0
    broken: list = field(default_factory=list)


def write_on(folder):
    """What a search does beside training, as fast as it can, until it is killed."""
    events = EventWriter(folder, "views")
    config = TrainConfig().to_flat()
    while True:
        number = events.record.num_events
        name = f"t{number % TRIALS:04d}"
        if name not in events.record.trials:
            facts = {"config": config, "config_hash": name, "seed": 0, "params": {}}
            events.write("trial", trial_id=name, space="s", role="search", baseline=None, **facts)
        else:
            epoch = events.record.trials[name].num_epochs + 1
            events.write("report", trial_id=name, epoch=epoch, val_map=0.5, early_stopped=False)
        write_views(folder, events.record, make=False)


def read_beside_kills(folder, *, kills, seed):
    """Kill a writer so often, and read beside it all the while."""
    draw, found = random.Random(seed), Found()
    rows = {LEADERBOARD_FILE: 0, EPOCHS_FILE: 0}
    while found.kills < kills or not rows[EPOCHS_FILE]:  # a busy machine comes to epochs later
        writer = os.fork()
        if writer == 0:
            try:
                write_on(folder)
            finally:
                os._exit(1)
        end, reads = time.monotonic() + draw.uniform(0.005, 0.06), found.reads
        while time.monotonic() < end or found.reads == reads:  # the first table may take a busy machine longer
            for name, before in rows.items():
                if not (folder / name).exists():
                    continue
                try:
                    now = read_arrow(folder / name, "").num_rows
                except Exception as error:
                    found.broken.append(f"{name}: {error}")
                    continue
                if now < before:
                    found.broken.append(f"{name}: {now} rows after {before}")
                rows[name] = now
                found.reads += 1
        os.kill(writer, signal.SIGKILL)
        _, status = os.waitpid(writer, 0)
        assert os.WIFSIGNALED(status), "the writer ended by itself"
        found.kills += 1
    found.rows = rows[EPOCHS_FILE]
    return found


def main():
    """Print what a reader saw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(read_beside_kills(Path(folder), kills=args.kills, seed=args.seed))


if __name__ == "__main__":
    main()
