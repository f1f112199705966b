"""Notebooks 50 and 51 in JupyterLab under Chromium, operated as a user operates them."""

import json
import re

import pytest
from screens import Notebook, free_port, put, screenshot, server


@pytest.fixture(scope="module")
def browser_notebook(chromium, lab, served):
    notebook = Notebook(chromium, lab, put("50_ranking_browser", served, profile="smoke"))
    notebook.run_all(3000)
    notebook.page.wait_for_selector(".reid-card.reid-query")
    return notebook


def gallery(page):
    return page.locator(".reid-card:not(.reid-query):visible")


def summary(page) -> str:
    return page.locator(".reid-browser .reid-note").filter(has_text="Query").first.inner_text()


def wait_for_summary(page, text: str) -> None:
    page.locator(".reid-browser .reid-note").filter(has_text=text).first.wait_for()


def slider(page, description: str):
    row = page.locator(".reid-browser .widget-slider").filter(has_text=description)
    return row.locator(".noUi-handle")


def ranks(page) -> list[str]:
    return [text.splitlines()[0] for text in gallery(page).locator(".reid-caption").all_inner_texts()]


def test_all_cells_run_and_the_browser_displays_a_list(browser_notebook):
    page = browser_notebook.page
    browser_notebook.check_sound()
    # JupyterLab hides cells outside the window, and scrolls to the last one while it runs all.
    page.wait_for_function(
        "() => { document.querySelector('.reid-browser').scrollIntoView();"
        " const captions = [...document.querySelectorAll('.reid-card .reid-caption')];"
        " return captions.length == 11 && captions.every(caption => caption.innerText)"
        " && [...document.querySelectorAll('.reid-card img')].every(image => image.naturalWidth > 0) }"
    )
    assert gallery(page).count() == 10
    assert ranks(page) == [f"rank {rank}" for rank in range(1, 11)]
    assert "Query 1 of" in summary(page)
    assert "lowest average precision first" in summary(page)
    pictures = page.locator(".reid-card img")
    sources = pictures.evaluate_all("images => images.map(image => image.src.slice(0, 5))")
    assert set(sources) == {"blob:"}  # object URLs, not long base64 texts
    browser_notebook.picture("50-browser", ".reid-browser")


def test_another_query(browser_notebook):
    page = browser_notebook.page
    before = page.locator(".reid-query .reid-caption").inner_text()
    page.get_by_role("button", name="next ▶").click()
    wait_for_summary(page, "Query 2 of")
    assert page.locator(".reid-query .reid-caption").inner_text() != before
    order = page.locator(".reid-browser .widget-dropdown").filter(has_text="query order").locator("select")
    order.select_option(label="random (same every time)")
    wait_for_summary(page, "random (same")
    number = page.locator(".reid-browser input[type=number]").first
    order.select_option(label="as in the benchmark")
    wait_for_summary(page, "as in the benchmark")
    number.fill("3")
    number.press("Enter")
    wait_for_summary(page, "Query 4 of")
    assert page.locator(".reid-query .reid-caption").inner_text().startswith("query 3")
    browser_notebook.check_sound()


def test_more_images(browser_notebook):
    page = browser_notebook.page
    handle = slider(page, "images shown")
    handle.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    wait_for_summary(page, "13 of")
    assert gallery(page).count() == 13
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    wait_for_summary(page, " 10 of")
    assert gallery(page).count() == 10
    browser_notebook.check_sound()


def test_filters_by_camera_and_by_person(browser_notebook):
    page = browser_notebook.page
    cameras = page.locator(".reid-browser select[multiple]")
    cameras.select_option(label="2")
    page.wait_for_function(
        "() => [...document.querySelectorAll('.reid-card:not(.reid-query) .reid-caption')]"
        ".every(caption => /\\bc2\\b/.test(caption.innerText))"
    )
    person = page.locator(".reid-browser .widget-text").filter(has_text="gallery persons").locator("input")
    person.fill("99999")
    person.press("Enter")
    message = page.locator(".reid-message")
    message.wait_for()
    assert "got none of camera 2 and person 99999; relax the filters" in message.inner_text()
    browser_notebook.picture("50-empty-filter", ".reid-browser")
    person.fill("")
    person.press("Enter")
    cameras.select_option([])
    message.wait_for(state="detached")
    assert gallery(page).count() == 10
    browser_notebook.check_sound()


def test_re_ranking_shows_rank_gains(browser_notebook):
    page = browser_notebook.page
    page.locator(".reid-browser label").filter(has_text="re-rank").click()
    wait_for_summary(page, "re-ranked by k-reciprocal neighbours. ▲ ▼")
    assert all(re.fullmatch(r"rank \d+ (=|[▲▼]\d+)", text) for text in ranks(page))
    browser_notebook.picture("50-re-ranked", ".reid-browser")
    page.locator(".reid-browser label").filter(has_text="re-rank").click()
    wait_for_summary(page, "Euclidean distance. Numbers")
    browser_notebook.check_sound()


def test_part_attention_by_mouse_and_by_keyboard(browser_notebook):
    page = browser_notebook.page
    picture = page.locator(".reid-comparison img")
    gallery(page).nth(1).locator(".reid-pick").click()
    picture.wait_for()
    first = picture.get_attribute("src")
    assert gallery(page).nth(1).evaluate("card => card.classList.contains('reid-selected')")
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 300
    # Tab moves the focus to the next image, and Enter selects it.
    gallery(page).nth(1).locator(".reid-pick").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_function(
        "before => document.querySelector('.reid-comparison img').src !== before", arg=first
    )
    assert gallery(page).nth(2).evaluate("card => card.classList.contains('reid-selected')")
    browser_notebook.picture("50-part-attention", ".reid-comparison")
    browser_notebook.check_sound()


def test_another_run_can_be_opened_by_keyboard(browser_notebook):
    page = browser_notebook.page
    panel = page.get_by_role("button", name=re.compile("^Run: jlml-smoke"))
    panel.focus()
    assert panel.evaluate("button => getComputedStyle(button).outlineWidth") == "3px"
    load = page.locator(".reid-load")
    assert not load.is_visible()
    page.keyboard.press("Enter")
    load.wait_for()
    page.locator(".reid-browser .widget-text").filter(has_text="or run folder").locator("input").fill(
        "nowhere"
    )
    load.focus()
    page.keyboard.press("Enter")
    message = page.locator(".reid-message").filter(has_text="a run's folder holds config.json")
    message.wait_for()
    assert "nowhere" in message.inner_text()
    page.locator(".reid-browser .widget-text").filter(has_text="or run folder").locator("input").fill("")
    panel.focus()
    page.keyboard.press("Enter")
    load.wait_for(state="hidden")
    browser_notebook.check_sound()


def test_views_are_saved(browser_notebook, home):
    page = browser_notebook.page
    page.get_by_role("button", name="save picture (PNG)").click()
    page.locator(".reid-note").filter(has_text=".png").wait_for()
    page.get_by_role("button", name="save list (CSV)").click()
    page.locator(".reid-note").filter(has_text=".csv").wait_for()
    saved = sorted(path.suffix for path in (home / "explored" / "50_ranking_browser").glob("query3-*"))
    assert saved == [".csv", ".png"]
    browser_notebook.check_sound()


def test_part_attention_notebook(chromium, lab, served, home):
    notebook = Notebook(chromium, lab, put("51_part_attention", served, profile="smoke"))
    content = notebook.run_all(3000)
    notebook.check_sound()
    result = json.loads((home / "explored" / "51_part_attention" / "result.json").read_text())
    outputs = [output for cell in content["cells"] for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if {"image/png", "image/jpeg"} & output.get("data", {}).keys()]
    assert len(pictures) == len(result["figures"]) >= 8
    notebook.picture("51-part-attention")


def test_voila_serves_the_browser_as_a_page(chromium, browser_notebook, home, served):
    port = free_port()
    settings = [str(served / "50_ranking_browser.ipynb"), "--no-browser", f"--port={port}"]
    address = f"http://127.0.0.1:{port}/"
    page = chromium.new_page()
    with server(["voila", *settings], home, f"{address}voila/static/voila.js", home / "voila.log"):
        page.goto(address, timeout=600_000)
        page.wait_for_selector(".reid-card.reid-query", timeout=600_000)
        page.get_by_role("button", name="next ▶").click()
        wait_for_summary(page, "Query 2 of")
        screenshot(page, "50-voila")
    page.close()
