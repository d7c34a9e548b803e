"""The plain SPIDER that the training step is measured against computes the same thing, and the step's clock adds up."""

import re
import shutil
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import encoding, plain_spider, step
from benchmarks.plain_spider import PlainSpider
from xr2ct.encoding import present_backends
from xr2ct.errors import UserError
from xr2ct.models.spider import SLAB

ROOT = Path(__file__).parents[1]
TINY = {
    "widths": [4, 8],
    "hidden": 8,
    "levels": 3,
    "level_features": 8,
    "coarsest": 4,
    "log2_entries": 9,
    "points": 8,
    "intensity_balance": 0.5,
}


@pytest.mark.parametrize("beam", ["parallel", "cone"])
def test_plain_and_ours_have_the_same_loss_and_gradients(beam):
    examples = step.invent_examples(16, 2, beam)
    model = step.make_model(examples, TINY)
    plain = PlainSpider(model)
    torch.nn.init.uniform_(model.position.parameters_flat, -1, 1)
    plain.table.data = model.position.table().detach().clone()
    expected = model.loss(examples, np.random.default_rng(3))["loss"]
    found = plain.loss(examples, step.lattice_of(model, 3))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    expected.backward()
    found.backward()
    torch.testing.assert_close(plain.table.grad, model.position.parameters_flat.grad.view(-1, 8), rtol=1e-4, atol=1e-7)
    for ours, theirs in zip(model.unet.parameters(), [*plain.down.parameters(), *plain.up.parameters()], strict=True):
        torch.testing.assert_close(theirs.grad, ours.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("beam", ["parallel", "cone"])
def test_plain_and_ours_reconstruct_the_same(beam):
    examples = step.invent_examples(16, 1, beam)
    model = step.make_model(examples, TINY)
    model.position.parameters_flat.data.uniform_(-1, 1)
    model.decoder.both.last.bias.data[0] = 0.5
    ours, plain = (one.eval().predict(examples[0].xray, examples[0].case.affine) for one in (model, PlainSpider(model)))
    assert np.abs(ours.ct_hu.astype(int) - plain.ct_hu).max() <= 1
    assert (ours.label != plain.label).mean() < 1e-3
    assert np.ptp(ours.ct_hu) > 50 and len(np.unique(ours.label)) > 1


def test_the_invented_views_see_an_off_centre_voxel_where_it_is():
    example = step.invent_examples(16, 1, "parallel")[0]
    world = example.case.affine @ [3, 5, 11, 1]
    (u, v, w), (u_side, v_side, w_side) = example.xray.projection @ world
    assert (u / w, v / w) == pytest.approx((3, 15 - 11))
    assert (u_side / w_side, v_side / w_side) == pytest.approx((5, 15 - 11))


def test_every_part_of_a_step_has_its_time_and_there_is_no_other():
    examples = step.invent_examples(16, 2, "parallel")
    ours, _ = step.contenders(examples, TINY, {"ours": {}}, torch.device("cpu"))
    model = ours.model
    clock = step.Clock()
    with step.watched(model, clock):
        ours.step(0, clock)
    assert {part for part, _ in clock.spent} == set(step.PARTS)
    for part in step.PARTS[:-1]:
        assert clock.spent[part, "forward"] > 0
        assert clock.spent[part, "backward"] > 0
    assert "forward" not in vars(model.unet)


def test_the_time_of_a_part_is_that_of_its_work():
    clock = step.Clock()

    class Slow(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value):
            time.sleep(0.02)
            return value.clone()

        @staticmethod
        def backward(ctx, pull):
            time.sleep(0.04)
            return pull

    value = step.timed(Slow.apply, "UNet", clock)(torch.ones(2, requires_grad=True))
    clock.enter(step.REST, "backward")
    value.sum().backward()
    clock.enter(step.REST)
    assert clock.spent["UNet", "forward"] >= 0.02
    assert clock.spent["UNet", "backward"] >= 0.04


def command(*more):
    settings = [f"--setting={key}={value}" for key, value in TINY.items() if key != "widths"]
    step.main(["--size", "16", "--cases", "2", "--rounds", "1", "--threads", "1", *settings, *more])


def test_one_command_prints_the_parts_and_the_ratio(capsys):
    command()
    printed = capsys.readouterr().out
    assert "GFLOP/s" in printed
    assert all(part in printed for part in step.PARTS)
    assert "goal 5x" in printed
    assert re.search(r"ours +[\d.]+ s the first reconstruction of 16 x 16 x 16", printed)


def test_a_gpu_compares_the_backends_that_it_has(monkeypatch):
    monkeypatch.setattr(step, "present_backends", lambda: ["auto", "reference", "native", "triton"])
    assert step.ways("cuda", bfloat16=False) == {
        "ours, triton": {"backend": "triton"},
        "ours, reference": {"backend": "reference"},
    }
    assert [*step.ways("cpu", bfloat16=True)] == ["ours", "ours, bfloat16"]


def test_the_command_for_a_gpu_measures_every_backend_and_plain_without_parts(monkeypatch, capsys):
    """On the CPU in the place of the GPU, with its backends in the place of the GPU's."""
    monkeypatch.setattr(step, "choose_device", lambda name, threads: torch.device("cpu"))
    monkeypatch.setattr(step, "ON_GPU", ("lattice", "reference"))
    command("--device", "cuda")
    printed = capsys.readouterr().out
    for name in ("ours, lattice", "ours, reference"):
        assert re.search(rf"{name} +[\d.]+ ms per step, [\d.]+x plain in wall time", printed)
        assert re.search(rf"{name} +[\d.]+ s the first reconstruction", printed)
    assert re.search(r"plain +[\d.]+ ms per step, 1\.0x plain", printed)
    assert not any(word in printed for word in ("GFLOP/s", "goal", "limits"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_the_command_runs_on_a_gpu(capsys):
    command("--device", "cuda", "--bfloat16")
    printed = capsys.readouterr().out
    assert all(f"ours, {name}" in printed for name in step.ON_GPU if name in present_backends())


@pytest.mark.parametrize("benchmark", [step, encoding])
def test_without_a_gpu_its_command_ends_in_words(benchmark, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        UserError, match=r"device 'cuda' was asked for, but torch sees no CUDA device. Use --device cpu"
    ):
        benchmark.main(["--device", "cuda"])


def test_everything_of_plain_is_where_the_network_is(monkeypatch):
    """A tensor without values stands for one on a GPU: torch refuses to mix it with others just so."""
    model = step.make_model(step.invent_examples(16, 2, "cone"), TINY)
    plain = PlainSpider(model).to("meta")
    monkeypatch.setattr(plain_spider, "dice_loss", lambda logits, label: (logits.sum(dim=1) * label).mean())
    loss = plain.loss(step.invent_examples(16, 2, "cone"), step.lattice_of(model, 3))
    loss.backward()
    assert loss.is_meta and plain.table.grad.is_meta


def test_the_clock_is_read_when_the_device_has_done_its_work(monkeypatch):
    said, number = [], torch.nn.Linear(1, 1)
    monkeypatch.setattr(step, "wait", lambda device: said.append(f"wait for {device}"))
    monkeypatch.setattr(step.time, "perf_counter", lambda: said.append("clock") or 0.0)
    optimizer = SimpleNamespace(zero_grad=lambda set_to_none: None, step=lambda: said.append("optimiser"))
    loss = lambda turn: said.append("loss") or number(torch.ones(1)).sum()  # noqa: E731
    step.Contender("ours", number, loss, optimizer).step(0, SimpleNamespace(enter=lambda *given: None))
    assert said == ["wait for cpu", "clock", "loss", "optimiser", "wait for cpu", "clock"]


def test_a_first_reconstruction_is_timed_without_what_an_earlier_one_kept(monkeypatch, capsys):
    """Three times a first, a second and a later case, and a first one more that does not count: 4 + 3 encode the voxels."""
    examples = step.invent_examples(16, 1, "parallel")
    ours, plain = step.contenders(examples, TINY, {"ours": {}}, torch.device("cpu"))
    encoded, part = [], ours.model.position_part
    monkeypatch.setattr(ours.model, "position_part", lambda voxels: encoded.append(voxels) or part(voxels))
    step.print_reconstructions([ours, plain], examples[0])
    assert len(encoded) == 7 * 16 / SLAB
    printed = capsys.readouterr().out
    assert re.search(r"ours +[\d.]+ s the first .+ [\d.]+ s the second, [\d.]+ s a later one\n", printed)
    assert re.search(r"plain +[\d.]+ s any, [\d.]+ times the fastest first one", printed)


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
@pytest.mark.parametrize("failing", ["tiny*cuda*nn", "is_available"])
def test_bench_gpu_goes_on_without_tiny_cuda_nn_and_not_without_a_gpu(failing, tmp_path):
    """With a python that writes down what it is asked and fails at some of it."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in ("torch", "demo", "nnunet"):
        (tmp_path / ".venv" / name).touch()
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\necho "$@" >> asked\ncase "$*" in *{failing}*) exit 1;; esac\n')
    python.chmod(0o755)
    (python.parent / "snakemake").write_text('#!/bin/sh\necho snakemake "$@" >> asked\n')
    (python.parent / "snakemake").chmod(0o755)
    done = subprocess.run(["make", "bench-gpu"], cwd=tmp_path, capture_output=True, text=True)
    asked = (tmp_path / "asked").read_text().splitlines()
    if failing == "is_available":
        assert done.returncode and len(asked) == 1
    else:
        assert done.returncode == 0 and "note: tiny-cuda-nn cannot be built here" in done.stdout
        step = asked.index("-m benchmarks.step --device cuda --bfloat16")
        assert asked[step - 1] == "-m benchmarks.encoding --device cuda"
        assert asked[step - 2].endswith("git+https://github.com/NVlabs/tiny-cuda-nn/#subdirectory=bindings/torch")
        benches = [line.split()[line.split().index("--directory") + 1] for line in asked[step + 1 :]]
        assert benches == ["results/bench_pelvis_64"] * 2 + ["results/bench_pelvis_128"] * 2  # shards, then all
