"""The page, in a real browser."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from kdrec.deploy.recommender import Deployed
from kdrec.deploy.server import application
from kdrec.models.bpr import BPR
from kdrec.models.ncf import NCF
from tests.serving import TRAIN, deployed, listening

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome is on the PATH")
EVIL = "<script>document.title = 'broken'</script><img src=x onerror=\"document.title='broken'\"> & (1999)"
TITLES = np.where(TRAIN.item_ids == "504", EVIL, TRAIN.item_titles)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as started:
        # a container's root may not use the sandbox
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def faults() -> list[str]:
    """What the page wrote on its console."""
    return []


@pytest.fixture
def page(browser: Browser, faults: list[str]) -> Iterator[Page]:
    """A page that must end without a fault on its console."""
    page = browser.new_page()
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    yield page
    page.close()
    assert faults == []


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Deployed]:
    folder, data = tmp_path_factory.mktemp("models"), replace(TRAIN, item_titles=TITLES)
    return {
        "student": deployed(folder / "student.ckpt", BPR(4), data, "The student"),
        "teacher": deployed(folder / "teacher.ckpt", BPR(9), data, "The teacher"),
        "ncf": deployed(folder / "ncf.ckpt", NCF(4, 1), data, "The student"),
    }


@pytest.fixture(scope="module")
def url(models: dict[str, Deployed]) -> Iterator[str]:
    with listening(application(models["student"], models["teacher"])) as url:
        yield url


def forgive(faults: list[str]) -> None:
    """Forget what a browser itself says of answers that the test made fail."""
    assert faults
    assert {fault.partition(":")[0] for fault in faults} == {"Failed to load resource"}
    faults.clear()


def pick(page: Page, text: str) -> None:
    """Pick the first name with a text, by keyboard."""
    page.locator("#query").fill(text)
    expect(page.locator("[role=option]").first).to_contain_text(text)
    page.keyboard.press("Enter")
    expect(page.locator("#picked li").last).to_contain_text(text)


def listed(page: Page, model: str) -> list[str]:
    rows = page.locator(f"article[data-model={model}] li")
    expect(rows).to_have_count(10)
    return [row.locator("span").nth(1).inner_text() for row in rows.all()]


def test_two_titles_two_lists(page: Page, url: str, models: dict[str, Deployed]) -> None:
    page.goto(url)
    expect(page.locator("#said")).to_have_text("Pick a title or two.")
    for title in ("Film 9 (1959)", "Film 12 (1962)"):
        pick(page, title)
    lists = {}
    for name in ("student", "teacher"):
        expected = [item.title for item in models[name].for_items([9, 12], 10)]
        expect(page.locator(f"article[data-model={name}] li").first).to_contain_text(expected[0])
        lists[name] = listed(page, name)
        assert [title.splitlines()[0] for title in lists[name]] == expected
    shared = set(lists["student"]) & set(lists["teacher"])
    assert 0 < len(shared) < 10
    expect(page.locator("#said")).to_have_text(f"{len(shared)} of 10 are in both lists.")
    for name, other in (("student", "teacher"), ("teacher", "student")):
        rows = page.locator(f"article[data-model={name}] li.shared")
        assert {row.locator("span").nth(1).inner_text() for row in rows.all()} == shared
        for row in rows.all():
            place = lists[other].index(row.locator("span").nth(1).inner_text()) + 1
            expect(row.locator(".mark")).to_have_text(f"✓ {other} #{place}")
    heading = page.locator("article[data-model=student] h2")
    assert heading.inner_text().startswith("Student: 0.00107 MiB, ")
    assert heading.inner_text().endswith(" ms")


def test_a_title_of_markup_is_shown_as_text(page: Page, url: str) -> None:
    page.goto(url)
    pick(page, EVIL)
    expect(page.locator("article li")).to_have_count(20)
    pick(page, "Film 9 (1959)")
    page.get_by_role("button", name=f"Remove {EVIL}").click()
    expect(page.locator("#picked li")).to_have_count(1)
    page.locator("#k").fill("39")
    page.keyboard.press("Tab")
    expect(page.locator("article[data-model=student] li")).to_have_count(39)
    expect(page.locator("article[data-model=student]")).to_contain_text(EVIL)
    assert page.locator("img, article script, #picked script").count() == 0
    assert page.title() == "kdrec: student and teacher"


def test_by_keyboard_alone(page: Page, url: str) -> None:
    page.goto(url)
    expect(page.locator("#query")).to_have_attribute("placeholder", "some words of a title")
    page.keyboard.press("Tab")  # the radio buttons
    page.keyboard.press("Tab")
    options = page.locator("[role=option]")
    expect(options).to_have_count(20)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(options.nth(1)).to_have_attribute("aria-selected", "true")
    expect(page.locator("#query")).to_have_attribute("aria-activedescendant", "option-1")
    chosen = options.nth(1).inner_text()
    page.keyboard.press("Enter")
    expect(page.locator("#picked li")).to_contain_text([chosen])
    expect(page.locator("#options")).to_be_hidden()
    page.keyboard.press("Backspace")
    expect(page.locator("#picked li")).to_have_count(0)
    expect(page.locator("#said")).to_have_text("Pick a title or two.")


def test_a_known_user(page: Page, url: str) -> None:
    page.goto(url)
    page.locator("#by-user").check()
    pick(page, "103")
    expect(page.locator("#given")).to_contain_text("Touched: ")
    expect(page.locator("article li")).to_have_count(20)


def test_what_is_refused_is_said(page: Page, url: str, faults: list[str]) -> None:
    page.goto(url)
    pick(page, "Film 9 (1959)")
    page.locator("#k").fill("40")
    page.keyboard.press("Tab")
    expect(page.locator("article .fault").first).to_have_text(
        "k is 40; it must lie between 1 and the 39 items that can be recommended."
    )
    page.locator("#k").fill("0")
    page.keyboard.press("Tab")
    expect(page.locator("#fault")).to_have_text("A list has between 1 and 100 entries.")
    expect(page.locator("article .fault")).to_have_count(0)
    forgive(faults)


def test_without_a_teacher_or_without_the_server(page: Page, models: dict[str, Deployed], faults: list[str]) -> None:
    with listening(application(models["student"])) as url:
        page.goto(url)
        pick(page, "Film 9 (1959)")
        expect(page.locator("article")).to_have_count(1)
        expect(page.locator("#said")).to_have_text("10 recommendations.")
        expect(page.locator(".mark")).to_have_count(0)
        page.route("**/items*", lambda route: route.abort())
        page.locator("#query").fill("Film")
        expect(page.locator("#fault")).to_have_text("The server does not answer; see whether it still runs.")
    forgive(faults)


def test_a_model_without_strangers(page: Page, models: dict[str, Deployed]) -> None:
    with listening(application(models["ncf"])) as url:
        page.goto(url)
        expect(page.locator("#why")).to_contain_text("whose users cannot be made from items")
        expect(page.locator("#by-items")).to_be_disabled()
        pick(page, "103")
        expect(page.locator("article li")).to_have_count(10)


def test_fits_a_phone(page: Page, url: str, tmp_path: Path) -> None:
    page.set_viewport_size({"width": 320, "height": 600})
    page.goto(url)
    pick(page, EVIL)
    expect(page.locator("article li")).to_have_count(20)
    assert page.evaluate("document.documentElement.scrollWidth") == 320
