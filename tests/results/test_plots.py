import json

import numpy as np
import pytest
from PIL import Image

from digits_core.config.train_config import TrainConfig
from digits_core.errors import RunError
from digits_core.model.anchors import setting_digest
from results import plots
from results.figures.publication import DASHES, MARKERS, curves_figure, draw_figures, save_figure
from results.plots import chosen_settings
from results.record.folder import read_record_of
from results.tables.samples import NUM_SAMPLES, read_samples, write_samples
from results.views.curves import COLORS, Line, trainings
from results.views.opened_run import open_run
from searched import Searched, annotations

SLOW, FAST = {"optim.lr": 1e-3}, {"optim.lr": 2e-3}


def digest(**parameters):
    return setting_digest(TrainConfig.from_flat(parameters))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plots") / "runs" / "demo"
    made = Searched(folder)
    for number, (quality, seed, role, parameters) in enumerate(
        [(0.9, 0, "search", FAST), (0.4, 0, "search", SLOW), (0.8, 1, "replicate", FAST), (0.5, 1, "replicate", SLOW)]
    ):
        baseline = "fast one" if parameters is FAST and role == "search" else None
        made.trial(f"t{number:04d}", quality, seed=seed, role=role, baseline=baseline, epochs=3, **parameters)
    made.done()
    tree = json.loads((folder / "run.json").read_text())
    row = {"published": {}, "detect": {}}
    tree["tables"] = [
        {
            "title": "Table 9, Rate",
            "reading": reading,
            "note": "",
            "other_question": {},
            "rows": [
                {"label": "fast", "config_hash": digest(**FAST), **row},
                {"label": "slow", "config_hash": digest(**SLOW), **row},
            ],
        }
        for reading in ("as printed", "as meant")
    ]
    (folder / "run.json").write_text(json.dumps(tree))
    generator = np.random.default_rng(0)
    write_samples(folder, annotations(), lambda index: generator.integers(0, 255, (64, 64, 3), dtype=np.uint8))
    return read_record_of(folder), folder


def test_the_command_writes_every_figure_twice(run, tmp_path, capsys):
    _, folder = run
    assert plots.main([str(folder), "-o", str(tmp_path / "out")]) == 0
    assert "wrote 4 figures, each as PNG and SVG" in capsys.readouterr().out
    names = {"curves", "overfitting", "predictions", "table-9-rate"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"{name}.{kind}" for name in names for kind in ("png", "svg")
    }
    for name in names:
        with Image.open(tmp_path / "out" / f"{name}.png") as picture:
            assert picture.width > 400
            assert len(picture.convert("L").getcolors(256) or []) != 1
    text = (tmp_path / "out" / "curves.svg").read_text()
    for said in ("validation mAP", "training loss", "validation loss", "t0000 fast one (2)", "epoch"):
        assert said in text  # text stays text
    assert "fast (2)" in (tmp_path / "out" / "table-9-rate.svg").read_text()


def test_the_same_run_gives_the_same_bytes(run, tmp_path):
    record, _ = run
    lines = [Line("slow", trainings(record, record.trials["t0000"].config_hash))]
    for out in ("a", "b"):
        save_figure(curves_figure(lines, "twice"), tmp_path / out)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_a_line_is_the_mean_and_its_band_the_extremes(run):
    record, folder = run
    figure = draw_figures(open_run(folder), chosen_settings(record, "t0000,t0001", 6))["curves"]
    place = next(one for one in figure.axes if one.get_title(loc="left") == "validation mAP")
    values = [[record.trials[name].epochs[epoch]["val_map"] for epoch in (1, 2, 3)] for name in ("t0000", "t0002")]
    np.testing.assert_allclose(place.lines[0].get_ydata(), np.mean(values, axis=0))
    band = place.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(np.min(values))
    assert band.max() == pytest.approx(np.max(values))


def test_the_gap_is_validation_minus_training(run):
    record, folder = run
    figure = draw_figures(open_run(folder), chosen_settings(record, "t0001", 6))["overfitting"]
    gap = next(one for one in figure.axes if one.get_title(loc="left").startswith("validation loss − "))
    each = [
        [epoch["val_loss"] - epoch["train_loss"] for _, epoch in sorted(record.trials[name].epochs.items())]
        for name in ("t0001", "t0003")
    ]
    np.testing.assert_allclose(gap.lines[0].get_ydata(), np.mean(each, axis=0))


def test_predictions_stand_beside_the_truth_of_each_sample(run):
    record, folder = run
    figure = draw_figures(open_run(folder), chosen_settings(record, "t0000", 6))["predictions"]
    assert "predictions of t0000 with a score above 0.5 (orange)" in figure.get_suptitle()
    samples = read_samples(folder)
    assert len(samples) == NUM_SAMPLES
    titles = [one.get_title(loc="left") for one in figure.axes]
    for sample in samples:
        title = f"image {sample.image_id}: annotated"
        assert titles[titles.index(title) + 1] == "predicted"
        place = figure.axes[titles.index(title)]
        assert len(place.patches) == 2 * len(sample.boxes)  # each with its white rim
        assert [text.get_text() for text in place.texts] == [str(label - 1) for label in sample.labels]


def test_lines_differ_by_color_and_by_dashes_for_print():
    without_color = [
        (str(DASHES[number % len(DASHES)]), MARKERS[number % len(MARKERS)]) for number in range(len(COLORS))
    ]
    assert len(set(without_color)) == len(COLORS)
    assert len({str(one) for one in DASHES}) == len(DASHES) >= 4
    grays = [np.dot([int(color[at : at + 2], 16) for at in (1, 3, 5)], [0.299, 0.587, 0.114]) for color in COLORS]
    assert max(grays) < 200  # seen on white


def test_samples_read_back_and_large_images_are_made_smaller(tmp_path):
    table = annotations(3)
    write_samples(tmp_path, table, lambda index: np.full((900, 600, 3), 50 * index, np.uint8))
    read = read_samples(tmp_path)
    assert [one.image_id for one in read] == table.image_ids.tolist()
    assert all(max(one.pixels.shape) == 384 for one in read)
    np.testing.assert_array_equal(np.concatenate([one.boxes for one in read]), table.boxes)
    np.testing.assert_array_equal(np.concatenate([one.labels for one in read]), table.labels)


def test_a_cut_short_training_is_no_part_of_its_settings_band(tmp_path):
    run = Searched(tmp_path / "run")
    run.trial("t0000", 0.9, epochs=3, **FAST)
    run.trial("t0001", 0.9, seed=1, role="replicate", status="interrupted", epochs=1, **FAST)
    record = read_record_of(run.done())
    assert [trial.trial_id for trial in trainings(record, digest(**FAST))] == ["t0000"]
    epochs, values = Line("x", (record.trials["t0000"], record.trials["t0001"])).curve("val_map")
    assert epochs == [1, 2, 3]
    assert np.isnan(values[1]).tolist() == [False, True, True]


def test_mistakes_are_one_sentence(run, tmp_path, capsys):
    _, folder = run
    for arguments, said in (
        ([str(tmp_path / "none")], "there is no such run"),
        ([str(folder), "--trials", "t9"], "has no such trial with an epoch; known: t0000"),
        ([str(folder), "--trials", "t0000,t0002"], "two of them are trainings of one configuration"),
        ([str(folder), "-o", str(folder / "run.json")], "cannot be written"),
    ):
        assert plots.main(arguments) == 2
        assert said in capsys.readouterr().err
    empty = Searched(tmp_path / "empty")
    with pytest.raises(RunError, match="no epoch to draw yet"):
        chosen_settings(read_record_of(empty.done()), None, 6)


@pytest.mark.parametrize("name", ["a\x1b[31m\u202e\nb", r"a $\bad{$ b"])
def test_a_name_is_drawn_as_it_is_and_the_picture_can_be_opened(name, tmp_path):
    import xml.etree.ElementTree as ET

    run = Searched(tmp_path / "run")
    run.trial("t0000", 0.8, baseline=name)
    run.trial("t0001", 0.7, **{"optim.lr": 2e-3})
    assert plots.main([str(run.done())]) == 0
    for path in (tmp_path / "run" / "plots").glob("*.svg"):
        words = "".join(ET.parse(path).getroot().itertext())
        assert name.encode("unicode_escape").decode() in words or name in words
