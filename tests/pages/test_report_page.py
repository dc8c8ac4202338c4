"""The report page in a real browser."""

import csv
import time

import pytest
from test_serve import served
from told import HOSTILE, told_run

from conftest import introduce
from results import open_run, read_leaderboard, write_report
from results.record.log import EventWriter

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return told_run(tmp_path_factory.mktemp("runs") / "told", baseline=HOSTILE)


@pytest.fixture(scope="module")
def path(folder):
    write_report([open_run(folder)], folder / "report.html")
    return folder / "report.html"


def trials(page):
    """The trials of the shown rows, from above."""
    return page.eval_on_selector_all(
        ".big tbody tr:not(.detail):not(.gone) .open", "buttons => buttons.map(one => one.textContent)"
    )


def draw_all(page):
    for plot in page.query_selector_all(".plot"):
        plot.scroll_into_view_if_needed()
        page.wait_for_timeout(60)
    page.locator(".plot:not([data-drawn])").first.wait_for(state="detached", timeout=60000)


def test_no_fault_and_no_request_in_light_and_dark(open_page, path):
    for scheme in ("light", "dark"):
        page = open_page(path, scheme=scheme)
        draw_all(page)
        assert page.locator(".plot svg.main-svg").count() >= 11
        assert page.faults == []
        assert [one for one in page.requests if not one.startswith(("file:", "data:", "blob:"))] == []


@pytest.mark.parametrize("width", [400, 900, 1280])
def test_no_table_of_the_first_box_or_the_evaluation_is_cut(open_page, path, width):
    page = open_page(path, width=width)
    cut = page.eval_on_selector_all(
        ".first .scroll, .tables .scroll",
        "all => all.filter(one => one.scrollWidth > one.clientWidth + 1).map(one => one.getAttribute('aria-label'))",
    )
    assert cut == []


def test_a_table_that_is_wider_than_the_window_says_so_until_its_end_is_reached(open_page, path):
    page = open_page(path, width=400)
    page.locator(".scroll.cut .big").wait_for()
    assert page.locator(".sideways").is_visible()
    page.locator(".board .scroll").evaluate("one => { one.scrollLeft = one.scrollWidth; }")
    page.locator(".scroll:not(.cut) .big").wait_for()
    assert not page.locator(".sideways").is_visible()


def test_hostile_names_stay_text(open_page, path):
    page = open_page(path)
    draw_all(page)
    page.locator(".open").first.click()
    assert "owned" not in page.title()
    assert page.locator("img").count() == 0
    assert HOSTILE[:40] in page.locator(".big tbody tr").first.inner_text()


def test_a_click_on_a_heading_sorts_the_next_turns_it_round_and_the_third_gives_the_boards_order(
    open_page, path, folder
):
    page = open_page(path)
    begin = trials(page)
    column = page.locator(".big th", has_text="mAP@.5").first
    board = read_leaderboard(folder).set_index("trial_id")
    column.locator("button").click()
    assert column.get_attribute("aria-sort") == "descending"
    values = [board["val_map_50"][name] for name in trials(page)]
    assert values == sorted(values, reverse=True)
    column.locator("button").click()
    values = [board["val_map_50"][name] for name in trials(page)]
    assert values == sorted(values)
    column.locator("button").click()
    assert trials(page) == begin


def test_the_filter_keeps_rows_that_hold_every_word(open_page, path, folder):
    page = open_page(path)
    page.locator(".filter").fill("stopped t000")
    board = read_leaderboard(folder)
    wanted = {
        name for name, status in zip(board["trial_id"], board["status"], strict=True)
        if status == "stopped" and name.startswith("t000")
    }  # fmt: skip
    assert set(trials(page)) == wanted
    assert page.locator(".count").inner_text() == f"{len(wanted)} of {len(board)} trials"
    page.locator(".filter").fill("")
    page.locator("select.status").select_option("diverged")
    assert trials(page) == ["t0900"]


def test_hidden_columns_come_on_demand(open_page, path):
    page = open_page(path)
    heading = page.locator(".big th", has_text="mAP@.75")
    assert not heading.is_visible()
    page.locator(".columns summary").click()
    page.locator(".choices label", has_text="mAP@.75").click()
    assert heading.is_visible()
    assert (
        page.locator(".big tbody tr").first.locator("td:not(.off)").count() == page.locator(".big th:not(.off)").count()
    )


def test_a_row_opens_its_settings_curve_warnings_and_command(open_page, path):
    page = open_page(path)
    page.locator(".open", has_text="t0900").click()
    more = page.locator("td.more")
    text = more.inner_text()
    assert "optim.lr" in text
    assert "diverged" in text or "none" in text
    assert "digit-search retrain" in text
    assert "--trial t0900" in text
    assert more.locator("svg path").count() == 1
    page.locator(".open", has_text="t0900").click()
    assert page.locator("td.more").count() == 0


def test_the_csv_is_the_whole_board(open_page, path, folder, tmp_path):
    page = open_page(path)
    with page.expect_download() as waited:
        page.locator(".csv").click()
    waited.value.save_as(tmp_path / "board.csv")
    with (tmp_path / "board.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["trial_id"] for row in rows] == read_leaderboard(folder)["trial_id"].tolist()
    assert waited.value.suggested_filename == "told.csv"


def test_all_of_it_works_by_keyboard(open_page, path):
    page = open_page(path)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    for _ in range(200):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.className") == "open":
            break
    page.keyboard.press("Enter")
    assert page.locator("td.more").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_axe_finds_no_serious_fault(open_page, path, scheme, width):
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(path, scheme=scheme, width=width)
    draw_all(page)
    page.locator(".open").first.click()
    page.locator(".columns summary").click()
    found = [
        (one["id"], one["nodes"][0]["html"][:200])
        for one in Axe().run(page).response["violations"]
        if one["impact"] in ("serious", "critical")
    ]
    assert found == []


@pytest.mark.parametrize("width", [400, 768, 1280])
def test_no_window_scrolls_sideways(open_page, path, width):
    page = open_page(path, width=width)
    draw_all(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_no_label_of_a_figure_is_cut_in_a_narrow_window(open_page, path):
    page = open_page(path, width=400)
    draw_all(page)
    page.wait_for_timeout(500)  # figures grow by their legends
    cut = page.evaluate("""() => [...document.querySelectorAll(".plot")].flatMap((plot) => {
        const outer = plot.getBoundingClientRect();
        return [...plot.querySelectorAll("text")].filter((text) => {
            const inner = text.getBoundingClientRect();
            return inner.width && (inner.left < outer.left - 1 || inner.right > outer.right + 1
                || inner.top < outer.top - 1 || inner.bottom > outer.bottom + 1);
        }).map((text) => `${plot.dataset.picture}: ${text.textContent}`);
    })""")
    assert cut == []


def test_it_prints_in_light_without_its_tools(open_page, path):
    page = open_page(path, scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print", color_scheme="light")
    page.wait_for_timeout(300)
    assert not page.locator(".tools").is_visible()
    assert page.locator(".plot svg.main-svg").count() >= 11
    fill = page.evaluate("getComputedStyle(document.querySelector('.plot .xtick text')).fill")
    assert fill == "rgb(27, 31, 36)"


def test_a_page_that_follows_a_search_keeps_what_was_typed_and_opened(open_page, tmp_path):
    folder = told_run(tmp_path / "runs" / "live", trials=4)
    events = EventWriter(folder, "live")  # a search that runs
    write_report([open_run(folder)], folder / "report.html", watch=1)
    page = open_page(folder / "report.html")
    while not page.locator("td.more").count():  # a click on a page that is just reloading is lost
        page.locator(".open", has_text="t0002").click()
        page.wait_for_timeout(200)
    page.locator(".filter").fill("stopped")
    events.write("end", trial_id="t0900", status="failed", reason="another end")
    events.close()
    write_report([open_run(folder)], folder / "report.html")
    page.locator("body:not([data-watch]) .count", has_text="trials").wait_for(timeout=60000)  # its script has run
    assert page.locator(".filter").input_value() == "stopped"
    assert trials(page) == ["t0002"]
    assert page.locator("td.more").count() == 1
    assert page.faults == []


def test_a_served_page_shows_a_new_row_and_keeps_what_was_typed_opened_and_scrolled(open_page, tmp_path):
    folder = told_run(tmp_path / "runs" / "served", trials=4)
    events = EventWriter(folder, "served")  # a search that runs
    with served(folder) as server:
        page = open_page(server.address)
        page.locator("#connection", has_text="Live").wait_for(timeout=60000)
        page.evaluate("window.opened = true")  # a reload would lose it
        page.locator(".open", has_text="t0002").click()
        page.locator(".filter").fill("t0")
        page.keyboard.press("ArrowLeft")
        page.evaluate("document.querySelector('#r0-pictures').scrollIntoView()")
        before = page.evaluate("document.querySelector('#r0-pictures').getBoundingClientRect().top")
        introduce(events, "t0950")
        page.locator(".open", has_text="t0950").wait_for(timeout=120000)
        after = page.evaluate("document.querySelector('#r0-pictures').getBoundingClientRect().top")
        assert page.evaluate("window.opened")
        assert page.locator(".filter").input_value() == "t0"
        assert page.evaluate("[document.activeElement.className, document.activeElement.selectionStart]") == [
            "filter",
            1,
        ]
        assert page.locator("td.more").count() == 1
        assert abs(after - before) < 2  # the row is above what is looked at
        draw_all(page)
        assert page.faults == []
    page.locator("#connection", has_text="Not connected").wait_for(timeout=60000)
    events.close()


def test_what_is_typed_while_a_page_loads_is_kept(open_page, path):
    page = open_page(path)
    page.add_init_script("""
        new MutationObserver((_, observer) => {
            const filter = document.querySelector(".filter");
            if (filter) { filter.value = "t0002"; observer.disconnect(); }
        }).observe(document, { childList: true, subtree: true });
    """)
    page.reload()
    assert page.locator(".filter").input_value() == "t0002"
    assert trials(page) == ["t0002"]


def test_a_thousand_trials_are_usable_at_once(open_page, tmp_path):
    folder = told_run(tmp_path / "runs" / "thousand", trials=12)
    record = open_run(folder).record
    events = EventWriter(folder, "thousand")
    like = record.trials["t0004"]
    for number in range(1000):
        config = {**like.config, "optim.lr": 1e-4 * (1 + number)}
        events.write(
            "trial", trial_id=f"u{number:04d}", space="s", role="search", baseline=None, config=config,
            config_hash=f"{number:016d}", seed=0, params={},
        )  # fmt: skip
        epoch = like.epochs[1]
        events.write(
            "report", trial_id=f"u{number:04d}", epoch=1, early_stopped=False,
            **{name: value for name, value in epoch.items() if name not in ("epoch", "reported_at", "early_stopped")},
        )  # fmt: skip
        events.write("end", trial_id=f"u{number:04d}", status="stopped", reason="asha: too low")
    events.close()
    write_report([open_run(folder)], folder / "report.html")
    started = time.monotonic()
    page = open_page(folder / "report.html")
    page.locator(".big th", has_text="lr").first.locator("button").click()
    page.locator(".filter").fill("u0999")
    assert trials(page) == ["u0999"]
    print(f"a page of 1,000 trials was opened, sorted and filtered in {time.monotonic() - started:.2f} s")
    assert page.faults == []
