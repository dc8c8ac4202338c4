"""digit-search ensemble: which models it takes, how it chooses, what it says and writes."""

import json
import shutil

import numpy as np
import pytest
import torch

from conftest import introduce, report
from digits_core.config.train_config import TrainConfig
from digits_core.data.cache import open_data
from digits_core.data.drawn import write_drawn_folder
from digits_core.data.source import DataSource
from digits_core.errors import RunError
from digits_core.evaluation.detect import SCORE_FLOOR
from digits_core.evaluation.evaluate import evaluate
from digits_core.evaluation.matching import Candidates
from digits_core.model.build import DRAWN_WEIGHTS
from digits_core.model.checkpoint import save_model
from digits_core.submission.inference import load_detector
from results.record.folder import read_record_of
from results.record.lock import lock_run
from results.record.log import EventWriter
from search import ensemble
from search import evaluate as evaluate_command
from search.models.ensemble import choose_on, choose_on_all, difference, is_real
from search.models.ensemble_words import verdicts_of
from search.models.kept import kept_models
from search.models.pool import Pool, make_pool, reduced, split_in_halves

CPU = torch.device("cpu")
NUM_VALID = 40


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "drawn"
    write_drawn_folder(folder, 2, NUM_VALID, seed=5)
    return folder


@pytest.fixture(scope="module")
def data(data_folder, own_cache):
    return open_data(DataSource(folder=str(data_folder)))


@pytest.fixture(scope="module")
def searched(tmp_path_factory, data_folder, data):
    """A run that kept three models, which are wrong in different ways, and has one trial without a checkpoint."""
    folder = tmp_path_factory.mktemp("runs") / "done"
    folder.mkdir()
    events = EventWriter(folder, "done")
    events.write("run", metric="val_map", trials=4, resumed=False)
    for number, size in enumerate((64, 64, 56, 64)):
        name = f"t{number:04d}"
        introduce(events, name, **{"optim.lr": 1e-3 * (number + 1)})
        events.write("report", trial_id=name, **report(1, 0.5 - number / 10))
        events.write("end", trial_id=name, status="finished", reason=None)
        if number < 3:
            detector = load_detector(DRAWN_WEIGHTS, CPU)
            with torch.no_grad():
                noise = torch.randn(11, generator=torch.Generator().manual_seed(number))
                detector.model.roi_heads.box_predictor.cls_score.bias += noise
            config = TrainConfig.from_flat({"model.min_size": size, "runtime.precision": "float32"})
            save_model(folder / "checkpoints" / name, detector.model, config)
            events.write("kept", trial_id=name, path=f"checkpoints/{name}")
    events.close()
    source = {"settings": {"data": {"folder": str(data_folder)}}, "data": {"fingerprint": data.fingerprint}}
    (folder / "run.json").write_text(json.dumps(source))
    return folder


@pytest.fixture
def run(searched, tmp_path):
    """A copy of the run to write into."""
    return shutil.copytree(searched, tmp_path / "runs" / "done")


@pytest.fixture(scope="module")
def pool(searched, data):
    models, _ = kept_models(searched, read_record_of(searched))
    return make_pool(models, data, iou=0.55, metric="val_map", device=CPU)


def test_the_halves_have_all_images_and_share_none(data):
    first, second = split_in_halves(data.valid)
    assert sorted([*first, *second]) == list(range(NUM_VALID))
    assert len(first) == len(second)


def test_a_single_model_is_scored_as_in_the_search(pool, data, searched):
    detector = load_detector(searched / "checkpoints" / "t0001", CPU)
    for half in (0, 1, None):
        split = data.valid if half is None else data.valid.some(pool.halves[half], "half")
        found = evaluate(
            detector.model, split, detector.config.detect, SCORE_FLOOR, batch_size=32, dtype=detector.dtype
        )
        for counts in ((0, 1, 0), (0, 3, 0)):  # copies add nothing
            assert pool.choosing_score(half)(counts) == pytest.approx(found.scores.map, abs=5e-3)  # other padding


def test_a_half_chooses_without_the_other_and_never_worse_than_a_single_model(pool):
    for half in (0, 1):
        choice = choose_on(pool, half, 4)
        singles = [pool.choosing_score(half)(tuple(one)) for one in np.eye(3, dtype=int).tolist()]
        assert choice.path[0].score == max(singles)
        assert choice.chosen.score >= max(singles)
        hidden = set(pool.halves[1 - half].tolist())
        blind = [
            Candidates.join([one.above(2.0) if image in hidden else one for image, one in enumerate(raw.split())])
            for raw in pool.raw
        ]
        other = Pool(pool.models, pool.configs, blind, pool.valid, pool.halves, pool.fusion, pool.metric)
        assert choose_on(other, half, 4).path == choice.path
        assert choose_on(other, half, 4).best.points["map"] == 0


def test_the_fusion_has_the_iou_that_the_best_model_uses_itself(run, data):
    models, _ = kept_models(run, read_record_of(run))
    config = TrainConfig.from_json((models[0].folder / "config.json").read_text())
    for own, expected in ((0.0, 0.55), (0.75, 0.75)):
        changed = TrainConfig.from_flat({"detect.box_fusion": own}, config)
        (models[0].folder / "config.json").write_text(changed.to_json())
        found = make_pool(models[:2], data, iou=None, metric="val_map", device=CPU)
        assert found.fusion.iou == expected
    assert make_pool(models[:2], data, iou=0.6, metric="val_map", device=CPU).fusion.iou == 0.6


def test_a_difference_is_the_mean_over_both_halves(pool):
    choices = [choose_on(pool, half, 3) for half in (0, 1)]
    pairs = [(one.half, one.best, one.alone) for one in choices]
    found = difference(pool, pairs, "map")
    each = [one.best.points["map"] - one.alone.points["map"] for one in choices]
    assert found.estimate == pytest.approx(np.mean(each))
    assert found.low <= found.estimate <= found.high
    same = difference(pool, [(one.half, one.alone, one.alone) for one in choices], "map")
    assert same.estimate == 0
    assert not is_real(same)
    swapped = difference(pool, [(half, second, first) for half, first, second in pairs], "map")
    assert (swapped.estimate, swapped.p) == pytest.approx((-found.estimate, found.p))


def test_proportions_decide():
    assert reduced((2, 4, 0)) == (1, 2, 0)
    assert reduced((0, 3, 0)) == (0, 1, 0)


def test_the_command_says_what_it_found_and_writes_a_model(run, data, capsys):
    assert ensemble.main([str(run), "--most", "3", "--device", "cpu", "--json"]) == 0
    out, shown = capsys.readouterr()
    found = json.loads(out)
    assert [one["chosen_on"] for one in found["halves"]] == ["first", "second"]
    assert {one["score"] for one in found["verdicts"]} == {"map", "number_accuracy"}
    for one in found["verdicts"]:
        verdict = one["words"].rpartition(": ")[2]
        assert (verdict == "no significant difference") == (one["p"] >= 0.05)
        assert one["words"] in shown
    target = run / "models" / "ensemble-1"
    assert found["folder"] == str(target)
    assert f"wrote {target}" in shown
    members = {one["trial"]: one["count"] for one in found["ensemble"]["members"]}
    assert len(members) > 1
    assert sorted(path.name for path in target.iterdir()) == sorted(
        ["MODEL_CARD.md", "classes.json", "config.json", "ensemble.json", "metrics.json", *members]
    )
    cost = found["ensemble"]["cost"]
    weights = [(target / name / "model.safetensors").stat().st_size / 1e6 for name in members]
    assert cost["ensemble"]["megabytes"] == pytest.approx(sum(weights))
    assert cost["ensemble"]["milliseconds"] > 0
    card = (target / "MODEL_CARD.md").read_text()
    assert f"An ensemble of {len(members)} Faster R-CNN models of done" in card
    assert all(one["words"] in card for one in found["verdicts"])


def test_the_folder_is_scored_like_any_model(run, data_folder, capsys):
    for number in (1, 2):
        assert ensemble.main([str(run), "--trials", "t0000,t0001", "--most", "2", "--device", "cpu"]) == 0
        assert (run / "models" / f"ensemble-{number}").is_dir()
    folder = run / "models" / "ensemble-2"
    capsys.readouterr()
    arguments = ["--images", str(data_folder / "valid"), "--annotations", str(data_folder / "valid.json"), "--json"]
    assert evaluate_command.main([str(folder), *arguments, "--device", "cpu"]) == 0
    scores = json.loads(capsys.readouterr().out)["scores"]
    claimed = json.loads((folder / "metrics.json").read_text())["scores"]
    assert scores["map"]["value"] == pytest.approx(claimed["val_map"][0], abs=5e-3)  # other padding
    for command in ("--from", "--init-from"):
        from search.models.source import find_source

        with pytest.raises(RunError, match="is an ensemble; give the folder of one of the models in it"):
            find_source(str(folder), command)


def test_where_a_single_model_is_best_no_ensemble_is_written(run, data, capsys, monkeypatch):
    from search.models import pool as module

    def only_the_second(pool, half):
        return lambda counts: float(reduced(counts) == (0, 1, 0))

    monkeypatch.setattr(module.Pool, "choosing_score", only_the_second)
    assert ensemble.main([str(run), "--most", "2", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "both halves choose a single model" in out
    assert "no ensemble is better than t0001 alone, so none is written" in out
    assert not (run / "models").exists()


def test_verdicts_need_an_ensemble(pool, monkeypatch):
    choices = [choose_on(pool, half, 1) for half in (0, 1)]
    assert verdicts_of(pool, choices) == []
    counts, alone = choose_on_all(pool, 1)
    assert counts == alone


def delete_one(run):
    shutil.rmtree(run / "checkpoints" / "t0001")


def without_kept(run):
    events = (run / "events.jsonl").read_text().splitlines()
    kept = [json.loads(line) for line in events if '"kind":"kept"' not in line]
    lines = [json.dumps({**event, "n": number}) for number, event in enumerate(kept, 1)]
    (run / "events.jsonl").write_text("\n".join(lines) + "\n")


def same_weights(run):
    for name in ("t0001", "t0002"):
        shutil.copy(run / "checkpoints" / "t0000" / "model.safetensors", run / "checkpoints" / name)


def other_data(run):
    tree = json.loads((run / "run.json").read_text())
    tree["data"]["fingerprint"] = "0" * 32
    (run / "run.json").write_text(json.dumps(tree))


def other_classes(run):
    classes = {"ids": list(range(10)), "names": [f"class {number}" for number in range(10)]}
    (run / "checkpoints" / "t0001" / "classes.json").write_text(json.dumps(classes))


@pytest.mark.parametrize(
    ("change", "flags", "said"),
    [
        (delete_one, [], "t0001 was deleted; train it again with digit-search retrain"),
        (without_kept, [], "has no model for an ensemble, which needs two different ones; digit-search run --keep 5"),
        (
            same_weights,
            [],
            "only one model (t0000) for an ensemble, which needs two different ones; t0001 is not used: ",
        ),
        (other_data, [], "has changed since the run began"),
        (other_classes, [], "t0001: detects 10 categories"),
        (None, ["--trials", "t0000,t0003"], "--trials t0003: the checkpoint of t0003 was not kept (see --keep)"),
        (None, ["--trials", "t0000,t0009"], "--trials t0009: run 'done' has no such trial"),
        (None, ["--trials", "t0000"], "has only one model (t0000) for an ensemble"),
        (None, ["--trials", "t0000,t0000"], "--trials: names t0000 twice"),
        (None, ["--device", "tpu"], "device must be auto, cpu, cuda or cuda:N, got 'tpu'"),
        (None, ["--data", "nowhere"], "nowhere"),
    ],
)
def test_a_mistake_is_one_sentence_and_writes_nothing(run, data, capsys, change, flags, said):
    if change is not None:
        change(run)
    assert ensemble.main([str(run), *flags]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert "\n" not in error
    assert not (run / "models").exists()


def test_a_model_that_trained_on_the_validation_images_is_left_out(run):
    events = EventWriter(run, "done")
    config = TrainConfig().to_flat()
    for number, images in enumerate(("train", "train+valid"), start=1):
        name = f"t0000-r{number}"
        events.write(
            "trial", trial_id=name, space="s", role="retrain", parent="t0000", trained_on=images, baseline=None,
            config=config, config_hash="x", seed=number, params={},
        )  # fmt: skip
        shutil.copytree(run / "checkpoints" / "t0000", run / "models" / name)
        with (run / "models" / name / "model.safetensors").open("ab") as weights:
            weights.write(b" " * number)  # not the weights of its trial
        events.write("kept", trial_id=name, path=f"models/{name}")
    events.close()
    models, notes = kept_models(run, read_record_of(run))
    assert sorted(one.name for one in models) == ["t0000", "t0000-r1", "t0001", "t0002"]
    assert notes == ["t0000-r2 is not used: it trained on the validation images, too"]


def test_a_running_search_keeps_its_models_to_itself(run, capsys):
    with lock_run(run):
        assert ensemble.main([str(run)]) == 2
    assert "is being written by process" in capsys.readouterr().err


def test_few_validation_images_are_refused(searched, tiny_data):
    models, _ = kept_models(searched, read_record_of(searched))
    with pytest.raises(
        RunError, match="the 4 validation images are too few for an ensemble: each half needs at least 7"
    ):
        make_pool(models, tiny_data, iou=0.55, metric="val_map", device=CPU)
