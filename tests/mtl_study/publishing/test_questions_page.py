"""The twelve questions in Chromium: without a network and with the keyboard alone."""

import re
import shutil

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from mtl_study.publishing import edition, questions

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUESTIONS = questions.read()
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium on this machine"),
]


@pytest.fixture
def address(house, rendered, monkeypatch):
    monkeypatch.setattr(edition, "_api", lambda target: "")
    (house.repository / "docs").mkdir()
    rendered(house.folder)
    return (edition.write("quick", house.repository).parent / "questions.html").as_uri()


@pytest.fixture
def page(address):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = browser.new_page(offline=True, viewport={"width": 390, "height": 800})
        wrong = []
        opened.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else wrong.append(r.url))
        opened.on("pageerror", lambda error: wrong.append(str(error)))
        opened.goto(address)
        yield opened
        assert wrong == []
        browser.close()


def answer(page, right):
    """Answer the first questions rightly and leave none out, by keys alone, and press the button."""
    page.focus("#questions .when input:checked")
    for at, question in enumerate(QUESTIONS):
        page.keyboard.press("Tab")
        page.keyboard.press("Space")
        chosen = question.right if at < right else (question.right + 1) % len(question.choices)
        now = int(page.evaluate("document.activeElement.value"))
        for _ in range((chosen - now) % len(question.choices)):
            page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")


def shown(page, selector):
    return page.locator(f"{selector}:visible").count()


def test_before_is_compared_with_after(page):
    answer(page, 4)
    assert "Before: 4 of 12 right, 0 without an answer." in page.inner_text("#result")
    assert shown(page, ".hint") == shown(page, "#result table") == 0  # they are asked again
    page.reload()
    assert page.locator(".question input:checked").count() == 12  # kept
    page.focus("#questions .when input:checked")
    page.keyboard.press("ArrowDown")
    assert page.locator(".question input:checked").count() == 0
    answer(page, 11)
    assert "After: 11 of 12 right" in page.inner_text("#result")
    assert shown(page, ".hint") == shown(page, ".question .links") == 12
    (hint,) = page.locator(".hint.no").all_inner_texts()
    assert hint in [hint for _, hint in QUESTIONS[-1].choices if hint]
    rows = [re.split(r"[\t\n]", row) for row in page.locator("#result tr").all_inner_texts()]
    assert rows[1] == ["1", "✓ right", "✓ right"] and rows[5] == ["5", "✗ wrong", "✓ right"]
    assert rows[12] == ["12", "✗ wrong", "✗ wrong"] and rows[13] == ["right", "4", "11"]
    page.click("#forget")
    page.reload()
    assert page.locator(".question input:checked").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_kept_out(page, scheme):
    page.emulate_media(color_scheme=scheme)
    page.check("[name=when][value=after]")
    answer(page, 6)
    found = Axe().run(page).response["violations"]
    assert [rule["id"] for rule in found if rule["impact"] in ("serious", "critical")] == []
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 390
