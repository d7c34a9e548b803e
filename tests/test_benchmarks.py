"""The benchmark's own exact answers, against arithmetic: they judge everyone, so nobody else may have made them."""

import importlib.metadata

import numpy as np
import pytest

from benchmarks import peers, scene
from pipeline.geometry import make_view

SPACING = (2.0, 3.0, 5.0)


def one_voxel():
    """A voxel of 0.04 per mm at index (x, y, z) = (2, 1, 4) of a 6 x 5 x 7 grid, and its place in the world."""
    mu = np.zeros((7, 5, 6), np.float32)
    mu[4, 1, 2] = 0.04
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = (-11.0, 7.0, 40.0)
    return mu, affine, affine[:3, :3] @ [2, 1, 4] + affine[:3, 3]


@pytest.mark.parametrize(("name", "length_mm"), [("PA", 3.0), ("LAT", 2.0)])
def test_a_ray_through_one_voxel_by_hand(name, length_mm):
    mu, affine, centre = one_voxel()
    view = make_view(name, centre, beam="parallel", detector_px=(9, 11), pixel_mm=0.5)
    siddon, trilinear = (
        exact(mu, affine, view, scene.some_pixels(view, 1)).reshape(9, 11)
        for exact in (scene.exact_siddon, scene.exact_trilinear)
    )
    # a box for Siddon; a hat for trilinear, which has the same integral along its axis and falls to 0 within one voxel
    assert siddon[4, 5] == pytest.approx(0.04 * length_mm)
    assert trilinear[4, 5] == pytest.approx(0.04 * length_mm)
    across = 2.0 if name == "PA" else 3.0
    assert trilinear[4, 7] == pytest.approx(0.04 * length_mm * (1 - 1.0 / across))
    assert siddon[4, 7 if name == "LAT" else 6] == pytest.approx(0.04 * length_mm)
    assert siddon[4, 9] == pytest.approx(0.0)
    assert trilinear[0, 5] == pytest.approx(0.04 * length_mm * (1 - 2.0 / 5.0))


def test_a_slanted_ray_through_a_uniform_block_by_hand():
    mu, affine = np.full((8, 8, 8), 0.02), np.eye(4)
    view = make_view(
        {"name": "45", "alpha_deg": 45.0}, np.full(3, 3.5), beam="parallel", detector_px=(1, 1), pixel_mm=1.0
    )
    chosen = scene.some_pixels(view, 1)
    assert scene.exact_siddon(mu, affine, view, chosen)[0] == pytest.approx(0.02 * 8 * 2**0.5)
    # 7 voxels of full density between the outermost centres; beyond each end (1 - t)^2 over one voxel: a third of it
    assert scene.exact_trilinear(mu, affine, view, chosen)[0] == pytest.approx(0.02 * (7 + 2 / 3) * 2**0.5)


def test_the_mean_error_leaves_out_rays_that_meet_almost_nothing():
    exact = np.array([1.0, 0.5, 0.049, 0.0])
    assert scene.mean_error(np.array([1.1, 0.5, 9.0, 9.0]), exact) == pytest.approx(0.05)


def test_a_peer_that_is_not_installed_says_how_to_install_it(monkeypatch):
    def missing(package):
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(peers.shutil, "which", lambda name: None)
    mu, affine, _ = one_voxel()
    views = scene.cone_views(["PA", "LAT"], 4, 1.5)
    everyone = [value for value in vars(peers).values() if isinstance(value, peers.Peer)]
    assert len(everyone) == 8
    for peer in everyone:
        with pytest.raises(peers.NotInstalled, match="pip install"):
            peer.prepare(mu, affine, views)
        assert peer.version() == ""
