import json

import pytest

from digits_core.config.train_config import TrainConfig
from results.record.log import read_record
from results.tables.parquet import read_arrow, write_table
from search.evaluate import main
from searched import Searched


@pytest.fixture
def folder(tmp_path):
    made = Searched(tmp_path / "runs" / "demo")
    made.trial("t0000", 0.9)
    made.trial("t0001", 0.4, **{"optim.lr": 1e-3})
    return made.done()


def test_the_best_trial_is_scored_from_what_the_search_stored(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["-o", "scores.json", "--html", "page.html"]) == 0
    out = capsys.readouterr().out
    for words in ("t0000 of runs/demo", "Scores", "Classes", "Errors", "Digits by height", "checked by torchmetrics"):
        assert words in out
    found = json.loads((tmp_path / "scores.json").read_text())
    record = read_record(folder, "demo")
    best = record.trials["t0000"].best("val_map")
    assert found["scores"]["map"]["value"] == pytest.approx(best["val_map"])
    assert found["scores"]["number_accuracy"]["value"] == pytest.approx(best["val_number_accuracy"])
    assert found["scores"]["map"]["low"] <= best["val_map"] <= found["scores"]["map"]["high"]
    assert found["torchmetrics_map"] == pytest.approx(best["val_map"], abs=1e-6)
    assert sum(one["digits"] for one in found["classes"]) == found["digits"]
    assert len(found["confusion"]["annotated_by_detected"]) == len(found["confusion"]["labels"])
    page = (tmp_path / "page.html").read_text()
    for title in ("Precision-recall curves", "Confusion matrix", "Digits found by height"):
        assert title in page
    assert "https://" not in page.partition("<script")[0]


def test_another_trial_is_named_and_json_is_printed(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["demo:t0001", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"].startswith("t0001 of runs/demo")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["demo:t9"], "run 'demo' has no trial 't9'"),
        (["dem"], "did you mean 'demo'?"),
        (["demo", "--images", "x"], "--images and --annotations belong together"),
        (["demo", "-o", "none/x.json"], "-o none/x.json: there is no folder none"),
    ],
)
def test_a_mistake_is_one_sentence_and_writes_nothing(folder, tmp_path, capsys, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert said in capsys.readouterr().err
    assert [one.name for one in tmp_path.iterdir()] == ["runs"]


def test_a_model_folder_without_images_says_what_it_needs(place, capsys):
    assert main([str(place / "model")]) == 2
    assert "a model folder needs --images and --annotations; for the stored" in capsys.readouterr().err


def test_a_run_of_an_older_version_asks_for_images(folder, capsys):
    path = folder / "matches" / "t0000.parquet"
    write_table(path, read_arrow(path, "").drop_columns(["truth_boxes", "crowds", "crowd_boxes"]))
    assert main([str(folder)]) == 2
    assert "wrote it without the annotated boxes; give --images and --annotations" in capsys.readouterr().err


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with drawn images in `data` and a model in `model`."""
    from digits_core.data.drawn import write_drawn_folder
    from digits_core.evaluation.independent import torchmetrics_map  # noqa: F401  # the check that the command makes
    from digits_core.model.build import build_model
    from digits_core.model.checkpoint import save_model

    folder = tmp_path_factory.mktemp("place")
    write_drawn_folder(folder / "data", 8, 12, seed=3)
    config = TrainConfig.from_flat({"model.min_size": 32, "model.max_size": 128})
    model, _ = build_model(config, num_classes=11)
    (folder / "model").mkdir()
    save_model(folder / "model", model, config)
    return folder


def test_a_model_is_scored_on_images_as_it_predicts_them(place, capsys):
    data = place / "data"
    arguments = [
        "--images",
        str(data / "valid"),
        "--annotations",
        str(data / "valid.json"),
        "--json",
        "--device",
        "cpu",
    ]
    assert main([str(place / "model"), *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == 12
    assert found["scores"]["map"]["value"] == pytest.approx(found["torchmetrics_map"], abs=1e-4)


def test_a_prediction_with_annotations_prints_the_same_evaluation(place, tmp_path, capsys):
    from search import predict

    model, data = str(place / "model"), place / "data"
    annotations = ["--annotations", str(data / "valid.json"), "--device", "cpu"]
    assert main([model, "--images", str(data / "valid"), *annotations]) == 0
    expected = capsys.readouterr().out
    assert "Digits by height" in expected
    assert predict.main([model, str(data / "valid"), "-o", str(tmp_path / "out"), *annotations]) == 0
    assert capsys.readouterr().out.endswith(expected)
    assert (tmp_path / "out" / "pred.json").is_file()


def test_a_prediction_takes_the_model_of_a_run_and_says_so(capsys):
    from search import predict

    assert predict.main(["my-run"]) == 2
    assert (
        "needs MODEL (a run, RUN:TRIAL, a model folder or an ensemble) and IMAGES (a folder)" in capsys.readouterr().err
    )
    assert "a run, RUN:TRIAL, a model folder or an ensemble; and a folder of images" in " ".join(
        predict.build_parser().format_help().split()
    )


def test_annotations_of_some_images_of_a_prediction_score_these(place, tmp_path, capsys):
    from search import predict

    data = place / "data"
    tree = json.loads((data / "valid.json").read_text())
    kept = {one["id"] for one in tree["images"][::2]}
    tree["images"] = tree["images"][::2]
    tree["annotations"] = [one for one in tree["annotations"] if one["image_id"] in kept]
    (tmp_path / "half.json").write_text(json.dumps(tree))
    flags = ["--annotations", str(tmp_path / "half.json"), "--device", "cpu", "--json"]
    assert main([str(place / "model"), "--images", str(data / "valid"), *flags]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert predict.main([str(place / "model"), str(data / "valid"), "-o", str(tmp_path / "out"), *flags]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == 12
    assert found["evaluation"]["images"] == len(kept) == alone["images"]
    assert found["evaluation"]["digits"] == alone["digits"] == len(tree["annotations"])
