"""What users get wrong: the words, and what the one line must say."""

import json
import os
import shutil

import numpy as np
from PIL import Image

FAST = ["trainer=cpu", "trainer.max_epochs=1", "data.image_size=[64,64]", "data.num_workers=0"]


class Malicious:
    """A pickle that leaves a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def damage(place, mvtec):
    """Make what is wrong below ``place``; ``mvtec`` is a sound data set."""
    import torch

    def data(name):
        return shutil.copytree(mvtec, place / name) / "cloth"

    broken = data("truncated") / "train/good/002.png"
    broken.write_bytes(broken.read_bytes()[:300])
    (data("nothing") / "test/square/001.png").write_bytes(b"")
    Image.new("L", (32, 48), 255).save(data("mask_size") / "ground_truth/square/000_mask.png")
    orphan = data("orphan") / "ground_truth/square"
    shutil.copy(orphan / "000_mask.png", orphan / "777_mask.png")
    for path in (data("no_training") / "train/good").iterdir():
        path.unlink()
    shutil.rmtree(data("no_test") / "test")
    deep = data("deep") / "test/good/000.tif"
    Image.fromarray(np.full((64, 64), 300.0, np.float32)).save(deep)
    (place / "empty").mkdir()
    (place / "file").write_text("no folder")
    torch.save({"layer9.weight": torch.zeros(3)}, place / "foreign.pth")
    torch.save(Malicious(place / "pwned"), place / "malicious.pth")
    (place / "run/checkpoints").mkdir(parents=True)
    torch.save(Malicious(place / "pwned"), place / "run/checkpoints/last.ckpt")
    (place / "halved/checkpoints").mkdir(parents=True)
    whole = (place / "foreign.pth").read_bytes()
    (place / "halved/checkpoints/last.ckpt").write_bytes(whole[: len(whole) // 2])
    (place / "other.ckpt").write_bytes(whole)
    for name, text in (("bad", "{"), ("old", '{"schema_version": 99}')):
        (place / f"record_{name}").mkdir()
        (place / f"record_{name}/result.json").write_text(text)
    foreign = {"data": {}, "model": {"_target_": "os.mkdir", "path": str(place / "pwned")}}
    for name, written in (("before", None), ("foreign", foreign)):
        record = {"schema_version": 1, "name": "x", "seed": 0, "metrics": {}, "config": {}}
        record |= {"data": dict.fromkeys(("name", "category", "group"), "x")}
        record |= {"model": dict.fromkeys(("name", "teacher"), "x"), "config_as_written": written}
        record |= {"protocol": {"headline": "last epoch", "epochs": 1}}
        (place / f"{name}.json").write_text(json.dumps(record))
    (place / "sweep").mkdir()
    (place / "sweep/sweep.json").write_text("{")
    return place


def cases(root, bad):
    """Name -> (words, parts of the line); ``root`` is sound, ``bad`` of `damage`."""
    free = ["train", "data=mvtec", "logger=none", *FAST]
    mvtec = [*free, f"data.root={root}", "data.category=cloth"]

    def data(name):
        return [*free, f"data.root={bad / name}", "data.category=cloth"]

    def train(*words):
        return [*mvtec, *words]

    return {
        # The data set
        "root missing": (data("none"), (f"{bad}/none does not exist", "set data.root")),
        "root empty": (data("empty"), ("no category in", "<category>/train/good")),
        "root not said": (["train", "data=folder", *FAST], ("data.root has no value",)),
        "root empty text": (train("data.root="), ("data.root is empty", "environment variable")),
        "root in brackets": (train("data.root=[a]"), ("[a] does not exist", "set data.root")),
        "root a category": (
            [*free, f"data.root={root}/cloth", "data.category=cloth"],
            ("it is a category itself", f"data.root={root} data.category=cloth"),
        ),
        "root too high": (
            [*free, f"data.root={root.parent}", "data.category=cloth"],
            ("one folder deeper", f"set data.root={root}"),
        ),
        "category misspelt": (train("data.category=clth"), ("did you mean 'cloth'",)),
        "category null": (train("data.category=null"), ("no category 'null'", "cable, cloth")),
        "several categories": (train("data.category=all"), ("add -m",)),
        "no training images": (data("no_training"), ("no training images in", "put normal")),
        "no test images": (data("no_test"), ("no folder", "cloth/test", "<defect type>")),
        "truncated image": (data("truncated"), ("002.png", "replace or delete it")),
        "empty image": (data("nothing"), ("square/001.png", "replace or delete it")),
        "values out of range": (data("deep"), ("000.tif", "save it as 8 or 16 bit")),
        "mask of another size": (data("mask_size"), ("000_mask.png",)),
        "mask without image": (data("orphan"), ("777_mask.png", "add the image or delete")),
        # Keys and values
        "unknown key": (train("model.masking.rato=0.5"), ("did you mean 'model.masking.ratio'",)),
        "unknown hydra key": (train("hydra.rum.dir=x"), ("no key 'hydra.rum", "--cfg hydra")),
        "unknown choice": (
            train("model=rd5ad"),
            ("model=rd5ad", "did you mean 'rd4ad'?", "fmg_rd"),
        ),
        "choice null": (train("model=null"), ("model=null", "model.KEY=")),
        "unknown group": (train("modle=rd4ad"), ("did you mean 'model'",)),
        "no key": (train("=3"), ("=3: not an override",)),
        "no value": (train("seed"), ("seed: ", "key=value")),
        "bad grammar": (train("seed=[1"), ("seed=[1: ",)),
        "text for a number": (train("trainer.max_epochs=many"), ("trainer.max_epochs=many",)),
        "fraction": (train("seed=1.0"), ("seed=1.0: ",)),
        "nan": (train("model.scoring.sigma=nan"), ("model.scoring.sigma=nan: must be a number",)),
        "number for a switch": (
            train("test_during_training=3"),
            ("test_during_training=3: must be true or false",),
        ),
        "value for a group": (train("model.masking=3"), ("model.masking=3: must be keys and",)),
        "list without -m": (train("seed=0,1"), ("seed=0,1: several values; add -m",)),
        "seed null": (train("seed=null"), ("seed=null: needs a value, such as 0",)),
        "seed negative": (train("seed=-1"), ("seed=-1: ",)),
        "one side": (train("data.image_size=[64]"), ("data.image_size=[64]: give height",)),
        "sides of text": (train("data.image_size=[a,b]"), ("multiples of 32", "[256, 256]")),
        "odd sides": (train("data.image_size=[65,64]"), ("multiples of 32",)),
        "empty batch": (train("data.train_batch_size=0"), ("must be at least 1",)),
        "workers": (train("data.num_workers=-1"), ("data.num_workers=-1", "or null")),
        "ratio": (train("model.masking.ratio=1.5"), ("model.masking.ratio=1.5",)),
        "attention": (train("model.fusion.attention=no"), ("none, se, eca, cbam",)),
        "unset variable": (train("data.root=${oc.env:NO_SUCH}"), ("'NO_SUCH' not found",)),
        "no such class": (train("+data.transform._target_=x.y"), ("data.transform", "'x.y'")),
        "no such argument": (
            train("data.transform={_target_:torchvision.transforms.v2.ColorJitter,brigt:1}"),
            ("data.transform", "'brigt'"),
        ),
        # Weights, devices, places
        "weights missing": (
            train("model.teacher.weights=/no.pth"),
            ("model.teacher.weights=/no.pth", "embedded"),
        ),
        "weights of another": (
            train(f"model.teacher.weights={bad}/foreign.pth"),
            ("foreign.pth", "choose the model/teacher"),
        ),
        "weights malicious": (
            train(f"model.teacher.weights={bad}/malicious.pth"),
            ("malicious.pth",),
        ),
        "no GPU": (train("trainer=gpu"), ("gpu",)),
        "unknown flag of the trainer": (train("+trainer.fast=1"), ("trainer", "'fast'")),
        "a file for a folder": (
            train(f"hydra.run.dir={bad}/file"),
            (f"{bad}/file: ",),
        ),
        "no place": (train("hydra.run.dir=/proc/x"), ("/proc/x: ",)),
        # Flags
        "unknown flag": (train("--fast"), ("train: unrecognized arguments: --fast",)),
        "flag without value": (train("--cfg"), ("--cfg", "expected one argument")),
        "config folder": (train("-cd", "/none"), ("--config-dir /none: ",)),
        "config name": (train("-cn", "nope"), ("Cannot find primary config 'nope'",)),
        "pickled rerun": (
            train("--experimental-rerun", "x"),
            ("--experimental-rerun", "--from RESULT"),
        ),
        # Many runs
        "question without -m": (train("study=loss"), ("study=loss: ", "-m")),
        "swept text": (train("-m", "seed=0,x"), ("seed=x: ",)),
        "swept nothing": (train("-m", "seed=range(0,0)"), ("seed=range(0,0): ",)),
        "swept choice": (train("-m", "model=rd4ad,rd5ad"), ("model=rd5ad: ", "rd4ad")),
        "swept category": (train("-m", "data.category=cloth,clth"), ("did you mean 'cloth'",)),
        "no such study": (train("-m", "study=maks"), ("study=maks", "did you mean 'mask'?")),
        "no launcher": (train("-m", "hydra/launcher=slrm"), ("hydra/launcher=slrm", "slurm")),
        # Repeating
        "from nothing": (["train", "--from"], ("--from: ",)),
        "from a missing one": (["train", "--from", bad / "none"], ("none/result.json: not found",)),
        "from no record": (["train", "--from", bad / "file"], (f"{bad}/file: cannot be read",)),
        "from another version": (
            ["train", "--from", bad / "record_old"],
            ("schema_version is 99", "use the anomalib-rd that wrote it"),
        ),
        "from before": (
            ["train", "--from", bad / "before.json"],
            ("before.json: ", "config_as_written"),
        ),
        "from foreign code": (
            ["train", "--from", bad / "foreign.json"],
            ("foreign.json: ", "os.mkdir", "--trust"),
        ),
        "from many": (["train", "--from", bad / "before.json", "-m"], ("--from ", "-m")),
        "trust alone": (["train", "--trust"], ("--trust", "--from RESULT")),
        # The other verbs
        "no verb": (["trian"], ("'trian'", "'train', 'evaluate'")),
        "evaluate nothing": (["evaluate"], ("required: RUN", "--help")),
        "evaluate no run": (["evaluate", bad / "none"], (f"{bad}/none: no such run",)),
        "evaluate a damaged run": (["evaluate", bad / "halved"], ("last.ckpt: damaged",)),
        "evaluate a malicious run": (["evaluate", bad / "run"], ("last.ckpt: damaged, or no",)),
        "evaluate another file": (["evaluate", bad / "other.ckpt"], ("other.ckpt: ", "'config'")),
        "predict no images": (["predict", bad / "run"], ("required: IMAGES",)),
        "predict a malicious run": (
            ["predict", bad / "run", root / "cloth/test/good/000.png"],
            ("last.ckpt: damaged, or no",),
        ),
        "status of nothing": (["status"], ("status: the following", "folder", "status --help")),
        "status of no folder": (["status", bad / "none"], (f"{bad}/none: no such folder",)),
        "status of no sweep": (["status", bad / "empty"], ("contains no run", "multirun/NAME")),
        "status of a damaged sweep": (["status", bad / "sweep"], ("sweep.json",)),
        "report of nothing": (["report", root], ("no complete run (result.json) in",)),
        "report of no folder": (["report", bad / "none"], (f"{bad}/none: no such folder",)),
        "report of a damaged record": (["report", bad / "record_bad"], ("result.json: cannot",)),
        "report of another version": (["report", bad / "record_old"], ("schema_version is 99",)),
        "report to two places": (["report", root, root, "--wandb"], ("give one folder",)),
        "data without a verb": (["data"], ("data: the following arguments are required",)),
        "data verb": (["data", "lisst"], ("'lisst'", "list", "check")),
        "data list": (["data", "list", "data=mvtec", "data.root=/none"], ("/none does not exist",)),
        "data list category": (
            ["data", "list", "data=mvtec", f"data.root={root}", "data.category=clth"],
            ("did you mean 'cloth'",),
        ),
        "data list set": (["data", "list", "data=mvtek"], ("data=mvtek", "'mvtec'?")),
        "data check": (["data", "check", "data=folder"], ("data.root has no value",)),
        "data download address": (
            ["data", "download", "--accept-license", "--url", "file:///etc/passwd"],
            ("--url file:///etc/passwd: give an address that begins with https://",),
        ),
        "data download server": (
            ["data", "download", "--accept-license", "--url", "http://127.0.0.1:9/x"],
            ("cannot reach 127.0.0.1:9", "check network and proxy"),
        ),
        "data cache flag": (["data", "cache", "--cleer"], ("--cleer",)),
        "dashboard of no folder": (["dashboard", bad / "none"], (f"{bad}/none: no such folder",)),
        "dashboard port": (["dashboard", bad, "--port", "x"], ("--port: invalid int value: 'x'",)),
        "dashboard port too high": (["dashboard", bad, "--port", "70000"], ("--port, 0 takes",)),
        "dashboard host": (["dashboard", bad, "--host", "no.invalid"], ("no.invalid port 8000",)),
        "study without a part": (["study"], ("study: the following arguments are required",)),
        "study unknown": (["study", "plan", "maks"], ("study=maks", "did you mean 'mask'?")),
        "study record": (["study", "record", bad / "empty"], ("no complete run",)),
        "workspace of nothing": (["workspace", bad / "empty"], ("no complete run",)),
        "workspace categories": (
            ["workspace", "--categories", ",", "--dry-run"],
            ("--categories ,: ",),
        ),
        "workspace flag": (["workspace", "--dryrun"], ("unrecognized arguments: --dryrun",)),
    }
