"""`--json` of every command: one JSON document on standard output, all else on standard error."""

import argparse
import json
import os
import shutil
from importlib import import_module

import pytest

from digits_core.data.cache import open_data
from digits_core.data.coco import Table
from digits_core.data.source import DataSource, valid_part
from digits_core.model.build import DRAWN_WEIGHTS
from search import retrain
from search.cli.run_folder import describe_run
from search.cli.settings import SearchSettings, make_plan
from search.command import VERBS
from search.command import main as digit_search
from search.machine.probe import Findings, Probe
from search.monitor.summary import this_program
from searched import Searched, strict_json

NO_TABLE = {"report", "plots", "export", "onnx", "pretrain"}
"""Commands that write files and print only which."""

EVERY = {
    "run": ["--list-spaces", "--json"],
    "resume": None,  # the flags of run
    "status": ["{run}", "--json"],
    "retrain": ["{run}", "--json", "--gpus", "0"],
    "ensemble": None,  # needs models, as in tests/search/models/test_ensemble.py
    "board": ["{run}", "--json"],
    "compare": ["{run}", "--json"],
    "runs": ["{runs}", "--json"],
    "evaluate": ["{run}:t0001", "--json"],
    "predict": ["{model}", "{data}/valid", "-o", "{new}", "--annotations", "{data}/valid.json", "--device", "cpu",
                "--json"],
    "data": ["check", "{data}", "--json"],
    "replay": ["{run}", "--json"],
    "repair": ["{run}", "--json"],
}  # fmt: skip

MORE = {
    "run --list-parameters": ["run", "--list-parameters", "--json"],
    "predict --check": ["predict", "--check", "{data}/pred.json", "{data}/valid", "--json"],
}


@pytest.fixture(scope="module")
def places(tmp_path_factory, tiny_folder):
    """A run of two trials on the small data set, a model, and a folder for new files."""
    place = tmp_path_factory.mktemp("json")
    data = shutil.copytree(tiny_folder, place / "data")
    settings = SearchSettings(
        space="lr_schedules", data=DataSource(folder=str(data)), out=str(place / "runs"), name="demo", trials=1
    )
    made = Searched(place / "runs" / "demo", table=Table.from_part(valid_part(settings.data)))
    made.trial("t0000", 0.9)
    made.trial("t0001", 0.4, **{"optim.lr": 1e-3})
    folder = made.done()
    about = describe_run(settings, make_plan(settings), open_data(settings.data), None)
    (folder / "run.json").write_text(json.dumps(about))
    (data / "pred.json").write_text("[]")
    return {"run": folder, "runs": place / "runs", "data": data, "model": DRAWN_WEIGHTS, "new": place / "new"}


@pytest.fixture(autouse=True)
def no_training(places, monkeypatch):
    """Looks at no machine, and prints where a training would print."""

    def train_one(run, plan, console):
        os.write(1, b"Ray says something\n")
        console.print("epoch 1 of 1")
        model = places["run"] / "models" / "t0000-r1"
        model.mkdir(parents=True, exist_ok=True)
        (model / "metrics.json").write_text('{"scores": {"val_map": [0.5, 0.4, 0.6]}}')
        return model.name

    monkeypatch.setattr(retrain, "train_one", train_one)
    found = Findings(num_cores=2, num_gpus=0, torch_fault=None, gpu_fault=None, model_fault=None)
    monkeypatch.setattr(Probe, "__init__", lambda *_: None)
    monkeypatch.setattr(Probe, "findings", lambda *_: found)


def printed(arguments, places, capfd):
    code = digit_search([text.format(**places) for text in arguments])
    streams = capfd.readouterr()
    assert code in (0, 1), streams.err
    return strict_json(streams.out), streams.err


def flags_of(parser):
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from flags_of(sub)
        yield from action.option_strings


def test_each_command_has_the_flag_or_prints_no_table():
    having = {name for name, verb in VERBS.items() if "--json" in flags_of(import_module(verb.module).build_parser())}
    assert having == set(EVERY) == set(VERBS) - NO_TABLE


@pytest.mark.parametrize("name", [name for name, arguments in EVERY.items() if arguments] + list(MORE))
def test_standard_output_is_one_json_document(name, places, capfd, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(places["new"].parent / "state"))
    arguments = MORE.get(name) or [name, *EVERY[name]]
    document, _ = printed(arguments, places, capfd)
    assert isinstance(document, dict)
    assert document


def test_what_a_training_prints_is_on_standard_error(places, capfd):
    document, errors = printed(["retrain", *EVERY["retrain"]], places, capfd)
    assert document["trial_id"] == "t0000"
    [model] = document["models"]
    assert model["scores"]["val_map"] == {"value": 0.5, "low": 0.4, "high": 0.6}
    for words in ("retraining t0000 of", "Ray says something", "epoch 1 of 1"):
        assert words in errors


def test_without_the_flag_a_retraining_prints_its_scores_and_the_next_command(places, capfd):
    assert digit_search(["retrain", str(places["run"]), "--gpus", "0"]) == 0
    *_, scores, command = capfd.readouterr().out.splitlines()
    assert scores == "t0000-r1: val_map 0.500 [0.400, 0.600], at thresholds chosen on these images"
    assert command == f"next: {this_program()} predict {places['run'] / 'models' / 't0000-r1'} IMAGES -o predictions"


def test_problems_of_data_are_in_the_document_and_the_exit_code(places, tmp_path, capfd):
    folder = shutil.copytree(places["data"], tmp_path / "damaged")
    tree = json.loads((folder / "train.json").read_text())
    tree["annotations"][0]["bbox"] = [0, 0, -3, 4]
    (folder / "train.json").write_text(json.dumps(tree))
    assert digit_search(["data", "check", str(folder), "--json"]) == 2
    streams = capfd.readouterr()
    [problem] = strict_json(streams.out)["problems"]
    assert problem["annotation_id"] == tree["annotations"][0]["id"]
    assert "1 problems; fix them" in streams.err
