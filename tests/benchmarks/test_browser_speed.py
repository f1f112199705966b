"""How long a turned control takes to show in a real JupyterLab, at Market-1501's size.

Run with: pytest tests/benchmarks/test_browser_speed.py -s
Takes a minute, Chromium, two cores and 2 GB. Features are random, as long as Pyramid's; the images are the
embedded benchmark's, a few files for all of them, each under a name of its own.
"""

from math import inf
from statistics import median

import nbformat
import pytest
from screens import CHROMIUM, WITHOUT_CHROMIUM, Notebook, chromium, home, lab, served  # noqa: F401 (fixtures)

CELL = """
import os
from pathlib import Path
import numpy as np, torch
from reidlib import files
from reidlib.visual.browser import RankingBrowser
from reidlib.visual.browser.collection import BenchmarkFeatures
from reidlib.data.synthetic.render import render
from reidlib.models.pyramid import Pyramid
from reidlib.ranking.metrics import Embeddings

torch.set_num_threads(2)
QUERIES, GALLERY, PERSONS = 3368, 19732, 750
generator = torch.Generator().manual_seed(0)
persons = torch.randint(1, PERSONS + 1, (QUERIES + GALLERY,), generator=generator)
model = Pyramid(751, trunk="resnet50")
parts = model.feature_parts(384)
length = model.branches["full"].stop
features = torch.randn(PERSONS + 1, length, generator=generator)[persons]
features += 2 * torch.randn(features.shape, generator=generator)
cameras = torch.randint(1, 7, persons.shape, generator=generator)
root = render("smoke", files.data() / "synthetic-smoke", progress=False)
rendered = sorted((root / "query").glob("*.jpg"))
folder = Path("many")
folder.mkdir(exist_ok=True)
paths = []
for index in range(QUERIES + GALLERY):
    path = folder / f"{index:05d}.jpg"
    if not path.exists():
        os.link(rendered[index % len(rendered)], path)
    paths.append(path)
sides = [
    Embeddings(features[side], persons[side].numpy(), cameras[side].numpy())
    for side in (slice(QUERIES), slice(QUERIES, None))
]
made = BenchmarkFeatures(
    "Market-1501's size", *sides, tuple(paths[:QUERIES]), tuple(paths[QUERIES:]), parts, dict(model.branches),
    (384, 128), np.zeros(QUERIES),
)
browser = RankingBrowser(collection=made, out="out")
browser.order, browser.top = "random", 20
browser
"""
# Turns re-ranked and with cosine distance; with Euclidean distance there are twice as many.
PAUSE, TURNS, MILLISECONDS = 1000, 10, 300
SMALL = {
    "CELL": CELL.replace("PERSONS = 3368, 19732, 750", "PERSONS = 60, 300, 20"),
    "PAUSE": 50,
    "TURNS": 1,
    "MILLISECONDS": inf,
}
# From a press of the button to the picture of the new query with all of its list: captions and images.
TURN = """
(words) => new Promise(done => {
  const root = document.querySelector('.reid-browser');
  const begin = performance.now();
  const look = () => {
    const told = [...root.querySelectorAll('.reid-note')].some(note => note.innerText.includes(words));
    const images = [...root.querySelectorAll('.reid-card img')];
    const there = images.length == 21 && images.every(image => image.complete && image.naturalWidth);
    if (told && there) requestAnimationFrame(() => done(performance.now() - begin));
    else setTimeout(look, 2);
  };
  [...root.querySelectorAll('button')].find(button => button.innerText.includes('next')).click();
  look();
})
"""


@pytest.mark.skipif(CHROMIUM is None, reason=WITHOUT_CHROMIUM)
def test_another_query_shows_within_300_milliseconds(chromium, lab, served):  # noqa: F811
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)], metadata=kernel)
    nbformat.write(notebook, served / "many.ipynb")
    opened = Notebook(chromium, lab, "many.ipynb")
    opened.run_all(300)
    opened.check_sound()
    page = opened.page
    page.wait_for_function("() => document.querySelectorAll('.reid-card img').length == 21")
    page.wait_for_timeout(2 * PAUSE)
    durations = [page.evaluate(TURN, f"Query {number} of") for number in range(2, 2 * TURNS + 2)]
    page.locator(".reid-browser label").filter(has_text="re-rank").click()
    page.locator(".reid-note").filter(has_text="▲ ▼").wait_for(timeout=300_000)
    page.wait_for_timeout(PAUSE)
    again = [page.evaluate(TURN, f"Query {number} of") for number in range(2 * TURNS + 2, 3 * TURNS + 2)]
    page.locator(".reid-browser label").filter(has_text="re-rank").click()
    page.wait_for_timeout(PAUSE)
    distance = page.locator(".reid-browser .widget-dropdown").filter(has_text="distance").locator("select")
    distance.select_option(label="cosine")
    page.wait_for_timeout(3 * PAUSE)
    cosine = [page.evaluate(TURN, f"Query {number} of") for number in range(3 * TURNS + 2, 4 * TURNS + 2)]
    opened.check_sound()
    print("\n3,368 queries, 19,732 gallery images, 2,688 numbers a feature, 20 images a list, in JupyterLab:")
    for name, times in (("Euclidean", durations), ("re-ranked", again), ("cosine", cosine)):
        print(f"{name:10} another query: {median(times):4.0f} ms in the median, {max(times):4.0f} at most")
    assert median(durations) <= MILLISECONDS
    assert median(again) <= MILLISECONDS
    assert median(cosine) <= MILLISECONDS
