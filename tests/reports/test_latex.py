import re
import shutil
import subprocess

import pytest
from fake_runs import fake_run

from anomalib_rd.reports.report import make_document
from anomalib_rd.reports.text_tables import escape_latex, to_latex
from anomalib_rd.results.published import load_published
from anomalib_rd.results.runs_table import load_runs
from anomalib_rd.results.statistics import compare_variants


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Two variants with names that LaTeX would stumble over, on MVTec AD and other data."""
    folder = tmp_path_factory.mktemp("runs")
    for strategy, value in (("a_b & 50%", 0.9), ("x^2 #1 {~} \\c $", 0.95)):
        for seed in (0, 1):
            for data, category in (("mvtec", "metal_nut"), ("mvtec", "bottle"), ("my_%", "[a]_%")):
                run = folder / f"{data}-{category}-{strategy[:1]}-{seed}"
                config = {"model.masking.strategy": strategy}
                metrics = {"image_auroc": value + 0.01 * seed, "aupro": float("nan")}
                keywords = {"data": data, "metrics": metrics, "config": config}
                fake_run(run, category, seed, undefined={"aupro": "no masks"}, **keywords)
    runs = load_runs([folder])
    return to_latex(make_document(runs, compare_variants(runs), [], load_published()))


def test_every_table_is_whole(text):
    tables = re.findall(r"\\begin\{table\}.*?\\end\{table\}", text, re.DOTALL)
    assert len(tables) == 2 * (1 + 1 + 2)  # overview, differences, two variants; twice
    for table in tables:
        rules = [table.index(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")]
        assert rules == sorted(rules)
        columns = re.search(r"\\begin\{tabular\}\{(l r*)\}".replace(" ", ""), table)[1]
        rows = [line for line in table.splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(columns) - 1}
        assert re.sub(r"\\[{}]", "", table).count("{") == re.sub(r"\\[{}]", "", table).count("}")
        assert not re.search(r"(?<!\\)[_#~^]", table)
        # A bare percent sign is only that at the end of the line that fits the table.
        assert len(re.findall(r"(?<!\\)%", table)) == 1


def test_numbers_units_and_signs(text):
    assert r"90.50$\pm$0.71" in text
    assert r"\% & " in text
    assert "points" in text
    assert r"FPR$\leq$0.3" in text
    assert r"\textsuperscript{1}" in text  # why AUPRO is undefined
    assert r"\caption{Differences to strategy=a\_b \& 50\% on mvtec}" in text
    assert r"\textbf" not in text
    assert not re.search("[⁰¹²³⁴±†]", text)


def test_names_are_plain_text():
    assert escape_latex("a_b 50% #1 {x} $") == r"a\_b 50\% \#1 \{x\} \$"
    assert (
        escape_latex("\\alpha ~ ^") == r"\textbackslash{}alpha \textasciitilde{} \textasciicircum{}"
    )
    assert escape_latex("p <0.001 ≤1 –") == r"p $<$0.001 $\leq$1 \textendash{}"
    assert escape_latex("-0.21 to +0.1, 5-10 RD4AD-2") == "$-$0.21 to +0.1, 5-10 RD4AD-2"
    assert escape_latex("95.9†, 1¹²") == r"95.9\dag{}, 1\textsuperscript{12}"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs LaTeX")
def test_it_compiles(text, tmp_path):
    (tmp_path / "table.tex").write_text(text)
    packages = "".join(re.findall(r"\\usepackage\S+", text.splitlines()[0]))
    head = rf"\documentclass{{article}}{packages}"
    (tmp_path / "main.tex").write_text(rf"{head}\begin{{document}}\input{{table}}\end{{document}}")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-draftmode", "main.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
