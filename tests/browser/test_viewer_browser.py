"""The payload viewer as a person meets it: within Airflow's own pages, in a browser."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest
from chromium import Browser
from scenes import DAG, RUN
from viewer_server import HOSTILE, ViewerServer

FRAME = "document.querySelector('iframe[title=Payloads]')"
INSIDE = f"{FRAME}?.contentDocument"


def _press(browser: Browser, key: str, code: int, **more: str) -> None:
    """Press a key and let it go."""
    for kind in ("keyDown", "keyUp"):
        browser.call(
            "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **more
        )


def _open_tab(browser: Browser, server: ViewerServer, path: str, shown: str = "table") -> None:
    """Open a page of Airflow and click on its tab "Payloads"."""
    browser.go(f"{server.url}/{path}")
    tab = "[...document.querySelectorAll('a')].find((link) => link.textContent.trim() === 'Payloads')"
    browser.wait(lambda: browser.run(f"Boolean({tab})"))
    browser.run(f"{tab}.click()")
    browser.wait(lambda: browser.run(f"{INSIDE}?.querySelector('main, [role=alert]') !== undefined"))
    browser.wait(lambda: browser.run(f"Boolean({INSIDE}?.querySelector('{shown}'))"))


def _wide(browser: Browser, document: str) -> int:
    """Return by how much a page is wider than its window."""
    return int(browser.run(f"{document}.scrollingElement.scrollWidth - {document}.defaultView.innerWidth"))


def test_tab_of_a_task_instance_shows_the_rows(browser: Browser, server: ViewerServer) -> None:
    """Someone opens a task instance, clicks "Payloads" and sees the flights."""
    _open_tab(browser, server, f"dags/{DAG}/runs/{RUN}/tasks/load")

    text = browser.run(f"{INSIDE}.body.innerText")
    assert "40,000 rows" in text
    assert "dep_delay" in text
    assert "facts" in text
    assert browser.run(f"{INSIDE}.querySelectorAll('.grid tbody tr').length") == 100
    assert browser.run(f"{INSIDE}.querySelectorAll('svg.chart').length") >= 5
    browser.run(f"{INSIDE}.querySelector('a[rel=next]').click()")
    browser.wait(lambda: "101 to 200 of 40,000" in (browser.run(f"{INSIDE}?.body?.innerText") or ""))


def test_tab_of_a_mapped_instance_shows_its_own(browser: Browser, server: ViewerServer) -> None:
    """Each map index has rows of its own."""
    _open_tab(browser, server, f"dags/{DAG}/runs/{RUN}/tasks/split/mapped/2")

    assert browser.run(f"{INSIDE}.querySelector('.grid tbody td').textContent") == "3"


def test_tab_of_a_run_leads_to_the_largest(browser: Browser, server: ViewerServer) -> None:
    """The first link of the run's page opens its largest payload."""
    _open_tab(browser, server, f"dags/{DAG}/runs/{RUN}")

    assert browser.run(f"{INSIDE}.querySelector('tbody th').textContent.trim()") == "load"
    browser.run(f"{INSIDE}.querySelector('tbody a').click()")
    browser.wait(lambda: browser.run(f"{INSIDE}?.querySelectorAll('.grid tbody tr').length") == 100)


def test_page_is_dark_when_airflow_is(browser: Browser, server: ViewerServer) -> None:
    """It follows Airflow's own switch, at once; without it, what the browser prefers."""
    colour = f"getComputedStyle({INSIDE}.body).backgroundColor"
    browser.set_scheme("light")
    _open_tab(browser, server, f"dags/{DAG}/runs/{RUN}/tasks/load")
    seen = {}
    for theme in ("light", "dark"):
        browser.run(
            "document.documentElement.classList.remove('light', 'dark'),"
            f"document.documentElement.classList.add('{theme}')"
        )
        browser.wait(partial(browser.run, f"{INSIDE}.documentElement.dataset.theme === '{theme}'"))
        seen[theme] = browser.run(colour)
    assert seen == {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 29, 45)"}

    browser.set_scheme("dark")
    browser.go(f"{server.url}/payload-viewer/{_path(server, 'load')}")
    browser.run("localStorage.removeItem('theme'), delete document.documentElement.dataset.theme")
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(22, 29, 45)"


def test_download_saves_the_object_under_its_name(
    browser: Browser, server: ViewerServer, downloads: Path
) -> None:
    """The file is the object, byte for byte."""
    _open_tab(browser, server, f"dags/{DAG}/runs/{RUN}/tasks/correlation")
    browser.run(f"{INSIDE}.querySelector('a[data-download]').click()")
    saved = browser.wait(lambda: [file for file in downloads.iterdir() if file.suffix == ".npy"])
    (stored,) = server.payloads.rglob("correlation/**/*.npy")

    assert saved[0].name == stored.name
    assert browser.wait(lambda: saved[0].read_bytes() == stored.read_bytes())


@pytest.mark.parametrize("place", range(len(HOSTILE)))
def test_hostile_text_does_not_run(browser: Browser, server: ViewerServer, place: int) -> None:
    """Markup and scripts in keys, columns, values, ids and names of files are text that one sees."""
    text = HOSTILE[place]
    where = {"dag_id": "hostile", "run_id": f"run {text}"}
    pages = [
        _path(server, f"members {place}", "hostile"),
        _path(server, f"members {place}", "hostile") + f"?part={quote(text, safe='')}",
        server.path(f"task {text}", **where),
        server.path(f"task {text}", "none", **where),
        f"run/hostile/{quote(where['run_id'], safe='')}",
        f"history/hostile/{quote(f'task {text}', safe='')}?key={quote(text, safe='')}",
        f"compare/hostile/texts/-1?first={RUN}&second={RUN}&key={quote(f'frame {place}', safe='')}",
    ]
    for path in pages:
        browser.go(f"{server.url}/payload-viewer/{path}")

        assert browser.run("document.title").startswith(
            ("Payloads of ", "Not found", "History of ", "Comparison of ")
        )
        assert browser.run("document.querySelectorAll('script, iframe, object, embed').length") == 1
        assert browser.run("document.querySelectorAll('[onerror], [onload], [onfocus]').length") == 0
        assert browser.run("document.querySelector('main').innerText.length") > 20
    for key, query in (
        (f"{place} {text}", ""),
        (f"{place} {text}", "&part=0.parquet"),
        (f"frame {place}", ""),
        (f"bytes {place}", ""),
    ):
        path = _path(server, "texts", "hostile") + f"?key={quote(key, safe='')}{query}"
        browser.go(f"{server.url}/payload-viewer/{path}")

        assert browser.run("document.title").startswith("Payloads of texts")
        assert browser.run("document.querySelectorAll('script, iframe, object, embed').length") == 1
        assert (
            browser.run("document.querySelectorAll('img[src=\"x\"], [onerror], [onload], [onfocus]').length")
            == 0
        )
        assert browser.run("document.querySelector('.payload').innerText.length") > 20
    browser.go(f"{server.url}/payload-viewer/run/hostile/{RUN}")

    assert browser.run("document.title").startswith("Payloads of hostile")
    assert [said for said in browser.said if "DIALOG" in said or "Content Security" in said] == []


def test_picture_and_heat_map_are_shown(browser: Browser, server: ViewerServer) -> None:
    """Both have pixels; the policy of the page lets them through, and nothing else is refused."""
    for task, name, size in (("plot", "image", 480), ("correlation", "heat", 64)):
        browser.go(f"{server.url}/payload-viewer/{_path(server, task)}")
        browser.wait(partial(browser.run, f"document.querySelector('img.{name}').complete"))

        assert browser.run(f"document.querySelector('img.{name}').naturalWidth") == size
    assert [said for said in browser.said if "Content Security" in said] == []


HISTORY = f"history/{DAG}/load"
COMPARISON = f"compare/{DAG}/load/-1?first=scheduled__2026-10-31&second={RUN}"


@pytest.mark.parametrize("task", ["load", "correlation", "plot", "report", "", HISTORY, COMPARISON])
def test_narrow_window_does_not_scroll_sideways(browser: Browser, server: ViewerServer, task: str) -> None:
    """At 400 pixels the page fits; tables scroll within themselves."""
    browser.set_window(400, 800)
    path = task if "/" in task else _path(server, task) if task else f"run/{DAG}/{RUN}"
    browser.go(f"{server.url}/payload-viewer/{path}")

    assert _wide(browser, "document") <= 0
    assert browser.run("document.body.innerText.length") > 50


def test_page_can_be_used_by_keyboard_and_screen_reader(browser: Browser, server: ViewerServer) -> None:
    """Headings, names of regions, and nothing that a key cannot reach."""
    browser.go(f"{server.url}/payload-viewer/{_path(server, 'load')}")

    assert browser.run("document.documentElement.lang") == "en"
    assert browser.run("[...document.querySelectorAll('h1, h2')].map((one) => one.textContent)") == [
        "Payloads of the task instance",
        "return_value",
        "Last 29 runs",
    ]
    assert browser.run(
        "[...document.querySelectorAll('[role=region]')].every((one) => one.tabIndex === 0 && one.ariaLabel)"
    )
    assert browser.run("[...document.querySelectorAll('img')].every((one) => one.alt)")
    assert browser.run("document.querySelectorAll('[onclick]').length") == 0
    _press(browser, "Tab", 9)
    assert browser.run("document.activeElement !== document.body")


def test_next_page_can_be_reached_by_keyboard(browser: Browser, server: ViewerServer) -> None:
    """Tab leads to the pager, past what leads nowhere; Enter opens the next page."""
    browser.go(f"{server.url}/payload-viewer/{_path(server, 'load')}")
    passed = []
    for _ in range(40):
        _press(browser, "Tab", 9)
        passed.append(browser.run("document.activeElement.textContent.trim()"))
        if passed[-1] == "Next":
            break
    else:
        raise AssertionError(f"no key reaches the pager: {passed}")
    assert not {"Previous", "First"} & set(passed), "they lead nowhere on the first page"
    assert browser.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    _press(browser, "Enter", 13, text="\r")

    browser.wait(lambda: "101 to 200 of 40,000" in (browser.run("document.body?.innerText") or ""))


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("task", ["load", "", HISTORY, COMPARISON])
def test_tables_are_tables_to_a_screen_reader(
    browser: Browser, server: ViewerServer, task: str, width: int
) -> None:
    """In a narrow window, too, where rows are drawn as blocks."""
    browser.set_window(width, 800)
    path = task if "/" in task else _path(server, task) if task else f"run/{DAG}/{RUN}"
    browser.go(f"{server.url}/payload-viewer/{path}")
    browser.call("Accessibility.enable")
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    roles = [node["role"]["value"] for node in nodes if not node.get("ignored")]
    rows = browser.run("document.querySelectorAll('table tr').length")

    assert roles.count("table") == browser.run("document.querySelectorAll('table').length")
    assert roles.count("row") == rows
    assert roles.count("rowheader") >= rows - roles.count("table")
    assert roles.count("cell") + roles.count("gridcell") > 5


def test_slice_of_an_array_is_chosen_by_its_number(browser: Browser, server: ViewerServer) -> None:
    """In Airflow's own frame, which may forbid forms."""
    _open_tab(browser, server, f"dags/{DAG}/runs/{RUN}/tasks/layers", shown="form")
    browser.run(f"{INSIDE}.querySelector('input[type=number]').setAttribute('value', 2)")
    browser.run(f"{INSIDE}.querySelector('form button').click()")

    browser.wait(lambda: "slice [ 2, :, : ]" in (browser.run(f"{INSIDE}?.body?.innerText") or ""))
    assert [said for said in browser.said if "Content Security" in said or "Blocked" in said] == []


def test_tab_of_a_task_shows_its_history(browser: Browser, server: ViewerServer) -> None:
    """Someone opens a task, clicks "XCom history", and compares the last two runs."""
    browser.go(f"{server.url}/dags/{DAG}/tasks/load")
    inside = "document.querySelector('iframe[title=\"XCom history\"]')?.contentDocument"
    tab = "[...document.querySelectorAll('a')].find((link) => link.textContent.trim() === 'XCom history')"
    browser.wait(lambda: browser.run(f"Boolean({tab})"))
    browser.run(f"{tab}.click()")
    browser.wait(lambda: browser.run(f"{inside}?.querySelectorAll('.figures svg').length") == 4)
    labels = browser.run(f"[...{inside}.querySelectorAll('.figures svg')].map((one) => one.ariaLabel)")
    assert labels[1] == "Columns over 29 runs: lowest 9, highest 10, last 10"
    assert browser.run(f"{inside}.querySelectorAll('svg .failed').length") == 4
    assert browser.run(f"{inside}.querySelectorAll('tbody tr').length") == 29

    browser.run(
        f"[...{inside}.querySelectorAll('tbody a')].find((one) => one.textContent === 'compare').click()"
    )
    browser.wait(lambda: "return_value in two runs" in (browser.run(f"{inside}?.body?.innerText") or ""))
    first = browser.run(f"{inside}.querySelector('tbody').innerText")
    assert "flight" in first
    assert "type changed" in first
    assert "double" in first
    assert "int64" in first
    assert [said for said in browser.said if "Content Security" in said or "Blocked" in said] == []


def test_two_runs_are_chosen_by_keyboard(browser: Browser, server: ViewerServer) -> None:
    """Key, number of runs, and both runs are fields of forms; Enter sends them."""
    browser.go(f"{server.url}/payload-viewer/{HISTORY}")
    browser.run("document.querySelector('select[name=first]').focus()")
    _press(browser, "ArrowDown", 40)
    chosen = browser.run("document.querySelector('select[name=first]').value")
    assert chosen == "scheduled__2026-10-30"
    browser.run("document.querySelector('form[action] button').focus()")
    _press(browser, "Enter", 13, text="\r")

    browser.wait(lambda: "in two runs" in (browser.run("document.body?.innerText") or ""))
    assert "scheduled__2026-10-30" in browser.run("document.querySelector('.runs').innerText")


def test_charts_are_dark_when_the_page_is(browser: Browser, server: ViewerServer) -> None:
    """Lines, bands of failed runs and the page behind them can be told apart in both schemes."""
    seen = {}
    for scheme in ("light", "dark"):
        browser.set_scheme(scheme)
        browser.go(f"{server.url}/payload-viewer/{HISTORY}")
        style = "(what, name) => getComputedStyle(document.querySelector(what))[name]"
        wanted = (("svg .failed", "fill"), ("svg path", "stroke"), ("body", "backgroundColor"))
        seen[scheme] = [browser.run(f"({style})('{what}', '{name}')") for what, name in wanted]

    assert len(set(seen["light"])) == len(set(seen["dark"])) == 3
    assert not set(seen["light"]) & set(seen["dark"])


def _path(server: ViewerServer, task: str, dag_id: str = DAG) -> str:
    return server.path(task, dag_id=dag_id, run_id=RUN)
