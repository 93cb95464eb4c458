"""Groups of categories become names before Hydra makes the jobs."""

import pytest

from anomalib_rd.cli.config import register_resolvers
from anomalib_rd.cli.overrides import expand_categories
from anomalib_rd.errors import UserError


@pytest.fixture
def expand(mvtec_root):
    register_resolvers()

    def words(*given):
        base = ["data=mvtec", f"data.root={mvtec_root}", "data.source.textures=[cloth]"]
        return expand_categories([*base, *given])[len(base) :]

    return words


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ("all", "cable,cloth"),
        ("textures", "cloth"),
        ("objects", "cable"),
        ("[cloth,cable]", "cloth,cable"),
        ("cable,textures", "cable,cloth"),
        ("cloth", "cloth"),
    ],
)
def test_groups_and_lists(expand, asked, named):
    assert expand("-m", f"data.category={asked}", "seed=0,1") == [
        "-m",
        f"data.category={named}",
        "seed=0,1",
    ]


def test_without_m_the_words_stay(expand):
    assert expand("data.category=all") == ["data.category=all"]


@pytest.mark.parametrize("many", [[], ["-m"]])
@pytest.mark.parametrize("asked", ["all", "cable,cloth", "[cable,cloth]", "cable,textures"])
def test_a_unified_model_is_given_all_names_in_one_list(expand, asked, many):
    words = [*many, f"data.category={asked}", "data.unified=true"]
    assert expand(*words) == [*many, "data.category=[cable,cloth]", "data.unified=true"]


def test_a_unified_model_of_what_a_study_sweeps(expand, tmp_path):
    (tmp_path / "study").mkdir()
    params = {"hydra": {"sweeper": {"params": {"data.category": "all"}}}}
    (tmp_path / "study/all.yaml").write_text(f"# @package _global_\n{params}\n")
    study = ("--config-dir", str(tmp_path), "-m", "study=all")
    assert expand(*study)[-1] == "data.category=cable,cloth"
    words = expand(*study, "data.unified=true")
    assert words[-1] == "data.category=[cable,cloth]"


@pytest.mark.parametrize("many", [[], ["-m"]])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data.category=cloth"], "data.category=cloth"),
        (["data.category=cloth,cloth"], "cloth"),
        (["data.category=cloth,cabel"], "cabel.*cable"),
        (["data.category=cloth,cable", "data.unified=true,false"], "data.unified"),
    ],
)
def test_mistakes_about_a_unified_model(expand, words, said, many):
    with pytest.raises(UserError, match=said):
        expand(*many, "data.unified=true", *words)


def test_several_without_m_become_a_list_for_the_run_to_refuse(expand):
    assert expand("data.category=cloth,cable") == ["data.category=[cloth,cable]"]


def test_a_study_has_its_categories_unless_others_are_given(expand):
    assert "data.category" not in " ".join(expand("-m", "study=loss"))
    assert "data.category=cable" in expand("-m", "study=loss", "data.category=cable")
    assert expand("-m", "seed=0,1") == ["-m", "seed=0,1"]  # the data set's own default: one


def test_several_data_sets_at_once_are_refused(expand):
    with pytest.raises(UserError, match=r"^data="):
        expand("-m", "data=mvtec,demo")
