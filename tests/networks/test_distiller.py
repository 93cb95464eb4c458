"""Shapes, parameter counts and initialisation against RD4AD's published network."""

from functools import partial

import pytest
import torch
from torch import nn

from anomalib_rd.networks import Distiller, FeatureMasking, Fusion, NoMasking, Student, Teacher

# Millions of parameters as RD4AD declares them, less what it never uses: the bottleneck's spare
# 1x1 convolution (1024 e -> 512 e, e the expansion) and the teacher after layer3.
RD4AD = {
    "wide_resnet50_2.tv_in1k": ((256, 512, 1024), 67.3 - 8.39, 24.9),
    "resnet18.tv_in1k": ((64, 128, 256), 12.2 - 0.52, 3.7),
}


def millions(network):
    return sum(p.numel() for p in network.parameters()) / 1e6


def rd4ad(name, **fusion):
    return Distiller(
        Teacher(name, weights="random"),
        NoMasking,
        partial(Fusion, **fusion),
        partial(Student, design="de_resnet"),
    )


@pytest.mark.parametrize("name", RD4AD)
def test_rd4ad_shapes_and_parameters(name):
    channels, fusion, student = RD4AD[name]
    network = rd4ad(name).eval()
    features, restored = network(torch.zeros(1, 3, 256, 256, dtype=torch.uint8))
    sizes = [(1, c, s, s) for c, s in zip(channels, (64, 32, 16), strict=True)]
    assert [tuple(f.shape) for f in features] == sizes
    assert [tuple(r.shape) for r in restored] == sizes
    assert network.fusion(features).shape == (1, 2 * channels[-1], 8, 8)
    assert millions(network.fusion) == pytest.approx(fusion, abs=0.05)
    assert millions(network.student) == pytest.approx(student, abs=0.05)


def test_parameter_counts_by_hand_for_resnet18():
    network = rd4ad("resnet18.tv_in1k")
    norm = lambda c: 2 * c  # noqa: E731
    conv = lambda i, o, k: i * o * k * k  # noqa: E731
    mff = 2 * (conv(128, 256, 3) + norm(256)) + conv(64, 128, 3) + norm(128)
    first = conv(768, 512, 3) + conv(512, 512, 3) + conv(768, 512, 1) + 3 * norm(512)
    second = 2 * (conv(512, 512, 3) + norm(512))
    assert sum(p.numel() for p in network.fusion.parameters()) == mff + first + second
    stage = lambda i, o: (  # noqa: E731
        conv(i, o, 2) + conv(o, o, 3) + conv(i, o, 2) + 3 * norm(o) + 2 * (conv(o, o, 3) + norm(o))
    )
    expected = stage(512, 256) + stage(256, 128) + stage(128, 64)
    assert sum(p.numel() for p in network.student.parameters()) == expected


def test_wide_decoder_is_as_deep_as_rd4ads():
    student = rd4ad("wide_resnet50_2.tv_in1k").student
    assert [len(stage) for stage in student.stages] == [3, 4, 6]
    first = student.stages[0][0]
    transposed = [m for m in first.residual if isinstance(m, nn.ConvTranspose2d)]
    assert [(m.in_channels, m.out_channels) for m in transposed] == [(512, 512)]  # width 128 per 64
    assert isinstance(first.shortcut[0], nn.ConvTranspose2d)


def test_teacher_is_cut_after_layer3_frozen_and_always_in_eval():
    network = rd4ad("resnet18.tv_in1k")
    assert not any(k.startswith(("net.layer4", "net.fc")) for k in network.teacher.state_dict())
    assert millions(network.teacher) == pytest.approx(2.78, abs=0.01)
    network.train()
    assert network.student.training and not network.teacher.training
    assert not any(m.training for m in network.teacher.modules())
    assert not any(p.requires_grad for p in network.teacher.parameters())


def test_initialisation_is_kaiming_fan_out():
    torch.manual_seed(0)
    fusion = rd4ad("resnet18.tv_in1k").fusion
    convolution = fusion.embed[0].conv1  # 768 -> 512, 3x3
    assert convolution.weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)
    norms = [m for m in fusion.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all((m.weight == 1).all() and (m.bias == 0).all() for m in norms)


@pytest.mark.parametrize("attention", ["none", "se", "eca", "cbam", "coordinate", "self"])
def test_every_attention_keeps_shapes_and_learns(attention):
    network = rd4ad("resnet18.tv_in1k", attention=attention)
    features, restored = network(torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8))
    assert [f.shape for f in features] == [r.shape for r in restored]
    sum(r.square().mean() for r in restored).backward()
    silent = [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert silent == []


def test_unknown_attention_is_named():
    with pytest.raises(ValueError, match=r"^attention=sse: "):
        rd4ad("resnet18.tv_in1k", attention="sse")


def test_generic_student_follows_a_teacher_of_another_family():
    teacher = Teacher("tf_efficientnet_lite0.in1k", weights="random")
    network = Distiller(teacher, NoMasking, Fusion, Student)
    features, restored = network(torch.zeros(2, 3, 64, 64, dtype=torch.uint8))
    assert [f.shape[1] for f in features] == [24, 40, 112] == [r.shape[1] for r in restored]
    with pytest.raises(ValueError, match=r"^design=de_resnet: "):
        Distiller(teacher, NoMasking, Fusion, partial(Student, design="de_resnet"))


def test_complementary_inference_takes_each_position_from_where_it_was_hidden():
    torch.manual_seed(0)
    network = Distiller(
        Teacher("resnet18.tv_in1k", weights="random"),
        partial(FeatureMasking, strategy="random", ratio=0.5, inference="complementary"),
        Fusion,
        Student,
    ).eval()
    features = network.teacher(torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8))
    out = network.forward_features(features)
    mask_sets = network.masking.draw_masks(features)
    assert len(mask_sets) == 2
    for k in range(3):
        by_hand = torch.zeros_like(features[k])
        for masks in mask_sets:
            view = network.student(network.fusion(network.masking(features, masks)))[k]
            hidden = masks[k][0, 0].bool()
            by_hand[0, :, hidden] = view[0, :, hidden]
        torch.testing.assert_close(out.student_features[k], by_hand)
