"""A multirun's jobs share a process: each releases its memory and its data workers."""

import gc

import lightning as L
import psutil

from anomalib_rd.cli import main
from anomalib_rd.training.module import DistillationModule


def test_no_networks_or_data_workers_of_a_run_remain_for_the_next(mvtec_root, tmp_path):
    words = ["data=mvtec", f"data.root={mvtec_root}", "data.category=cloth", "data.num_workers=1"]
    words += ["data.image_size=[64,64]", "trainer=cpu", "trainer.max_epochs=1", "logger=none"]
    words += [
        "speed.feature_cache=off",
        "report.heatmaps=0",
        "report.gallery=0",
        "report.html=false",
        "seed=0,1",
    ]
    gc.disable()  # or it might tidy up for them
    try:
        assert main(["train", "-m", *words, f"hydra.sweep.dir={tmp_path}/s"]) == 0
        remaining = [
            type(o) for o in gc.get_objects() if type(o) in (L.Trainer, DistillationModule)
        ]
        assert remaining == []
    finally:
        gc.enable()
    workers = [child.name() for child in psutil.Process().children(recursive=True)]
    assert not [name for name in workers if name.startswith("pt_data_worker")]
    assert len(list((tmp_path / "s").rglob("result.json"))) == 2
