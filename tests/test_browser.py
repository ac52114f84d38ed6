"""The page in a real browser: Debian's chromium, without a window. Skipped where there is none."""

import shutil

import pytest
from test_report import make_run

from gan_lightning.report import write_comparison, write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt install chromium")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    runs = [make_run(folder / name, frechet) for name, frechet in (("a", 42.0), ("b", 41.0))]
    return write_report(runs[0]), write_comparison(runs)


@pytest.fixture(params=["light", "dark"])
def opened(request, browser, written):
    """The page of a run, with what it complained of and asked for."""
    size = {"light": (1280, 900), "dark": (390, 800)}[request.param]
    context = browser.new_context(
        color_scheme=request.param,
        viewport=dict(zip(("width", "height"), size, strict=True)),
        permissions=["clipboard-read", "clipboard-write"],
    )
    page = context.new_page()
    page.said, page.asked = [], []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("request", lambda r: page.asked.append(r.url) if r.url[:5] != "data:" else None)
    page.goto(written[0].as_uri())
    yield page
    assert page.said == [] and page.asked == [written[0].as_uri()]
    context.close()


def test_the_slider_and_the_play_button(opened):
    last = opened.get_attribute("#generated", "src")
    opened.fill("#time", "0")
    assert opened.inner_text("#when") == "epoch 1"
    assert opened.get_attribute("#generated", "src") != last
    opened.click("#play")
    assert opened.inner_text("#play") == "Stop"
    sync_api.expect(opened.locator("#when")).to_have_text("epoch 2")
    sync_api.expect(opened.locator("#play")).to_have_text("Play")
    assert opened.get_attribute("#generated", "src") == last


def test_a_picture_is_enlarged_with_its_seed(opened):
    opened.check("#scored")
    assert opened.locator("#tiles span").nth(63).inner_text() == "1.00"
    opened.locator("#tiles button").nth(63).click()
    assert opened.inner_text("#closer-title") == "seed 70, discriminator 1.000"
    canvas = opened.locator("#closer-picture")
    opened.wait_for_timeout(200)
    red = canvas.evaluate("(it) => it.getContext('2d').getImageData(3, 3, 1, 1).data[0]")
    assert red == 2  # the second grid's colour
    opened.keyboard.press("ArrowRight")
    assert opened.inner_text("#closer-title") == "seed 7, discriminator 0.000"
    assert opened.inner_text("#closer-command").endswith(
        "a/checkpoints/last.ckpt --seed 7 --num-images 1"
    )
    opened.keyboard.press("Escape")
    assert not opened.is_visible("#closer")


def test_the_command_is_copied(opened):
    button = opened.locator("[data-copy=next-command]")
    button.click()
    sync_api.expect(button).to_have_text("Copied")
    assert opened.evaluate("navigator.clipboard.readText()") == "python train.py n_critic=1"


def test_the_theme(opened):
    before = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    opened.click("#theme")
    after = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    assert {before, after} == {"rgb(255, 255, 255)", "rgb(21, 23, 27)"}


def test_values_under_the_pointer_and_the_log_scale(opened):
    chart = opened.locator("#charts figure").first
    svg = chart.locator("svg")
    svg.scroll_into_view_if_needed()
    box = svg.bounding_box()
    assert "frechet 42" in chart.locator("figcaption").inner_text()
    opened.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + box["height"] / 2)
    assert "frechet 81" in chart.locator("figcaption").inner_text()  # at 128 of 192 images
    # 81 between the yardsticks 2 and 99 on a plot of 180 units; then as the curve's largest value
    assert svg.locator("polyline").get_attribute("points").split()[0].endswith(",43.4")
    chart.locator("input").click()
    assert svg.locator("polyline").get_attribute("points").split()[0].endswith(",10.0")
    assert chart.locator("line[stroke-dasharray]").count() == 1  # the finding


def test_no_serious_barrier(opened):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    opened.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    found = axe.run(opened).response["violations"]
    assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []


def test_runs_compared(browser, written):
    page = browser.new_page()
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(written[1].as_uri())
    assert page.locator("tr td:first-child").all_inner_texts() == ["b", "a"]
    assert page.locator("#charts polyline").count() == 2 and not problems
    page.close()
