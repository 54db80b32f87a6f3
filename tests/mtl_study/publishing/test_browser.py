"""The pages in Chromium, without a network: what a reader sees of index.html and of every notebook.

Those in artifacts/smoke or artifacts/shipped, made again with the code of today; where there are none all notebooks are
run at smoke first.
"""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from filelock import FileLock
from playwright.sync_api import Browser, Page, sync_playwright

from mtl_study import artifacts
from mtl_study.look import LOOK
from mtl_study.paper import rules
from mtl_study.plots import explorer
from mtl_study.publishing import edition, notebooks, pages, reproduce
from mtl_study.publishing.rendering import table_anchor
from tests.mtl_study.publishing import crawl

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PHONE, DESK, PAPER = 390, 1280, 794  # widths; that of A4 at 96 pixels per inch
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium on this machine"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str, rendered: Callable[[Path], None]) -> Path:
    """The artifacts of one preset, made by the first of all workers that asks; the others wait for it."""
    base = tmp_path_factory.getbasetemp()
    place = (base if worker_id == "master" else base.parent) / "pages"
    with FileLock(f"{place}.lock"):
        if not place.exists():
            assert make_pages(place / "artifacts", rendered) == 0
    return next(path.parent for path in place.glob("artifacts/*/index.html"))


def make_pages(place: Path, rendered: Callable[[Path], None]) -> int:
    made, sources = artifacts.REPOSITORY / "artifacts", notebooks.find(artifacts.REPOSITORY / "notebooks")
    preset = next((name for name in ("smoke", "shipped") if (made / name / "index.html").exists()), "")
    if not preset:
        return reproduce.main(["--preset", "smoke", "--artifacts", str(place), "--store", str(place.parent / "store")])
    shutil.copytree(made / preset, place / preset)
    rendered(place / preset)
    pages.write_index(place / preset, preset, sources)
    return 0


@pytest.fixture(scope="module")
def all_pages(folder: Path) -> list[Path]:
    return [folder / "index.html", *sorted((folder / "notebooks").glob("*.html"))]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


def opened(browser: Browser, path: Path, width: int = DESK, **settings: str) -> Page:
    """A page, without a network."""
    page = browser.new_page(viewport={"width": width, "height": 900}, offline=True, **settings)
    page.goto(path.as_uri())
    return page


def listened(page: Page) -> list[tuple[str, str]]:
    """What goes wrong on a page from now on, and where: requests that leave or fail, errors that are said."""
    wrong: list[tuple[str, str]] = []
    page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else wrong.append((page.url, r.url)))
    page.on("requestfailed", lambda r: wrong.append((page.url, r.url)))
    page.on("console", lambda said: wrong.append((page.url, said.text)) if said.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append((page.url, str(error))))
    return wrong


def wait_for_pictures(page: Page) -> None:
    page.evaluate("document.querySelectorAll('img').forEach(image => image.loading = 'eager')")
    page.wait_for_function("[...document.images].every(image => image.complete && image.naturalWidth)")


def serious(page: Page) -> list[tuple[str, str]]:
    """What axe finds that is serious, with the first place of each, once colours that change slowly have changed."""
    page.evaluate("Promise.all(document.getAnimations().map(a => a.finished))")
    found = (
        Axe().run(page, options={"resultTypes": ["violations"], "preload": False}).response["violations"]
    )  # it would ask for the styles again
    return [(v["id"], v["nodes"][0]["html"][:150]) for v in found if v["impact"] in ("serious", "critical")]


def is_dark(page: Page) -> bool:
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    return max(paper[:3]) < 60


PICTURES = """() => [...document.images].filter(i => !i.getAttribute("width") || !i.getAttribute("height") || !i.alt
    || Math.abs(i.width / i.height - i.getAttribute("width") / i.getAttribute("height")) > 0.05)
    .map(i => i.outerHTML.slice(0, 200))"""
FORMULAS = """() => { const boxes = [...document.querySelectorAll("math")].map(m => m.getBoundingClientRect());
    const prose = document.querySelector("main").cloneNode(true);
    prose.querySelectorAll("pre, code, .highlight, script").forEach(e => e.remove());
    const empty = boxes.filter(b => b.width < 3 || b.height < 5).length;
    return [boxes.length, empty, prose.textContent.match(/\\$|\\\\[a-z]+/g)]; }"""
ANCHORS = """() => [...new Set([...document.querySelectorAll('a[href^="#"]')].map(link => link.hash))].map(hash => {
    const id = decodeURIComponent(hash.slice(1)), target = document.getElementById(id);
    if (!target) return [id, "nowhere"];
    target.scrollIntoView();  // as a browser does it, without a drawing for each
    const top = target.getBoundingClientRect().top, root = document.scrollingElement;
    const end = root.scrollTop + root.clientHeight >= root.scrollHeight - 2;
    return Math.abs(top) > 30 && !(end && top > 0) ? [id, top] : null; }).filter(off => off)"""


def test_no_request_leaves_and_no_error_is_said(browser: Browser, all_pages: list[Path]) -> None:
    page = browser.new_page(offline=True)
    wrong = listened(page)
    for path in all_pages:
        page.goto(path.as_uri())
        wait_for_pictures(page)
    assert wrong == []


def test_pictures_have_a_size_and_a_text(browser: Browser, all_pages: list[Path]) -> None:
    """And what was said is how they are drawn: a page does not move while it loads."""
    for path in all_pages:
        page = opened(browser, path)
        assert page.evaluate(PICTURES) == [], path.name
        if path.name == "index.html":
            assert page.evaluate("document.images.length") > 10
        page.close()


def test_formulas_are_drawn(browser: Browser, all_pages: list[Path]) -> None:
    formulas = 0
    for path in all_pages:
        page = opened(browser, path)
        drawn, empty, raw = page.evaluate(FORMULAS)
        assert (empty, raw) == (0, None), path.name
        formulas += drawn
        page.close()
    assert formulas > 300


def test_every_anchor_lands(browser: Browser, all_pages: list[Path]) -> None:
    """Within 30 pixels of the upper edge, or as near as the end of the page allows; also when the page opens there."""
    for path in all_pages:
        page = opened(browser, path)
        assert page.evaluate(ANCHORS) == [], path.name
        page.close()
    index = all_pages[0]
    ids = opened(browser, index).evaluate("[...document.querySelectorAll('figure[id], article[id]')].map(e => e.id)")
    for id_ in ids[:: max(1, len(ids) // 8)]:
        page = browser.new_page(offline=True)
        page.goto(f"{index.as_uri()}#{id_}", wait_until="load")
        page.wait_for_timeout(200)
        assert abs(page.evaluate("id => document.getElementById(id).getBoundingClientRect().top", id_)) < 30, id_
        page.close()


def test_every_internal_link_answers(browser: Browser, all_pages: list[Path]) -> None:
    ids, wanted = {}, set()
    for path in all_pages:
        page = opened(browser, path)
        found = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
        ids[path] = set(found)
        assert len(found) == len(ids[path]), (path.name, [one for one in ids[path] if found.count(one) > 1])
        addresses = page.eval_on_selector_all("a[href]", "all => all.map(a => a.href)")
        wanted |= {(path.name, link) for link in addresses if link.startswith("file:")}
        page.close()
    dead = []
    for source, link in sorted(wanted):
        parts = urlsplit(link)
        target, fragment = Path(unquote(parts.path)), unquote(parts.fragment)
        if not target.exists() or (fragment and fragment not in ids.get(target, set())):
            dead.append((source, link))
    assert len(wanted) > 100 and dead == []


def test_from_a_claim_everything_is_near_and_leads_back(browser: Browser, folder: Path) -> None:
    """Its rule is there; one link further are its figures, its cell and its records; figures and cell lead back."""
    page = opened(browser, folder / "index.html")
    script = """all => Object.fromEntries(all.map(e =>
        [e.id, [e.textContent, [...e.querySelectorAll("a")].map(a => a.href)]]))"""
    found = page.eval_on_selector_all("article[id], .card[id]", script)
    names = rules.figures()
    after = "all => all.map(e => [e.previousElementSibling.id, [...e.querySelectorAll('a')].map(a => a.hash)])"
    seen = 0
    for path in notebooks.find(artifacts.REPOSITORY / "notebooks"):
        judged = notebooks.judged(notebooks.read(path))
        if not judged:
            continue
        notebook = opened(browser, folder / "notebooks" / f"{path.stem}.html")
        back = dict(notebook.eval_on_selector_all(".results", after))
        for claim in json.loads((folder / "claims" / f"{path.stem}.json").read_text()):
            id_ = f"claim-{claim['id'].replace(' ', '-')}"
            text, addresses = found[id_]
            assert claim["rule"] in text, id_
            links = [urlsplit(link) for link in addresses]
            figures = [unquote(link.fragment) for link in links if link.path.endswith("index.html")]
            whole, cell = judged[claim["id"]]
            places = [name if name in found else table_anchor(name) for name in names[whole]]
            assert figures == [place for place in places if place in found], id_
            for figure in figures:
                assert id_ in {unquote(urlsplit(link).fragment) for link in found[figure][1]}, (id_, figure)
            (code,) = [link for link in links if link.path.endswith(f"{path.stem}.html")]
            assert unquote(code.fragment) == f"cell-id={cell}" and f"#{id_}" in back[f"cell-id={cell}"]
            (records,) = [Path(unquote(link.path)) for link in links if link.path.endswith(".json")]
            assert "records" in json.loads(records.read_text())
            seen += 1
        notebook.close()
    assert seen > 100


def test_from_every_sentence_everything_is_two_links_away(folder: Path) -> None:
    assert list(crawl.far_in_index((folder / "index.html").read_text(), folder)) == []


def test_axe_finds_nothing_serious(browser: Browser, all_pages: list[Path]) -> None:
    for path in all_pages:
        for scheme in ("light", "dark") if path.name == "index.html" else ("light",):
            page = opened(browser, path, color_scheme=scheme)
            assert serious(page) == [], (path.name, scheme)
            page.close()


def test_on_a_phone_nothing_is_wider_than_the_screen_and_the_verdict_comes_first(
    browser: Browser, all_pages: list[Path]
) -> None:
    for path in all_pages:
        page = opened(browser, path, PHONE)
        assert page.evaluate("document.scrollingElement.scrollWidth") <= PHONE, path.name
        page.close()
    page = opened(browser, all_pages[0], PHONE)
    per_cell = """() => {
        const rows = [...document.querySelectorAll(".numbers tbody tr")].filter(r => r.cells.length > 8);
        const sum = (all) => all.reduce((a, b) => a + b, 0);
        return sum(rows.map(r => r.offsetHeight)) / sum(rows.map(r => r.cells.length)); }"""
    assert page.evaluate(per_cell) < 18  # pixels: several numbers share a line
    script = """() => [...document.querySelectorAll("table.claims tbody tr")].filter(row => {
        const badge = row.querySelector(".badge").getBoundingClientRect(), id = row.cells[0].getBoundingClientRect();
        return badge.top > id.top || badge.right > innerWidth || badge.width < 20; }).length"""
    assert page.evaluate(script) == 0
    assert (
        page.evaluate(
            "[...document.querySelectorAll('.numbers')].filter(e => e.scrollWidth > e.clientWidth + 1).length"
        )
        == 0
    )


CUT = """() => [...document.querySelectorAll("table, pre, img, .scroll")].filter(e => e.offsetParent &&
    (e.getBoundingClientRect().right > innerWidth + 1 || e.matches("pre, table, .scroll") &&
     e.scrollWidth > e.clientWidth + 1)).map(e => e.outerHTML.slice(0, 150))"""  # what goes over the edge of a sheet


ALONE = """() => [...document.querySelectorAll(":is(h1, h2, h3, h4):last-child")].filter(heading => {
    for (let e = heading.parentElement; e.closest(".jp-MarkdownCell"); e = e.parentElement)
        if (getComputedStyle(e).display !== "block") return true;
}).map(heading => heading.textContent)"""  # ends a cell that a sheet may end with, since the cell is no plain block


def test_on_paper_no_table_is_cut_and_no_heading_is_alone(browser: Browser, all_pages: list[Path]) -> None:
    """Also for a reader whose screen is dark: paper is white."""
    for path in all_pages:
        page = opened(browser, path, PAPER - 2 * 48, color_scheme="dark")
        page.emulate_media(media="print", color_scheme="dark")
        assert page.evaluate(CUT) == page.evaluate(ALONE) == [], path.name
        assert page.evaluate("getComputedStyle(document.body).color").startswith(
            ("rgb(0", "rgb(1", "rgb(3", "rgba(0")
        ), path.name
        page.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_the_table_of_all_claims_sorts_and_filters(browser: Browser, all_pages: list[Path], width: int) -> None:
    page = opened(browser, all_pages[0], width)
    rows = "[...document.querySelectorAll('table.claims tbody tr')].filter(row => !row.hidden)"
    shown = rows + ".map(row => row.cells[{}].textContent)"
    before = page.evaluate(shown.format(0))
    page.click("table.claims th:nth-child(4) button")
    numbers = [float(n) for n in page.evaluate(shown.format(3)) if n[0].isdigit()]
    assert numbers == sorted(numbers) and len(set(numbers)) > 1
    page.click("table.claims th:nth-child(4) button")
    numbers = [float(n) for n in page.evaluate(shown.format(3)) if n[0].isdigit()]
    assert numbers == sorted(numbers, reverse=True)
    assert page.get_attribute("table.claims th:nth-child(4)", "aria-sort") == "descending"
    page.fill(".filters:has(+ table.claims) input", "QM9")
    found = page.evaluate(shown.format(0))
    assert 0 < len(found) < len(before)
    page.fill(".filters:has(+ table.claims) input", "")
    page.select_option(".filters select", index=1)
    assert len(set(page.evaluate(shown.format(4)))) == 1


def test_a_long_table_filters_and_what_is_below_a_number_sorts_as_it(browser: Browser, all_pages: list[Path]) -> None:
    page = opened(browser, all_pages[0])
    long, other = (page.locator(f'[id="{name}-table"]') for name in ("06_methods", "07_invariance"))
    rows = long.locator("tbody tr:not([hidden])")
    before = rows.count()
    long.locator(".filters input").fill("Kurin")
    assert 0 < rows.count() < before and not other.locator(".filters").count()
    heads = other.locator("thead th")
    sorted_by = []
    for place in range(1, heads.count() + 1):
        column = other.locator(f"tbody td:nth-child({place})")
        if any(text.strip().startswith("<") for text in column.all_text_contents()):
            heads.nth(place - 1).locator("button").click()
            numbers = [float(text.strip(" <")) for text in column.all_text_contents() if text.strip() != "–"]
            sorted_by.append(numbers)
            assert numbers == sorted(numbers)
    assert sorted_by and len(set(sorted_by[0])) > 1


# -- the explorer ------------------------------------------------------------------------------------------------------

RANKING = (
    "[...document.querySelectorAll('#explorer tbody tr')].map(row => [...row.cells].map(cell => cell.textContent))"
)
DRAWN = """[...document.querySelectorAll('#explorer g[data-smto]')].map(group => {
    const mark = group.querySelector('path[transform^=translate]');
    return [group.dataset.smto, mark && Number(mark.getAttribute('transform').match(/translate\\(([-\\d.e]+)/)[1]),
            mark && mark.getAttribute('fill')]; })"""


def explored(folder: Path) -> list[dict]:
    """What the notebooks left for the explorer."""
    return [
        one for path in sorted((folder / "explorer").glob("*.json")) for one in json.loads(path.read_text())["problems"]
    ]


def test_the_explorer_draws_what_python_left(browser: Browser, folder: Path) -> None:
    """For every problem and metric, at own rates and at one: the rows in their order, and the means on one scale."""
    page = opened(browser, folder / "index.html")
    left = explored(folder)
    assert left
    for problem in left:
        page.select_option("#explorer select >> nth=0", problem["problem"])
        for metric in problem["metrics"]:
            page.select_option("#explorer select >> nth=1", metric)
            for rates in (explorer.OWN, explorer.ONE_RATE):
                page.check(f"#explorer input[value={rates}]")
                rows = problem["rows"][rates][metric]
                where = (problem["problem"], metric, rates)
                assert page.evaluate(RANKING) == [row["cells"] for row in rows], where
                others = [row for row in rows if row["smto"] != "unit_scal"]
                drawn = page.evaluate(DRAWN)
                assert [smto for smto, *_ in drawn] == [row["smto"] for row in others], where
                known = [(row, at) for row, (_, at, _) in zip(others, drawn, strict=True) if row["mean"] is not None]
                if not known:
                    continue  # no method has runs at one rate
                (a, x), (b, y) = (choose(known, key=lambda one: one[0]["mean"]) for choose in (min, max))
                scale = (y - x) / (b["mean"] - a["mean"]) if a["mean"] != b["mean"] else 0.0
                assert [at for _, at in known] == pytest.approx(
                    [x + scale * (row["mean"] - a["mean"]) for row, _ in known], abs=0.01
                ), where
                for smto, at, colour in drawn:
                    assert at is None or colour == LOOK[smto].colour
                caption = page.locator("#explorer .caption:visible").inner_text()
                assert caption.startswith(explorer.CAPTIONS[rates])


def test_methods_are_chosen_by_the_keyboard_alone(browser: Browser, folder: Path) -> None:
    page = opened(browser, folder / "index.html")
    problem = explored(folder)[0]
    page.locator("#explorer select >> nth=0").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.value") == "delta_m"
    page.keyboard.press("ArrowDown")
    metric = list(problem["metrics"])[1]
    assert page.evaluate("document.activeElement.value") == metric
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    assert page.evaluate(RANKING) == [row["cells"] for row in problem["rows"][explorer.ONE_RATE][metric]]
    for _ in range(3):  # all, none, the first method
        page.keyboard.press("Tab")
    page.keyboard.press("Space")
    first = page.evaluate("document.activeElement.value")
    expected = [row["cells"] for row in problem["rows"][explorer.ONE_RATE][metric] if row["smto"] != first]
    assert page.evaluate(RANKING) == expected and len(page.evaluate(DRAWN)) == len(expected) - 1
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")  # none
    assert [cells[1] for cells in page.evaluate(RANKING)] == ["Unit. Scal."]
    assert "No method is chosen" in page.inner_text("#explorer .sheet")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")  # all
    assert len(page.evaluate(RANKING)) == len(problem["methods"])


def test_the_explorer_fits_and_says_what_smoke_decides(browser: Browser, folder: Path) -> None:
    for width, scheme in ((PHONE, "dark"), (DESK, "light"), (1920, "dark")):
        page = opened(browser, folder / "index.html", width, color_scheme=scheme)
        box = page.locator("#explorer svg[role=img]").bounding_box()
        assert box and box["x"] >= 0 and box["x"] + box["width"] <= width
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width
        page.close()
    said = opened(browser, folder / "index.html").inner_text("#explorer")
    assert ("decides nothing" in said) == (folder.name == artifacts.SMOKE)


# -- the edition and its search ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(folder: Path) -> Path:
    """The edition of these artifacts, made by the first of all workers that asks."""
    place = folder.parent / "site"
    with FileLock(f"{place}.lock"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("MTL_ARTIFACTS", str(folder.parent))
        if not place.exists():
            edition.write(folder.name)
    return place


def results(page: Page) -> list[list[str]]:
    return page.evaluate(
        "[...document.querySelectorAll('#found li')].map(item => [item.querySelector('a').getAttribute('href'),"
        " item.querySelector('a').textContent, item.querySelector('p').textContent])"
    )


def test_the_search_finds_all_kinds_of_pages_and_leads_there(browser: Browser, site: Path) -> None:
    """From any page, without a network; what is found is there, and says the words."""
    page = opened(browser, site / "docs" / "glossary.html")
    wrong = listened(page)
    page.fill(".search input", "gramian")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=gramian")
    rows = results(page)
    assert 10 < len(rows) <= 30 and "sections" in page.inner_text("#count")
    assert any(address.startswith("docs/glossary.html#gramian") for address, *_ in rows)
    for words, start in (
        ("Balancer backward", "api/mtl_core/balancer.html#Balancer.backward"),
        ("bisector of gradients", "docs/"),
        ("cheat sheet", "docs/cheat_sheet.html"),
        ("uniform loss", "notebooks/"),
        ("C12", "index.html#"),
        ("nash_mtl", "docs/method-nash-mtl.html"),
        ("grammian", "docs/"),  # misspelt
    ):
        page.fill(".search input", words)
        rows = results(page)
        assert any(address.startswith(start) for address, *_ in rows), (words, rows)
        assert page.evaluate("document.querySelectorAll('#found mark').length") > 0, words
        assert page.url.endswith("?q=" + words.replace(" ", "+"))
    for words in ("K=2", "device=cuda", "PRESET=quick"):
        page.fill(".search input", words)
        assert results(page) and page.evaluate("document.querySelectorAll('#found mark').length") > 1, words
    page.fill(".search input", "gramian zyzzyva")
    assert results(page) == [] and "No section has all of: gramian zyzzyva" in page.inner_text("#count")
    page.fill(".search input", "<img src=x onerror=alert(1)>")
    assert page.evaluate("document.querySelectorAll('#found img').length") == 0
    assert wrong == []


def test_the_search_is_used_by_the_keyboard_alone(browser: Browser, site: Path) -> None:
    page = opened(browser, site / "search.html")
    page.keyboard.type("famo")
    rows = results(page)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.getAttribute('href')") == rows[1][0]
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.name") == "q"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.name") == "q"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/{rows[0][0]}")


def test_the_api_keeps_a_search_of_its_own(browser: Browser, site: Path) -> None:
    page = opened(browser, site / "api" / "mtl_core" / "balancer.html")
    page.fill(".pdoc input[type=search]", "backward")
    page.wait_for_selector(".search-result")
    assert page.get_attribute("nav.pdoc a >> nth=1", "href") == "../../search.html"


def dead(page: Page, texts: dict[Path, str]) -> list[str]:
    """The links of a page that do not answer: no such file, or no such place in it. texts: of files, once read."""
    found = []
    for link in page.eval_on_selector_all("a[href]", "all => all.map(a => a.href)"):
        parts = urlsplit(link)
        target, id_ = Path(unquote(parts.path)), unquote(parts.fragment)
        if parts.scheme != "file" or (target.is_file() and (not id_ or id_.startswith("/"))):  # "/2": a slide
            continue
        if target.is_file() and target not in texts:
            texts[target] = target.read_text(encoding="utf-8")
        if f'id="{id_}"' not in texts.get(target, ""):
            found.append(link)
    return found


@pytest.mark.parametrize("part", ["*.html", "notebooks/*.html", "docs/*.html", "api/**/*.html", "slides/index.html"])
def test_every_page_of_the_edition_is_sound(browser: Browser, site: Path, part: str) -> None:
    """Without a network: nothing is asked of one, no error is said, pictures and formulas are drawn, every anchor
    lands, every link answers, axe finds nothing serious in the light or in the dark, and a phone is wide enough."""
    page, texts = browser.new_page(offline=True), dict[Path, str]()
    leads_on = site / "api" / "index.html"  # to the first page of the API
    wrong, paths = listened(page), sorted({*site.glob(part)} - {leads_on})
    assert paths
    for path in paths:
        name = str(path.relative_to(site))
        page.set_viewport_size({"width": DESK, "height": 900})
        page.emulate_media(media="screen")
        page.goto(path.as_uri() + ("?q=gramian" if name == "search.html" else ""))
        wait_for_pictures(page)
        assert page.evaluate(PICTURES) == [], name
        assert page.evaluate(FORMULAS)[1:] == [0, None], name
        assert page.evaluate(ANCHORS) == [], name
        assert dead(page, texts) == [], name
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert is_dark(page) == (scheme == "dark"), name
            assert serious(page) == [], (name, scheme)
        page.set_viewport_size({"width": PHONE, "height": 900})
        assert page.evaluate("document.scrollingElement.scrollWidth") <= PHONE, name
        page.set_viewport_size({"width": PAPER - 2 * 48, "height": 900})
        page.emulate_media(media="print")
        assert not page.locator(".search:visible").count(), name
        assert page.evaluate(CUT) == [], name
    assert wrong == []


SLIDE = """() => { const slide = Reveal.getCurrentSlide(), box = slide.getBoundingClientRect();
    const out = [...slide.querySelectorAll("*")].filter(e => { const b = e.getBoundingClientRect();
        return b.width && (b.left < box.left - 1 || b.right > box.right + 1 || b.bottom > box.bottom - 20); });
    const prose = slide.cloneNode(true);
    prose.querySelectorAll("pre, code").forEach(e => e.remove());
    const maths = [...slide.querySelectorAll("math")].map(m => m.getBoundingClientRect());
    const pictures = [...slide.querySelectorAll("img")], images = pictures.map(i => i.getBoundingClientRect());
    return { out: out.map(e => e.outerHTML.slice(0, 80)), size: parseFloat(getComputedStyle(slide).fontSize),
        raw: prose.textContent.match(/\\$|\\\\[a-z]+/g), empty: maths.filter(b => b.width < 3 || b.height < 5).length,
        unsized: pictures.filter(i => !i.getAttribute("width") || !i.getAttribute("height")).length,
        formulas: maths.length, heights: images.map(b => b.height), text: slide.innerText.trim() }; }"""


def test_every_slide_fits_and_no_request_leaves(browser: Browser, site: Path) -> None:
    """At 1280 × 720 nothing is cut off and nothing is too small to be read, pictures and formulas are drawn, links
    answer, and a dark screen gets dark slides."""
    page, texts = browser.new_page(viewport={"width": 1280, "height": 720}, offline=True), dict[Path, str]()
    wrong, formulas, pictures = listened(page), 0, 0
    for path in sorted({*site.glob("slides/*.html")} - {site / "slides" / "index.html"}):
        name = path.name
        page.goto(path.as_uri())
        page.wait_for_function("Reveal.isReady() && [...document.images].every(i => i.complete && i.naturalWidth)")
        assert dead(page, texts) == [], name
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert is_dark(page) == (scheme == "dark"), name
            assert serious(page) == [], (name, scheme)
        for h, v in page.evaluate("Reveal.getSlides().map(s => Reveal.getIndices(s)).map(at => [at.h, at.v || 0])"):
            page.evaluate("([h, v]) => Reveal.slide(h, v, 99)", [h, v])
            slide = page.evaluate(SLIDE)
            assert (slide["out"], slide["raw"], slide["empty"], slide["unsized"]) == ([], None, 0, 0), (name, h, v)
            assert slide["size"] >= 18 and slide["text"], (name, h, v, slide["size"])
            assert all(height >= 250 for height in slide["heights"]), (name, h, v, slide["heights"])
            formulas, pictures = formulas + slide["formulas"], pictures + len(slide["heights"])
    assert wrong == []
    assert formulas > 100 and pictures > 40


def test_slides_fit_a_phone(browser: Browser, site: Path) -> None:
    """Held upright they are upright: nothing is cut off, wide tables and formulas scroll, and text is as large as on a
    page."""
    page, sizes = browser.new_page(viewport={"width": 390, "height": 844}, offline=True), list[float]()
    for path in sorted({*site.glob("slides/*.html")} - {site / "slides" / "index.html"}):
        page.goto(path.as_uri())
        page.wait_for_function("Reveal.isReady() && [...document.images].every(i => i.complete && i.naturalWidth)")
        assert not page.evaluate("Reveal.isScrollView()")
        scale = page.evaluate("Reveal.getScale()")
        for h, v in page.evaluate("Reveal.getSlides().map(s => Reveal.getIndices(s)).map(at => [at.h, at.v || 0])"):
            page.evaluate("([h, v]) => Reveal.slide(h, v, 99)", [h, v])
            slide = page.evaluate(SLIDE.replace('"*"', '":not(:is(table, .formula) *)"'))
            assert slide["out"] == [] and slide["size"] * scale > 9, (path.name, h, v)
            sizes.append(slide["size"] * scale)
    assert statistics.median(sizes) > 14
