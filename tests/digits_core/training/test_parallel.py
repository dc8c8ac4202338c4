"""Two processes that train one model: gradients of two half batches are those of the whole."""

import json
import subprocess
import sys
import textwrap

import pytest
import torch

from digits_core.training.parallel import ALONE, World

STEP = textwrap.dedent(
    """
    import json, os, sys, torch
    import torch.distributed as dist
    from digits_core.data.batches import load_batch
    from digits_core.data.cache import open_data
    from digits_core.config.train_config import TrainConfig
    from digits_core.model.detector import BatchDetector
    from digits_core.training.parallel import World
    from digits_core.data.source import DataSource
    from digits_core.training.train import open_run, train_step

    rank, size, folder, store = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    torch.set_num_threads(1)

    # The same number of proposals from every image, without randomness.
    BatchDetector.keys = lambda self, shape: torch.arange(shape[1]).div(shape[1]).expand(shape)
    data = open_data(DataSource(folder=folder))
    world = World(rank, size)
    if size > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    # One shape for all images, and frozen batch norm: only the combination of gradients can differ.
    config = TrainConfig.from_flat({"model.fixed_size": 64, "optim.max_grad_norm": 0.0, "model.rpn_batch_size": 16,
                                    "model.roi_batch_size": 16,
                                    "runtime.precision": "float32", "runtime.micro_batch": int(sys.argv[6]) or None})
    run = open_run(config, data, device="cpu", world=world)
    for module in run.model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    run.optimizer.step = lambda *_: None
    batch = [1, 2, 3, 4]
    mine = world.share(batch)
    batch_of_mine = load_batch(data.train, mine, run.device)
    train_step(run, batch_of_mine, world.weight(len(mine), len(batch)))
    if rank == 0:
        grads = {name: one.grad for name, one in run.model.named_parameters() if one.grad is not None}
        torch.save(grads, sys.argv[5])
    if size > 1:
        # A normal exit sometimes aborts, because gloo's threads free tensors while Python is shutting down.
        dist.barrier()
        os._exit(0)
    """
)


def gradients(tmp_path, folder, size, micro=0):
    out = tmp_path / f"grads{size}-{micro}.pt"
    script = tmp_path / "step.py"
    script.write_text(STEP)
    arguments = [str(size), str(folder), str(tmp_path / f"store{size}-{micro}"), str(out), str(micro)]
    crew = [subprocess.Popen([sys.executable, str(script), str(rank), *arguments]) for rank in range(size)]
    assert [one.wait(timeout=120) for one in crew] == [0] * size
    return torch.load(out, weights_only=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_folder, tiny_data):
    return gradients(tmp_path_factory.mktemp("whole"), tiny_folder, 1)


@pytest.mark.parametrize(("size", "micro"), [(2, 0), (1, 2), (2, 1)])
def test_the_gradients_of_the_parts_are_those_of_the_whole(tmp_path, tiny_folder, whole, size, micro):
    halves = gradients(tmp_path, tiny_folder, size, micro)
    assert whole.keys() == halves.keys()
    largest = max(float(one.abs().max()) for one in whole.values())
    assert largest > 1e-3
    for name, one in whole.items():
        assert torch.allclose(one, halves[name], atol=1e-5 * max(largest, 1.0), rtol=1e-4), name


@pytest.mark.parametrize(("size", "batch"), [(1, 5), (2, 5), (2, 4), (3, 8)])
def test_every_image_of_a_batch_is_trained_once_and_counts_the_same(size, batch):
    indices = list(range(batch))
    worlds = [World(rank, size) for rank in range(size)]
    shares = [world.share(indices) for world in worlds]
    assert sorted(index for share in shares for index in share) == indices
    # the mean of the weighted means of all processes is the mean over the batch
    values = torch.arange(batch, dtype=torch.float64)
    means = [
        world.weight(len(share), batch) * values[share].mean() for world, share in zip(worlds, shares, strict=True)
    ]
    assert float(sum(means) / size) == pytest.approx(float(values.mean()))


def test_alone_is_one_process_that_leads():
    assert ALONE.leads
    assert ALONE.agree(True) is True
    model = torch.nn.Linear(2, 2)
    assert ALONE.wrap(model, torch.device("cpu")) is model
    assert json.dumps([ALONE.rank, ALONE.size]) == "[0, 1]"
