import pytest
from fake_runs import full_run

from anomalib_rd.reports.page import build_page
from anomalib_rd.results.record import write_failure
from anomalib_rd.results.sweeps import add_jobs

HOSTILE = "</script><!-- <script>window.hacked=1</script>\"'&ü"
COMMAND = 'anomalib-rd train -m sweep=x "<u>ü</u>"'


@pytest.fixture(scope="session")
def sweep(tmp_path_factory):
    """Two variants, categories and seeds on MVTec AD; hostile names on another data; one failed
    run and one missing."""
    top = tmp_path_factory.mktemp("dashboard") / "sweep"
    masked = {"model.name": "fmg_rd", "model.masking.strategy": "random"}
    for name, config, better in (("rd4ad", {}, 0), ("fmg_rd", masked, 1)):
        for category, level in (("bottle", 0.9), ("carpet", 0.8)):
            for seed in (0, 1):
                metrics = {"image_auroc": level + 0.05 * better + 0.01 * seed}
                metrics["aupro"] = 0.9 if category == "carpet" else 0.95
                full_run(
                    top / f"{name}-{category}-s{seed}",
                    category,
                    seed,
                    quality=1 + better,
                    config=config,
                    metrics=metrics,
                    test_curve=[{"epoch": 5, "image_auroc": level}],
                    oracle={"epoch": 3, "image_auroc": 0.99},
                    loss_curve=[1.0, 0.5, None, 0.2, 0.1],
                )
    for strategy in ("plain", f"x{HOSTILE.replace('/', '')}"):
        config = {"model.masking.strategy": strategy, "data.name": HOSTILE}
        folder = top / f"hostile-{strategy[:1]}"
        full_run(folder, HOSTILE, data=HOSTILE, config=config, gallery=strategy == "plain")
    write_failure(top / "failed", RuntimeError(f"out of memory {HOSTILE}"))
    add_jobs(top, COMMAND, {"failed": ["seed=7"], "never": ["seed=8", "data.category=<b>"]})
    return top


@pytest.fixture(scope="session")
def page_file(sweep):
    return build_page([sweep], sweep.parent / "out" / "report.html")
