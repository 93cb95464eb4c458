"""``anomalib-rd data check``: its output and exit status; the configs of the data sets."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hydra.utils import instantiate
from PIL import Image

from anomalib_rd.cli import main
from anomalib_rd.cli.config import compose_config, register_resolvers
from anomalib_rd.cli.overrides import expand_categories
from anomalib_rd.data.dataset_check import published_counts


def paint(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 6, 3), value, np.uint8)).save(path)


@pytest.fixture
def btad(tmp_path):
    """Two products in BTAD's layout, of names that are not BTAD's, and of one that is."""
    for product in ("a", "b", "01"):
        places = ("train/ok/0", "train/ok/1", "test/ok/0", "test/ko/0", "ground_truth/ko/0")
        for value, place in enumerate(places, start=200):
            paint(tmp_path / product / f"{place}.bmp", value)
        half = np.zeros((4, 6), np.uint8)
        half[:, :3] = 255
        Image.fromarray(half).save(tmp_path / product / "ground_truth/ko/0.bmp")
    return tmp_path


def check(btad, *words):
    return main(["data", "check", "data=btad", f"data.root={btad}", *words])


def test_sound_data_are_status_0(btad, capsys):
    assert check(btad, "data.category=[a,b]") == 0
    out = capsys.readouterr().out
    assert "6 x 4" in out
    assert "error" not in out


def test_error_is_status_2_and_one_line_with_the_file(btad, capsys):
    (btad / "a" / "test" / "ko" / "0.bmp").write_bytes(b"BM")
    assert check(btad, "data.category=a") == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "1 error"
    assert lines[-2].startswith(f"error: {btad / 'a' / 'test' / 'ko' / '0.bmp'} ")


def test_all_categories_unless_some_are_named(btad, capsys):
    assert check(btad, "--json") == 2
    report = json.loads(capsys.readouterr().out)
    assert [c["category"] for c in report["categories"]] == ["01", "a", "b"]
    first = report["categories"][0]
    assert first["counts"] == {"train": 2, "good": 1, "defect": 1}
    assert first["published"] == {"train": 400, "good": 21, "defect": 49}
    assert first["formats"] == [{"width": 6, "height": 4, "mode": "RGB", "images": 5 - 1}]
    assert [(f["severity"], f["category"]) for f in report["findings"]] == [
        ("error", "01"),
        ("note", None),
    ]


def test_warning_is_status_0(btad, capsys):
    (btad / "a" / "ground_truth" / "ko" / "0.bmp").unlink()
    assert check(btad, "data.category=a") == 0
    assert "warning: a" in capsys.readouterr().out


def test_many_findings_are_counted_after_the_first(btad, capsys):
    for number in range(25):
        (btad / "a" / "train" / "ok" / f"bad{number}.png").write_bytes(b"")
    assert check(btad, "data.category=a") == 2
    out = capsys.readouterr().out
    assert out.count("\nerror: ") == 21 and "error: a: 5 more" in out
    assert out.splitlines()[-1] == "25 errors"


def test_layout_that_is_broken_in_one_category_spares_the_others(btad, capsys):
    paint(btad / "a" / "ground_truth" / "ko" / "7.bmp", 255)
    assert check(btad, "data.category=a,b", "--json") == 2
    report = json.loads(capsys.readouterr().out)
    assert [c["counts"] is None for c in report["categories"]] == [True, False]
    assert "7.bmp" in report["findings"][0]["text"]


def test_unknown_category_is_one_line(btad, capsys):
    assert check(btad, "data.category=c") == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "'c'" in told


def test_checking_does_not_import_torch(btad):
    code = (
        "import sys; from anomalib_rd.cli import main;"
        f"main(['data', 'check', 'data=btad', 'data.root={btad}', 'data.category=a']);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("name", "class_name", "variable"),
    [
        ("visa", "VisA", "VISA_ROOT"),
        ("btad", "BTAD", "BTAD_ROOT"),
        ("mpdd", "MPDD", "MPDD_ROOT"),
        ("loco", "MVTecLOCO", "MVTEC_LOCO_ROOT"),
        ("mvtec_ad_2", "MVTecAD2", "MVTEC_AD_2_ROOT"),
    ],
)
def test_config_makes_the_source_where_the_environment_says(
    name, class_name, variable, monkeypatch, tmp_path
):
    register_resolvers()
    monkeypatch.delenv(variable, raising=False)
    assert compose_config([f"data={name}"], None).data.root == f"data/{name}"
    monkeypatch.setenv(variable, str(tmp_path))
    data = compose_config([f"data={name}"], None).data
    source = instantiate(data.source)
    assert (type(source).__name__, source.root, data.name) == (class_name, tmp_path, name)
    assert data.category in published_counts(source)


def test_all_categories_of_a_multirun_whose_names_are_numbers(btad):
    register_resolvers()
    base = ["data=btad", f"data.root={btad}"]
    words = expand_categories([*base, "-m", "data.category=all"])
    assert words[-1] == "data.category='01',a,b"
    assert compose_config([*base, "data.category=01"], None).data.category == "01"
