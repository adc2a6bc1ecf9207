"""The page in a browser: for the eye, for a screen reader, by keyboard, without its script, on paper, and with hostile rows."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from revbench.case import Case
from revbench.report import write_report
from tests.report.reports import BASE, make_run
from tests.results.rows import make_row, write_run

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the path: apt-get install chromium")

Open = Callable[..., AbstractContextManager[Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_run(tmp_path_factory.mktemp("reports") / "run")
    write_report([run], run)
    return run


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    quiet = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=quiet)
        yield found
        found.close()


@pytest.fixture
def opened(browser: Any) -> Open:
    """Opens a report; what it says in the console, and what else it loads, fails the test."""

    @contextmanager
    def of(folder: Path, width: int = 1440, **settings: Any) -> Iterator[Any]:
        context = browser.new_context(viewport={"width": width, "height": 900}, **settings)
        page = context.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        page.on(
            "request", lambda request: said.append(request.url) if not request.url.endswith("report.html") else None
        )
        page.goto((folder / "report.html").as_uri())
        yield page
        assert said == []
        context.close()

    return of


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_nothing_stands_in_anybodys_way(folder: Path, opened: Open, width: int, scheme: str) -> None:
    """By axe-core: no violation, and nothing that it could not judge."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    with opened(folder, width, color_scheme=scheme) as page:
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        found = axe.run(page).response
        assert [
            (one["id"], one["nodes"][0]["html"][:200]) for one in (*found["violations"], *found["incomplete"])
        ] == []
        assert len(found["passes"]) > 20
        assert page.evaluate("document.documentElement.scrollWidth") == width, "the page itself scrolls sideways"


def test_by_keyboard_alone(folder: Path, opened: Open) -> None:
    with opened(folder) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "To the content"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        page.focus("#time-and-operations button[aria-label='Sort by Step']")
        column = "[...document.querySelectorAll('#time-and-operations tbody tr')].map(row => row.cells[2].textContent.trim())"
        assert [text.partition(" ms")[0] for text in page.evaluate(column)] == ["300", "400", "600", "crashed"]
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")
        assert [text.partition(" ms")[0] for text in page.evaluate(column)] == ["600", "400", "300", "crashed"]
        assert page.get_attribute("#time-and-operations thead th:nth-child(3)", "aria-sort") == "descending"


def test_a_link_opens_what_it_leads_into(folder: Path, opened: Open) -> None:
    with opened(folder) as page:
        assert not page.is_visible("#methods")
        page.evaluate("location.hash = '#methods'")
        page.wait_for_selector("#methods", state="visible")


def test_numbers_are_sorted_by_what_they_are_worth(tmp_path: Path, opened: Open) -> None:
    """Whatever unit they are shown in; what is missing stands last."""
    cases = [BASE.replace(batch_size=size) for size in (1, 2, 3, 4)]
    rows = [
        make_row(case=case, probe="memory", metrics={"peak_bytes": peak, "forward_peak_bytes": peak}, samples={})
        for case, peak in zip(cases, (3 << 20, 5 << 10, 2 << 30), strict=False)
    ]  # fmt: skip
    rows.append(make_row(case=cases[3], probe="memory", status="oom", metrics={}, samples={}, message="no room"))
    run = write_run(tmp_path / "run", *rows)
    write_report([run], run)
    with opened(run) as page:
        page.click("#peak-memory button[aria-label='Sort by Forward']")
        column = "[...document.querySelectorAll('#peak-memory tbody tr')].map(row => row.cells[2].textContent.trim())"
        assert page.evaluate(column) == ["5.0 KiB", "3.0 MiB", "2.0 GiB", "oom"]


def test_a_hint_stands_only_where_a_box_scrolls(folder: Path, opened: Open) -> None:
    wrong = """[...document.querySelectorAll(".scroll")]
        .filter(box => (box.scrollWidth > box.clientWidth + 1) === box.previousElementSibling.hidden).length"""
    for width, some in ((1440, False), (390, True)):
        with opened(folder, width) as page:
            page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
            page.wait_for_timeout(200)
            assert page.evaluate(wrong) == 0
            assert page.locator(".hint:visible").count() >= some
            beyond = "document.querySelector('#hardware-and-software .scroll')"
            assert page.evaluate(f"{beyond}.scrollWidth - {beyond}.clientWidth") <= (400 if some else 0)


def test_without_its_script_all_is_there(folder: Path, opened: Open) -> None:
    with opened(folder, java_script_enabled=False) as page:
        assert page.is_visible("#peak-memory td")
        page.click("summary >> nth=0")
        assert page.locator("details[open]").count() == 1


def test_values_stand_where_somebody_points(folder: Path, opened: Open) -> None:
    with opened(folder) as page:
        tips = page.evaluate(
            "[...document.querySelectorAll('#time-against-memory svg title')].map(one => one.textContent)"
        )
        assert "RevNet-38 reconstructed: 2.0 MiB, 1.50 ×" in tips


def test_on_paper_no_column_is_lost_and_folded_parts_are_there(folder: Path, opened: Open) -> None:
    with opened(folder, width=703) as page:  # what A4 has between its margins
        page.emulate_media(media="print")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        beyond = """[...document.querySelectorAll("table")].filter(one => one.getBoundingClientRect().right > innerWidth + 1)
            .map(one => one.closest("figure").id)"""
        assert page.evaluate(beyond) == []
        assert page.is_visible("#methods td")
        assert not page.is_visible("nav")


def test_no_script_of_a_strangers_runs(tmp_path: Path, opened: Open) -> None:
    """Not from a name, a message or a path of theirs, and not even if one were on the page."""
    attacks = [
        "<script>window.theirs = 1</script>", "<img src=x onerror='window.theirs = 1'>", "<svg/onload=window.theirs=1>",
        "</title><script>window.theirs = 1</script>", "\" autofocus onfocus=window.theirs=1 x=\"", "javascript:window.theirs=1",
        "</script><script>window.theirs = 1</script>", "--><iframe srcdoc='<script>parent.theirs = 1</script>'></iframe>",
    ]  # fmt: skip
    rows = [
        make_row(case=Case(model=f"{text}:{text}", batch_size=i + 1), status="crashed", metrics={}, samples={}, message=text)
        for i, text in enumerate(attacks)
    ]  # fmt: skip
    run = write_run(tmp_path / "run", *rows)
    write_report([run], run)
    with opened(run) as page:
        assert page.evaluate("window.theirs") is None
        assert page.locator("iframe, img, object, embed").count() == 0
        assert page.locator("script").count() == 1
        assert page.locator("td", has_text="window.theirs = 1").count() >= 3, "it is shown as the text that it is"


def test_the_page_forbids_other_scripts(folder: Path, browser: Any) -> None:
    page = browser.new_page()
    page.goto((folder / "report.html").as_uri())
    page.evaluate(
        "const one = document.createElement('script'); one.textContent = 'window.theirs = 1'; document.body.append(one)"
    )
    assert page.evaluate("window.theirs") is None
    page.close()
