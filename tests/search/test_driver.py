import signal
import threading
import time
from types import SimpleNamespace

import pytest

from conftest import introduce, report
from results.record.log import EventWriter, read_record
from search.monitor.progress import Progress
from search.monitor.ray_output import chatter_to
from search.monitor.view import SearchView, clock, setting_words
from search.tune.run_end import Ending


def test_a_run_ends_for_ctrl_c_or_its_time_budget_and_says_which():
    assert Ending(None).reason() is None
    short = Ending(0.05)
    assert short.reason() is None
    time.sleep(0.06)
    assert short.reason() == "time budget"
    assert short.exit_code is None


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_the_run_in_order_and_the_second_at_once(number, code):
    ending, said = Ending(None), []
    before = signal.signal(number, signal.SIG_DFL)  # whoever runs the tests may ignore it, as nohup does
    try:
        with ending.on_signals(said.append):
            signal.raise_signal(number)
            assert (ending.reason(), ending.exit_code) == ("interrupted", code)
            assert len(said) == 1
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_a_closed_terminal_means_nothing_under_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        ending = Ending(None)
        with ending.on_signals(print):
            signal.raise_signal(signal.SIGHUP)
        assert ending.reason() is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_ctrl_c_reaches_a_search_in_the_background_of_a_script():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell gives it to such a job
    try:
        ending = Ending(None)
        with ending.on_signals(str):
            signal.raise_signal(signal.SIGINT)
        assert ending.exit_code == 130
    finally:
        signal.signal(signal.SIGINT, before)


def test_handlers_of_signals_outlive_the_start_of_ray(monkeypatch):
    import ray

    from search.tune.cluster import connected

    def init(**flags):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as Ray does
        return SimpleNamespace(dashboard_url="")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "nodes", list)
    ending = Ending(None)
    with ending.on_signals(str), connected(None, port=1, machine={"CPU": 1, "GPU": 0}):
        signal.raise_signal(signal.SIGTERM)
    assert ending.exit_code == 143


def test_signals_are_left_alone_outside_the_main_thread():
    def body():
        with Ending(None).on_signals(print):
            done.append(True)

    done = []
    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert done == [True]


def test_chatter_goes_into_the_file_and_the_terminal_stays_ours(tmp_path, capfd):
    import os

    with chatter_to(tmp_path / "log") as terminal:
        print("from python")
        os.write(1, b"from a native part\n")
        os.write(2, b"and its errors\n")
        terminal.write("for people\n")
        terminal.flush()
    print("after")
    out = capfd.readouterr().out
    assert "for people" in out
    assert "after" in out
    assert "from python" not in out
    log = (tmp_path / "log").read_text()
    assert all(text in log for text in ("from python", "from a native part", "and its errors"))


def test_settings_are_told_as_what_they_change():
    base = {"optim.lr": 1e-3, "model.anchor_sizes": "1,2", "runtime.seed": 0}
    assert setting_words(base, base) == "default"
    assert setting_words(base | {"optim.lr": 0.00123456, "runtime.seed": 3}, base) == "lr 0.001235"


def test_clock():
    assert [clock(seconds) for seconds in (0, 59.6, 3599, 3600, 36061)] == [
        "0:00",
        "1:00",
        "59:59",
        "1:00:00",
        "10:01:01",
    ]


def test_progress_is_plain_lines_in_a_file_and_a_table_on_a_terminal(run_folder, tmp_path):
    record = read_record(run_folder, "demo")
    base = record.trials["t0000"].config
    view = SearchView(base, trials=5, epochs=3, slots=2)

    class Terminal:
        """A stream whose isatty is true."""

        def __init__(self):
            self.text = ""

        def write(self, text):
            self.text += text

        def flush(self):
            pass

        def isatty(self):
            return True

    with (tmp_path / "plain").open("w") as out, Progress(out, view) as progress:
        progress.update(record, "t0001")
        progress.update(record, "t0001")  # the same news is told once
        progress.update(record, "t0002")
    lines = (tmp_path / "plain").read_text().splitlines()
    assert len(lines) == 2
    assert "t0001  epoch 1/3  mAP 0.20  best 0.42 (t0000)  lr 0.002  stopped" in lines[0]
    assert lines[1] == "t0002 diverged: step 9: loss | not finite"

    (run_folder / "logs").mkdir()
    (run_folder / "logs" / "t0003.txt").write_text("what Ray said")
    with (tmp_path / "quiet").open("w") as out:
        quiet = Progress(out, SearchView(base, trials=5, epochs=3, slots=2, folder=run_folder), quiet=True)
        for name in record.trials:
            quiet.update(record, name)
    assert (tmp_path / "quiet").read_text().splitlines() == [
        "t0002 diverged: step 9: loss | not finite",
        f"t0003 failed: worker died; log: {run_folder}/logs/t0003.txt",
    ]

    terminal = Terminal()
    with Progress(terminal, view) as progress:
        progress.update(record, "t0004")
        table = view.table(record)
    assert table.row_count == 2  # t0004 alone is running, the other slot waits
    assert [column.header for column in table.columns][:4] == ["slot", "trial", "state", "mAP"]
    assert next(iter(table.columns[2].cells)).startswith("epoch 2/3, ")
    assert view.leaders(record).row_count == 3
    assert "t0004" in terminal.text
    assert "4 of 5 trials ended (1 stopped, 2 failed)" in view.summary(record)[0]
    assert "best 0.42 (t0000)" in view.summary(record)[0]


def test_the_best_of_the_live_view_is_trained_as_long_as_the_run_now_trains(tmp_path):
    events = EventWriter(tmp_path, "r")
    for epochs, value in ((3, 0.9), (6, 0.5)):
        events.write("run", metric="val_map", epochs=epochs)
        introduce(events, f"t{epochs}", **{"optim.epochs": epochs})
        events.write("report", trial_id=f"t{epochs}", **report(epochs, value))
        events.write("end", trial_id=f"t{epochs}", status="finished", reason=None)
    events.close()
    assert "best 0.50 (t6)" in SearchView({}, trials=2, epochs=6, slots=1).summary(events.record)[0]
