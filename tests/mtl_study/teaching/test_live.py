"""What is live: the port of the methods gives what the package gives, and the playground and the player work without a
kernel and without a network, by mouse and by keys."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from axe_playwright_python.sync_playwright import Axe
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from numpy.testing import assert_allclose
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from mtl_core import smtos
from mtl_study.look import label
from mtl_study.plots import canvas, start_here
from mtl_study.publishing.rendering import to_html
from mtl_study.teaching import grid, landscape, live, two_tasks
from mtl_study.teaching.playground import LEFT_OUT, player, playground, ported
from mtl_study.teaching.toys import Pair, weigh

NODE = shutil.which("node")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_node = pytest.mark.skipif(not NODE, reason="there is no node on this machine to run the module outside a browser")
PAIR, SHOWN = Pair(120, 4), ["unit_scal", "si", "pcgrad", "cagrad", "edm"]
EDGES = [  # gradients of two tasks
    [[1, 0], [1, 0]], [[1, 0], [0, 1]], [[1, 0], [-1, 0]], [[2, 0], [-1, 0]], [[3, 0], [1, 0]], [[0, 0], [1, 2]],
    [[1, 2], [0, 0]], [[0, 0], [0, 0]], [[1, 0], [1e-13, 0]], [[1, 0], [1, 1]],
]  # fmt: skip


def by_node(folder: Path, script: str, given: Any) -> Any:
    """What a script makes of `given`, with all that the module has."""
    (folder / "module.mjs").write_text(live.module(), encoding="utf-8")
    program = 'import { readFileSync } from "node:fs";\nimport * as all from "./module.mjs";\n'
    program += f"const given = JSON.parse(readFileSync(0));\nconsole.log(JSON.stringify(({script})(given, all)));\n"
    (folder / "program.mjs").write_text(program)
    assert NODE
    done = subprocess.run([NODE, "program.mjs"], cwd=folder, input=json.dumps(given), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# -- the port ----------------------------------------------------------------------------------------------------------


def test_every_method_is_ported_or_named_with_a_reason():
    """Whoever adds a method is told here."""
    table = live.text("weights.js").partition("export const METHODS = {")[2].partition("\n};")[0]
    found = set(re.findall(r"^  (\w+): ", table, re.MULTILINE))
    missing = set(smtos.keys()) - found - set(LEFT_OUT)
    assert not missing, (
        f"{', '.join(sorted(missing))}: write it into METHODS of mtl_study/teaching/browser/weights.js, or say in "
        "LEFT_OUT of mtl_study/teaching/playground.py why the playground cannot have it."
    )
    assert found == set(ported()), "a method is in METHODS of weights.js and in LEFT_OUT, or in no registry"
    assert set(LEFT_OUT) <= set(smtos.keys())


def asked(key: str, gramian: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """A fresh method's weights; CDTT's at its eleventh step, after ten with these gradients."""
    smto = smtos.build(key, 2)
    if key == "cdtt":
        smto.window = [np.sqrt(gramian.diagonal()).tolist()] * 10
    return weigh(smto, gramian, losses)


@needs_node
def test_the_port_gives_what_the_package_gives(tmp_path):
    """On 1,000 random Gramians per method, and where gradients are equal, opposite or none. Angles from 1 to 179
    degrees: beyond, the package's own weights are known to fewer digits. Lengths and losses over decades."""
    rng = np.random.default_rng(0)
    cases: dict[str, list[tuple[list, list]]] = {}
    for key in ported():
        angles, losses = rng.uniform(1, 179, 1000), 10 ** rng.uniform(-2, 2, (1000 + len(EDGES), 2))
        units = np.stack([np.stack([np.ones(1000), 0 * angles]), [np.cos(t := np.deg2rad(angles)), np.sin(t)]])
        drawn = units.transpose(2, 0, 1) * 10 ** rng.uniform(-3, 3, (1000, 2, 1))
        gradients = [*drawn, *np.array(EDGES, dtype=float)]
        cases[key] = [((g @ g.T).tolist(), L.tolist()) for g, L in zip(gradients, losses, strict=True)]
    script = """(cases, all) => Object.fromEntries(Object.entries(cases).map(
        ([key, found]) => [key, found.map(([G, L]) => all.solve(key, G, L))]))"""
    theirs = by_node(tmp_path, script, cases)
    for key, found in cases.items():
        ours = np.array([asked(key, np.array(G), np.array(L)) for G, L in found])
        scale = np.abs(ours).max(axis=1, keepdims=True)
        scale[scale == 0] = 1
        assert_allclose(np.array(theirs[key]) / scale, ours / scale, rtol=0, atol=1e-10, err_msg=key)


@needs_node
def test_what_the_table_says_holds(tmp_path):
    """Whose loss rises, as under every figure; in the cone: no weight below 0; on the shortest: the update of MGDA
    without scaling, up to its length."""
    rng = np.random.default_rng(1)
    pairs = [Pair(float(rng.uniform(5, 175)), float(2 ** rng.uniform(-3, 3))) for _ in range(50)] + [Pair(100, 1)]
    script = """(pairs, all) => pairs.map(([key, g]) => all.verdict(key, g, [1, 1]))"""
    for key in ("unit_scal", "edm", "cagrad", "mgda", "upgrad"):
        found = by_node(tmp_path, script, [(key, pair.gradients.tolist()) for pair in pairs])
        for pair, said in zip(pairs, found, strict=True):
            weights = asked(key, pair.gramian, np.ones(2))
            raised = ", ".join(str(k + 1) for k, rises in enumerate(said["rises"]) if rises)
            assert raised == start_here.made_worse(pair, weights)
            assert said["inCone"] == bool((weights >= 0).all())
            update = weights @ pair.gradients
            least = asked_unscaled(pair) @ pair.gradients
            cosine = update @ least / np.linalg.norm(update) / np.linalg.norm(least)
            assert said["shortest"] == bool(cosine > 1 - 1e-9)
        assert any(said["shortest"] for said in found)


def asked_unscaled(pair: Pair) -> np.ndarray:
    return weigh(smtos.build("mgda", 2, normalize="none"), pair.gramian, pair.losses)


@needs_node
def test_the_landscape_and_the_walks_are_those_of_python(tmp_path):
    """Losses and gradients to rounding. Walks under Adam for 150 steps; later some cross a valley, and from (0, 0) the
    gradients are opposite: there the last digit decides, in Python as in the browser."""
    points = np.random.default_rng(2).uniform(-10, 10, (200, 2))
    script = "(points, all) => points.map((x) => all.parts(x)).map(({ losses, gradients }) => [losses, gradients])"
    losses, gradients = zip(*by_node(tmp_path, script, points.tolist()), strict=True)
    assert_allclose(losses, landscape.losses(points), rtol=1e-12, atol=1e-12)
    assert_allclose(gradients, landscape.gradients(points), rtol=1e-9, atol=1e-12)

    options = {"mgda": {"normalize": "none"}, "pcgrad": {"order": "index"}}

    def of_package(key: str) -> two_tasks.Method:
        smto = smtos.build(key, 2, **options.get(key, {}))
        return lambda G: np.stack([weigh(smto, g @ g.T, np.ones(2)) for g in G])

    begun = player(["edm"], 0.9, 0.005, 150).setup
    goals = {weight: goal for weight, goal in begun["goals"]}
    rows = [("adam", m["key"], 0.005, s, w) for m in begun["methods"] for s in (0, 2, 4) for w in (0.5, 0.9)]
    plan = pd.DataFrame(rows, columns=[*landscape.PLAN, "weight"])
    methods = {m["key"]: of_package(m["key"]) for m in begun["methods"]}
    ends = landscape.walk(plan, 150, "float64", grid.STARTS, methods=methods).paths[-1]
    walks = [
        {"key": r.method, "start": grid.STARTS[r.start], "optimizer": "adam", "rate": r.lr,
         "factors": [r.weight, 1 - r.weight], "goal": goals[r.weight]}
        for r in plan.itertuples()
    ]  # fmt: skip
    script = """(walks, all) => walks.map((given) => { const walk = new all.Walk(given);
        for (let n = 0; n < 150; n++) walk.step(); return walk.at; })"""
    assert_allclose(by_node(tmp_path, script, walks), ends, rtol=0, atol=1e-8)


# -- outputs and pages -------------------------------------------------------------------------------------------------


def shown(*lives: live.Live) -> str:
    """A page that shows each of these once."""
    cells = [new_markdown_cell("# Live")]
    for one in lives:
        figure = canvas.figure_of(start_here.one_pair(PAIR, SHOWN))
        output = new_output("display_data", data=live.bundle(figure, one))
        plt.close(figure)
        cells += [new_markdown_cell(f"## {one.kind}"), new_code_cell("show(…)", outputs=[output])]
    return to_html(new_notebook(cells=cells), "00_live")


def test_without_a_reader_there_is_a_picture_and_no_widget():
    figure = canvas.figure_of(start_here.one_pair(PAIR, SHOWN))
    bundle = live.bundle(figure, playground(PAIR, SHOWN))
    assert set(bundle) == {"image/png", "text/plain", live.MIME}
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    json.dumps(bundle[live.MIME])


def test_a_page_has_the_module_once_and_only_where_something_is_live():
    page = shown(playground(PAIR, SHOWN), player(["edm"], 0.9, 0.005, 100))
    assert page.count("export function playground") == 1 and page.count("data-live=") == 2
    assert "</script" not in live.module() and not re.search(r"^import ", live.module(), re.MULTILINE)
    assert "data-live=" not in to_html(new_notebook(cells=[new_markdown_cell("# None")]), "00_none")


def test_the_widget_has_the_module_and_what_it_begins_with():
    made = live.widget(playground(PAIR, SHOWN))
    state = made.get_state(["kind", "setup", "_esm", "_css"])
    assert state["kind"] == "playground" and state["setup"]["shown"] == SHOWN
    assert state["_esm"] == live.module() and ".mtl-live" in state["_css"]
    made.close()


# -- in a browser ------------------------------------------------------------------------------------------------------

in_browser = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium on this machine"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("live") / "page.html"
    path.write_text(shown(playground(PAIR, SHOWN), player(["unit_scal", "mgda"], 0.9, 0.1, 3000)), encoding="utf-8")
    return path.as_uri()


def opened(browser: Browser, address: str, width: int = 1280, **settings: Any) -> Page:
    """The page, without a network; an error is one of the test."""
    page = browser.new_page(viewport={"width": width, "height": 900}, offline=True, **settings)
    page.on("pageerror", lambda error: pytest.fail(str(error)))
    page.goto(address)
    return page


def row(page: Page, key: str) -> list[str]:
    return page.locator(f"tr[data-key={key}]").first.locator("td").all_text_contents()


def middle(drawn: Locator) -> tuple[float, float]:
    box = drawn.bounding_box()
    assert box
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


class TestBrowser:
    pytestmark = in_browser

    def test_arrow_keys_and_mouse_move_the_tips_and_the_table_follows(self, browser, address):
        page = opened(browser, address)
        assert row(page, "unit_scal") == ["0.50", "0.50", "L₂ rises", "yes", "no"]
        assert row(page, "edm")[:3] == ["0.20", "0.80", "none rises"]
        first = page.get_by_role("slider", name="Tip of −g₁")
        first.focus()
        before = first.get_attribute("aria-valuetext")
        for _ in range(4):
            page.keyboard.press("Shift+ArrowRight")  # to the side of −g₂: no conflict is left
        assert first.get_attribute("aria-valuetext") != before
        assert row(page, "unit_scal")[2] == "none rises"
        page.get_by_role("button", name="back to the start").first.click()
        assert first.get_attribute("aria-valuetext") == before
        x, y = middle(first)
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 150, y, steps=5)
        page.mouse.up()
        assert row(page, "unit_scal")[2] == "none rises"
        page.close()

    def test_the_playground_draws_what_the_table_says(self, browser, address):
        """All arrows downhill, as the package has them; shaded is where no loss rises; ◆ is the shortest mixture."""
        page = opened(browser, address)
        found = page.evaluate("""() => {
            const all = (what) => [...document.querySelectorAll(what)], good = document.querySelector(".good");
            const place = (e) => { const { e: x, f: y } = e.transform.baseVal[0].matrix; return [x, -y]; };
            const tip = (arrow) => place(arrow.querySelector("path"));
            const end = ({ x2, y2 }) => [x2.baseVal.value, -y2.baseVal.value];
            const inside = ([x, y]) => good.isPointInFill(new DOMPoint(x, -y));
            const steps = all(".plane .step").map((arrow, i) => [all("tr[data-key]")[i], arrow]);
            const told = ([row, arrow]) => [row.dataset.key, {
                tip: tip(arrow), shaft: end(arrow.querySelector("line")), inside: inside(tip(arrow)),
                drawn: arrow.style.display !== "none", label: row.querySelector("th").textContent }];
            return { tasks: all(".plane .task").map(tip), nearest: place(document.querySelector(".nearest")),
                steps: Object.fromEntries(steps.map(told)) }; }""")
        assert_allclose(found["tasks"], -PAIR.gradients, atol=1e-5)
        assert_allclose(found["nearest"], -asked_unscaled(PAIR) @ PAIR.gradients, atol=1e-5)
        assert list(found["steps"]) == ported()
        for key, drawn in found["steps"].items():
            update = asked(key, PAIR.gramian, PAIR.losses) @ PAIR.gradients
            assert_allclose(drawn["tip"], -1.6 * update / np.linalg.norm(update), atol=1e-5, err_msg=key)
            assert (
                np.dot(drawn["shaft"], drawn["tip"]) > 0 and abs(np.linalg.det([drawn["shaft"], drawn["tip"]])) < 1e-5
            )
            assert (drawn["drawn"], drawn["label"]) == (key in SHOWN, label(key))
            assert drawn["inside"] == (start_here.made_worse(PAIR, asked(key, PAIR.gramian, PAIR.losses)) == "")
        page.close()

    def test_a_key_moves_a_tip_by_a_hundredth_of_the_drawing(self, browser, address):
        """Of its width; ten times as far with Shift."""
        page = opened(browser, address)
        first = page.get_by_role("slider", name="Tip of −g₁")
        first.focus()
        places = []
        for key in ("", "ArrowRight", "ArrowUp", "Shift+ArrowLeft", "Shift+ArrowDown"):
            page.keyboard.press(key) if key else None
            places.append(first.get_attribute("transform").removeprefix("translate(").removesuffix(")").split())
        step = 0.01 * page.evaluate("document.querySelector('.plane').viewBox.baseVal.width")
        moved = np.diff(np.array(places, dtype=float), axis=0) / step
        assert_allclose(moved, [[1, 0], [0, -1], [-10, 0], [0, 10]], atol=1e-5)
        page.close()

    def test_the_player_draws_where_the_walks_are(self, browser, address):
        """From the chosen start, step by step, with x₂ up, and over the lines of this landscape."""
        page = opened(browser, address)
        begun = player(["unit_scal", "mgda"], 0.9, 0.1, 3000).setup
        begin, (x, y) = begun["starts"][3], dict(begun["goals"])[0.9]
        page.get_by_role("combobox", name="start").select_option(index=3)
        for _ in range(2):
            page.get_by_role("button", name="one step").click()
        script = """() => {
            const plane = document.querySelectorAll(".plane")[1], pen = plane.previousSibling.getContext("2d");
            const { data } = pen.getImageData(0, 0, 900, 900), halves = [0, 0];
            for (let i = 3; i < data.length; i += 4) halves[i < data.length / 2 ? 0 : 1] += data[i];
            const lines = [...plane.querySelectorAll("polyline")].filter((e) => e.style.display !== "none");
            const tick = (e) => [e.textContent, e.x.baseVal[0].value, 0 - e.y.baseVal[0].value];
            return { lines: lines.map((e) => [...e.points].map(({ x, y }) => [x, -y])), halves,
                ends: lines.map(({ nextSibling: e }) => [e.cx.baseVal.value, -e.cy.baseVal.value]),
                goal: plane.querySelector(".goal").getAttribute("transform"),
                ticks: [...plane.querySelectorAll(".tick")].map(tick) }; }"""
        found = page.evaluate(script)
        assert found["goal"] == f"translate({x} {-y})" and y < 0
        assert found["halves"][1] > 1.3 * found["halves"][0]  # both bowls are below, where lines are close
        assert all(text.replace("−", "-") in (f"{x:g}", f"{y:g}") for text, x, y in found["ticks"])
        plan = pd.DataFrame(
            [("adam", key, 0.1, 0, 0.9) for key in ("unit_scal", "mgda")], columns=[*landscape.PLAN, "weight"]
        )
        methods = {key: two_tasks.METHODS[key] for key in plan.method}
        walked = landscape.walk(plan, 2, "float64", [begin], keep=[0, 1, 2], methods=methods).paths
        assert_allclose(np.array(found["lines"]).swapaxes(0, 1), walked, atol=2e-3)
        assert_allclose(found["ends"], walked[-1], atol=1e-5)
        page.close()

    def test_losses_are_noticed_by_those_that_read_them(self, browser, address):
        page = opened(browser, address)
        before = {key: row(page, key) for key in ("si", "mgda", "edm")}
        page.get_by_label("loss L₁").fill("2")
        after = {key: row(page, key) for key in before}
        assert after["si"][0] == "0.13" and after["mgda"] != before["mgda"] and after["edm"] == before["edm"]
        page.close()

    def test_a_move_is_drawn_within_100_milliseconds(self, browser, address):
        """From the key to the next picture, the median of twenty."""
        page = opened(browser, address)
        page.get_by_role("slider", name="Tip of −g₁").focus()
        script = """async () => { const tip = document.activeElement, took = [];
            for (let n = 0; n < 20; n++) { const begin = performance.now();
                const key = n % 2 ? "ArrowLeft" : "ArrowRight";
                tip.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
                await new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn)));
                took.push(performance.now() - begin); }
            return took.sort((a, b) => a - b)[10]; }"""
        assert page.evaluate(script) < 100
        page.close()

    def test_the_player_plays_pauses_steps_and_begins_again(self, browser, address):
        page = opened(browser, address)
        said = page.locator(".said").last
        page.get_by_role("button", name="one step").click()
        assert said.text_content().startswith("Step 1.")
        page.get_by_role("button", name="play").click()
        page.wait_for_function(
            "text => !document.querySelectorAll('.said')[1].textContent.startsWith(text)", arg="Step 1."
        )
        page.get_by_role("button", name="pause").click()
        stopped = said.text_content()
        page.wait_for_timeout(200)
        assert said.text_content() == stopped
        page.get_by_label("step size").select_option("0.5")
        assert said.text_content().startswith("Step 0.")
        page.get_by_role("slider", name="Start of the walks").focus()
        page.keyboard.press("ArrowDown")
        assert page.get_by_role("combobox", name="start").evaluate("list => list.selectedIndex") == -1
        page.get_by_role("button", name="play").click()
        page.wait_for_function(
            "[...document.querySelectorAll('button')].every((one) => one.textContent !== 'pause')", timeout=60_000
        )
        assert "arrived after" in page.locator("tr[data-key=unit_scal]").last.text_content()
        page.close()

    @pytest.mark.parametrize("width", [390, 1280])
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_it_fits_and_everybody_can_use_it(self, browser, address, width, scheme):
        page = opened(browser, address, width, color_scheme=scheme)
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width
        assert page.evaluate(
            "[...document.querySelectorAll('.right')].every((e) => e.scrollWidth <= e.clientWidth + 1)"
        )
        assert Axe().run(page).response["violations"] == []
        page.close()

    def test_the_picture_is_there_without_scripts_and_on_paper(self, browser, address):
        page = opened(browser, address)
        visible = "[...document.querySelectorAll('.mtl-still img, .mtl-live')].map((e) => e.checkVisibility())"
        assert page.evaluate(visible) == [False, True] * 2
        page.emulate_media(media="print")
        assert page.evaluate(visible) == [True, False] * 2
        page.close()
        context = browser.new_context(java_script_enabled=False)
        page = context.new_page()
        page.goto(address)
        assert [one.is_visible() for one in page.locator(".mtl-still img").all()] == [True, True]
        assert page.locator(".mtl-live").count() == 0
        context.close()
