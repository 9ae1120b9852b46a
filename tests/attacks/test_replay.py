from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from verifier.attacks.replay import Replayer, replay
from verifier.errors import InputError
from verifier.graph import load
from verifier.operators import evaluate
from verifier.specs.property import Polytope, Property
from verifier.specs.region import Box


def below(limit: float) -> Polytope:
    """Unsafe: y <= limit."""
    return Polytope(np.array([[1.0]]), np.array([limit]))


def test_a_point_outside_the_region_is_moved_inside(linear_net, cube):
    found = replay(Replayer(linear_net), Property(cube(3), (below(-6.0),)), np.array([[-5.0, -5.0, 5.0]]), index=7)
    assert found is not None and (found.property, found.polytope) == (7, 0)
    assert found.input.dtype == np.float64 and found.input.tolist() == [[-1.0, -1.0, 1.0]]
    assert found.output.dtype == np.float32 and found.output.tolist() == [[-6.0]]


def test_tolerance_is_zero(linear_net, cube):
    corner = np.array([[-1.0, -1.0, 1.0]])
    assert replay(Replayer(linear_net), Property(cube(3), (below(np.nextafter(-6.0, -7)),)), corner) is None
    assert replay(Replayer(linear_net), Property(cube(3), (below(-6.0),)), corner) is not None


def test_reports_the_polytope_that_holds_the_output(linear_net, cube):
    prop = Property(cube(3), (below(-9.0), below(-5.0)))
    found = replay(Replayer(linear_net), prop, np.array([[-1.0, -1.0, 1.0]]))
    assert found is not None and found.polytope == 1


def test_inner_bounds_decide(linear_net, cube):
    prop = Property(cube(3), (Polytope(np.array([[1.0]]), np.array([-6.0]), np.array([-6.1])),))
    assert replay(Replayer(linear_net), prop, np.array([[-1.0, -1.0, 1.0]])) is None


def test_a_coordinate_without_a_float32_value_needs_the_exact_point_too(mlp):
    """x is fixed to 0.1, which float32 rounds up: y = x <= 0.1 holds exactly there, but onnxruntime sees more."""
    graph = load(mlp([(np.array([[1.0]]), np.zeros(1))]))
    tenth = torch.full((1, 1, 1), 0.1, dtype=torch.float64)
    region = Box(tenth, tenth)
    rounded = float(np.float32(0.1))
    assert rounded > 0.1
    replayer, x = Replayer(graph), np.array([[0.1]])
    assert replay(replayer, Property(region, (below(0.1),)), x) is None  # only the exact point is unsafe
    above = Polytope(np.array([[-1.0]]), np.array([-rounded]))
    assert replay(replayer, Property(region, (above,)), x) is None  # only the rounded point is unsafe
    both = replay(replayer, Property(region, (below(rounded),)), x)
    assert both is not None and both.input.tolist() == [[0.1]]


def test_overflow_is_no_witness(mlp, cube):
    graph = load(mlp([(np.array([[3e38]]), np.zeros(1)), (np.array([[-3e38]]), np.zeros(1))]))
    replayer = Replayer(graph)
    assert replayer.run(np.array([[1.0]])).item() == -np.inf
    assert replay(replayer, Property(cube(1), (below(0.0),)), np.array([[1.0]])) is None


def test_an_output_that_does_not_come_again_is_no_witness(linear_net, cube, monkeypatch):
    """onnxruntime returned memory that nothing had been written to."""
    replayer, prop, corner = Replayer(linear_net), Property(cube(3), (below(-6.0),)), np.array([[-1.0, -1.0, 1.0]])
    genuine, runs = replayer.run, []

    def garbage(x: np.ndarray) -> np.ndarray:
        runs.append(x)
        return genuine(x) if len(runs) % 2 else genuine(x) + np.float32(1e-6)

    monkeypatch.setattr(replayer, "run", garbage)
    assert replay(replayer, prop, corner) is None
    assert len(runs) == 2


def test_an_output_that_rounding_does_not_explain_is_no_witness(linear_net, cube, monkeypatch):
    replayer, prop = Replayer(linear_net), Property(cube(3), (below(-100.0),))
    monkeypatch.setattr(replayer, "run", lambda x: np.array([[-1e30]], dtype=np.float32))
    assert replay(replayer, prop, np.array([[-1.0, -1.0, 1.0]])) is None


def test_a_witness_may_lose_digits_as_the_network_does(mlp, cube):
    """Large values cancel, so float32 is off by more than its precision, at the witness as everywhere else."""
    generator = np.random.default_rng(1)
    weight, last = generator.normal(size=(32, 4)) * 1000, generator.normal(size=(1, 32))
    copies = np.concatenate([weight, weight]), np.concatenate([np.zeros(32), np.full(32, 1e-3)])
    replayer = Replayer(load(mlp([copies, (np.concatenate([last, -last], axis=1), np.zeros(1))])))
    x = np.full((1, 4), float(np.float32(0.3)))
    y = evaluate(replayer.exact, torch.from_numpy(x).unsqueeze(0)).item()
    assert abs(replayer.run(x).item() - y) > 1e-3 * abs(y)
    assert replay(replayer, Property(cube(4), (below(100.0),)), x) is not None


def test_what_cannot_be_run_is_refused(linear_net):
    replayer = Replayer(linear_net)
    replayer._input = "another"
    with pytest.raises(InputError, match="onnxruntime cannot run it"):
        replayer.run(np.ones((1, 3)))
    with pytest.raises(InputError, match="onnxruntime cannot run it"):
        replayer.intermediates(np.ones((1, 3)))


def test_gzipped_file(linear_net, tmp_path, cube):
    packed = tmp_path / "net.onnx.gz"
    packed.write_bytes(gzip.compress(linear_net.file.path.read_bytes()))
    assert Replayer(load(packed)).run(np.ones((1, 3))).tolist() == [[0.0]]


def test_external_data_is_found_beside_the_file(linear_net, tmp_path):
    folder = tmp_path / "external"
    folder.mkdir()
    model = onnx.load(linear_net.file.path)
    onnx.save(model, folder / "net.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (folder / "weights.bin").exists()
    assert Replayer(load(folder / "net.onnx")).run(np.ones((1, 3))).tolist() == [[0.0]]


def test_refuses_a_file_that_changed(linear_net):
    path: Path = linear_net.file.path
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(InputError, match="changed"):
        Replayer(linear_net)


def test_refuses_a_missing_file(linear_net):
    linear_net.file.path.unlink()
    with pytest.raises(InputError, match="cannot be read again"):
        Replayer(linear_net)


def test_refuses_a_graph_without_a_file(linear_net):
    with pytest.raises(InputError, match="not read from a file"):
        Replayer(replace(linear_net, file=None))
