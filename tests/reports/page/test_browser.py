"""The report page in a real browser, opened from disk."""

import json

import pytest

SECTION = "section.data[data-name=mvtec]"
MATRIX = f"{SECTION} table.matrix"
BARS, DIFFERENCES = (f"{SECTION} [data-plot={name}]" for name in ("categories", "differences"))


@pytest.fixture
def opened(open_tab, page_file):
    return lambda hash="", **settings: open_tab(page_file.as_uri() + hash, **settings)


def labels(tab, table=MATRIX):
    return tab.locator(table).locator("tbody th").all_inner_texts()


def cards(tab):
    return tab.locator("#gallery-cards .card")


def shown_paths(tab):
    return [path.inner_text() for path in cards(tab).locator(".soft").all()]


def worst_first(tab, category):
    """File names of a category's images, by how many pairs the first run orders wrongly."""
    payload = json.loads(tab.locator("#payload").text_content())
    group = next(group for group in payload["groups"] if group["category"] == category)
    run, images = payload["runs"][group["runs"][0]], group["images"]

    def wrong(one):
        others = [i for i in range(len(images)) if images[i][2] != images[one][2]]
        sign = 1 if images[one][2] else -1
        apart = [sign * (run["scores"][i] - run["scores"][one]) for i in others]
        nearness = -sign * (run["scores"][one] - sum(run["scores"]) / len(images))
        return sum(value > 0 for value in apart) / len(apart), nearness

    ordered = sorted(range(len(images)), key=wrong, reverse=True)
    return [images[one][0].rpartition("/")[2] for one in ordered]


def choose(tab, **values):
    for name, value in values.items():
        tab.select_option(f"#gallery-controls [name={name}]", value)


def test_a_heading_sorts_by_mouse_and_by_keyboard(opened):
    tab = opened()
    heading = tab.locator(MATRIX).locator("thead tr:nth-child(2) th").first
    assert labels(tab) == ["carpet", "bottle"] and heading.get_attribute("aria-sort") == "none"
    heading.locator("button").click()
    heading.locator("button").click()
    assert labels(tab) == ["bottle", "carpet"]
    assert heading.get_attribute("aria-sort") == "descending"
    tab.keyboard.press("Enter")
    assert labels(tab) == ["carpet", "bottle"]
    assert heading.get_attribute("aria-sort") == "ascending"
    assert tab.locator(MATRIX).locator("tfoot th").last.inner_text() == "mean all"


def test_the_metric_is_switched_in_table_and_plots(opened):
    tab = opened()
    assert tab.locator("#view-overview").is_visible() and tab.locator("#view-runs").is_hidden()
    column = tab.locator(MATRIX).locator("td[data-metric=aupro] >> visible=true")
    assert column.count() == 0
    tab.locator(BARS).scroll_into_view_if_needed()
    tab.wait_for_selector(f"{BARS} .ytitle:has-text('image AUROC')")
    # Two variants, two categories.
    assert tab.locator(f"{BARS} .bars .point").count() == 4
    tab.locator("#metric-bar label", has_text="AUPRO FPR≤0.3").click()
    assert column.count() == 2 * (2 + 3)
    assert tab.locator(MATRIX).locator("td[data-metric=image_auroc] >> visible=true").count() == 0
    tab.locator(BARS).scroll_into_view_if_needed()
    tab.wait_for_selector(f"{BARS} .ytitle:has-text('AUPRO')")
    tab.locator(DIFFERENCES).scroll_into_view_if_needed()
    tab.wait_for_selector(f"{DIFFERENCES} .xtitle:has-text('AUPRO')")
    assert tab.locator(f"{DIFFERENCES} .xerror").count() == 1


def test_the_theme_is_switched_and_kept(opened):
    tab = opened()
    paper = "getComputedStyle(document.body).backgroundColor"
    light = tab.evaluate(paper)
    tab.click("#theme")
    tab.click("#theme")
    assert tab.evaluate("document.documentElement.dataset.theme") == "dark"
    dark = tab.evaluate(paper)
    assert dark != light
    tab.reload()
    assert tab.evaluate(paper) == dark
    tab.click("#theme")
    assert tab.evaluate(paper) == light
    tab.emulate_media(color_scheme="dark")
    assert tab.evaluate(paper) == dark


def test_a_number_opens_its_run_and_back_returns(opened):
    tab = opened()
    tab.locator(MATRIX).locator("td a >> visible=true").first.click()
    tab.wait_for_selector("#view-run h1:has-text('carpet · rd4ad · seed 0')")
    assert tab.title().startswith("carpet")
    assert tab.locator("#view-run figure .plot").count() == 6
    tab.wait_for_selector("#view-run .annotation-text:has-text('limit 0.3')")
    tab.locator("#view-run .plot").last.scroll_into_view_if_needed()
    tab.wait_for_selector("#view-run .legendtext:has-text('oracle')")
    types = tab.locator("#view-run table tbody th").all_inner_texts()
    assert sorted(types) == ["broken", "scratch", "stain"]
    tab.click(".siblings a:has-text('1')")
    tab.wait_for_selector("#view-run h1:has-text('seed 1')")
    tab.go_back()
    tab.wait_for_selector("#view-run h1:has-text('seed 0')")
    tab.go_back()
    assert tab.locator("#view-overview").is_visible() and tab.locator("#view-run").is_hidden()


def test_a_link_to_a_run_works_and_a_stale_one_says_so(opened):
    tab = opened("#/run/0123456789")
    assert tab.locator("#view-run a[href='#/runs']").is_visible()
    assert tab.locator("#view-run .facts").count() == 0


def test_the_gallery_filters_and_orders_the_worst_first(opened):
    tab = opened("#/gallery?data=mvtec&category=bottle")
    assert cards(tab).count() == 15
    choose(tab, result="wrong")
    wrong = cards(tab).count()
    assert 0 < wrong < 15
    assert cards(tab).locator(".verdict:not(.wrong)").count() == 0
    choose(tab, result="fp")
    alarms = cards(tab).all_inner_texts()
    choose(tab, result="fn")
    missed = cards(tab).all_inner_texts()
    assert len(alarms) + len(missed) == wrong
    assert all("good" in text for text in alarms) and not any("good" in text for text in missed)
    choose(tab, result="", defect="stain")
    assert cards(tab).count() == 3
    choose(tab, defect="", order="high")
    scores = [float(text) for text in cards(tab).locator(".score").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)
    assert "order=high" in tab.url and "category=bottle" in tab.url
    choose(tab, order="worst")
    assert shown_paths(tab) == worst_first(tab, "bottle")


def test_the_gallery_is_stepped_through_by_keyboard(opened):
    tab = opened("#/gallery?data=mvtec&category=bottle")
    cards(tab).first.focus()
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#lightbox[open] .count:has-text('1 / 15')")
    first = tab.inner_text("#lightbox .head p")
    tab.keyboard.press("ArrowRight")
    assert tab.inner_text("#lightbox .count") == "2 / 15"
    assert tab.inner_text("#lightbox .head p") != first
    tab.keyboard.press("ArrowLeft")
    tab.keyboard.press("ArrowLeft")
    assert tab.inner_text("#lightbox .count") == "15 / 15"
    tab.keyboard.press("Escape")
    assert tab.locator("#lightbox").is_hidden()
    assert tab.evaluate("document.activeElement === document.querySelector('#gallery-cards .card')")


def test_the_gallery_is_stepped_through_by_swipes(opened):
    tab = opened("#/gallery?data=mvtec&category=bottle", has_touch=True)
    cards(tab).first.click()
    swipe = """(way) => {
      const panel = document.querySelector('#lightbox .panels');
      const at = (x) => [new Touch({ identifier: 1, target: panel, clientX: x, clientY: 300 })];
      const send = (type, list) => panel.dispatchEvent(new TouchEvent(type, {
        bubbles: true, touches: type === 'touchend' ? [] : list, changedTouches: list }));
      send('touchstart', at(400)); send('touchend', at(400 + way));
    }"""
    tab.evaluate(swipe, -120)
    assert tab.inner_text("#lightbox .count") == "2 / 15"
    tab.evaluate(swipe, 120)
    assert tab.inner_text("#lightbox .count") == "1 / 15"
    tab.evaluate(swipe, 10)
    assert tab.inner_text("#lightbox .count") == "1 / 15"


def test_two_variants_are_side_by_side_on_the_same_image(opened):
    tab = opened("#/gallery?data=mvtec&category=bottle")
    choose(tab, compare="fmg_rd resnet18")
    card = cards(tab).first
    maps = card.locator("img.map")
    maps.nth(1).wait_for()
    assert card.locator("img:not(.map)").count() == maps.count() == 2
    assert card.locator("img:not(.map) >> nth=0").get_attribute("src") == card.locator(
        "img:not(.map) >> nth=1"
    ).get_attribute("src")
    alternatives = [maps.nth(index).get_attribute("alt") for index in (0, 1)]
    assert alternatives == [
        "anomaly map, rd4ad resnet18, seed 0",
        "anomaly map, fmg_rd resnet18, seed 0",
    ]


def test_two_variants_can_be_ordered_by_what_changed(opened):
    tab = opened("#/gallery?data=mvtec&category=bottle&order=change&compare=fmg_rd+resnet18")
    assert tab.input_value("[name=order]") == "change" and cards(tab).count() == 15
    by_change = cards(tab).all_inner_texts()
    choose(tab, order="worst")
    assert cards(tab).all_inner_texts() != by_change
    choose(tab, order="change", compare="")
    assert tab.input_value("[name=order]") == "worst"


def test_pictures_are_decoded_and_the_maps_opacity_is_set(opened):
    tab = opened("#/gallery?data=mvtec&category=bottle&defect=stain")
    tab.wait_for_selector("#gallery-cards img.map")
    tab.wait_for_function(
        "[...document.querySelectorAll('#gallery-cards img')].every(i => i.naturalWidth > 0)"
    )
    assert cards(tab).first.locator("svg path").count() == 2
    tab.locator("#gallery-controls .overlay").fill("20")
    assert tab.evaluate("getComputedStyle(document.querySelector('.map')).opacity") == "0.2"
    tab.locator("#gallery-controls .contours").uncheck()
    assert cards(tab).first.locator("svg").is_hidden()


def test_without_javascript_the_tables_are_there(opened):
    tab = opened(java_script_enabled=False)
    assert "mean all" in tab.inner_text(MATRIX)
    for metric in ("image_auroc", "aupro"):
        assert tab.locator(MATRIX).locator(f"td[data-metric={metric}]").first.is_visible()
    assert "out of memory" in tab.inner_text("#status")
    assert tab.locator("#runs-table tbody tr").count() == 10
    assert tab.locator("noscript").is_visible()
    assert tab.locator("#theme").is_hidden() and tab.locator("#view-gallery").is_hidden()


def test_hostile_names_are_shown_as_text(opened):
    tab = opened("#/runs")
    hostile = "</script><!-- <script>window.hacked=1</script>\"'&ü"
    row = tab.locator("#runs-table tbody tr", has_text=hostile).first
    row.locator("a").click()
    tab.wait_for_selector("#view-run h1")
    assert hostile in tab.inner_text("#view-run h1")
    tab.locator("#view-run summary", has_text="Config").first.click()
    assert hostile.partition('"')[0] in tab.inner_text("#view-run details[open] pre")
    tab.click("#view-run a.to-gallery")
    cards(tab).first.click()
    assert hostile in tab.inner_text("#lightbox .head p")
    assert tab.evaluate("window.hacked") is None


def test_on_a_phone_only_the_tables_scroll_sideways(opened):
    tab = opened("#/runs", viewport={"width": 360, "height": 700})
    run = tab.locator("#runs-table a").first.get_attribute("href")
    wide = """[...document.querySelectorAll('main *')].filter((e) => e.offsetParent
      && !e.closest('.box, .bar, pre, .plot') && e.getBoundingClientRect().right > 361).length"""
    for place in ("#/", "#/runs", "#/gallery", run):
        tab.evaluate(f"location.hash = '{place}'")
        tab.wait_for_timeout(150)
        assert tab.evaluate("document.documentElement.scrollWidth") <= 360, place
        assert tab.evaluate(wide) == 0, place
