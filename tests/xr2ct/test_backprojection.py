"""FBP and FDK of an off-centre ball: closed-form X-rays in, the ball's HU and place out."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.geometry import make_view
from xr2ct.cases import Task
from xr2ct.errors import UserError
from xr2ct.models.backprojection import (
    Backprojection,
    BackprojectionSettings,
    angular_weights,
    backproject,
    central_rays,
    filter_view,
    isocentre,
    magnification_weight,
    rotation_axis,
)
from xr2ct.sampling import Lattice
from xr2ct.shards import Xray

MU_WATER = 0.02
AFFINE = np.array([[2.0, 0, 0, -31], [0, 3.0, 0, -40], [0, 0, 2.5, 90], [0, 0, 0, 1]])
SHAPE = (24, 28, 34)
MIDDLE = (AFFINE @ [(34 - 1) / 2, (28 - 1) / 2, (24 - 1) / 2, 1])[:3]
BALL, RADIUS, BALL_HU = MIDDLE + [7, -5, 4], 20.0, 300.0


def xrays_of_ball(beam, angles, turned=False):
    """Line integrals of the ball: chord length times attenuation. `turned` swaps the detector's rows and columns."""
    views = [
        make_view(
            {"name": f"{angle:g}", "alpha_deg": float(angle)},
            MIDDLE,
            beam=beam,
            detector_px=(100, 110),
            pixel_mm=1.5,
            sdd_mm=260.0,
            sod_mm=160.0,
        )
        for angle in angles
    ]
    images = []
    for view in views:
        pixel, along = view.rays()
        aside = np.cross(pixel - BALL, along)
        chord = 2 * np.sqrt(np.maximum(RADIUS**2 - (aside**2).sum(-1), 0))
        images.append(chord * MU_WATER * (1 + BALL_HU / 1000))
    swap = [1, 0, 2] if turned else [0, 1, 2]
    image = np.float32(images)
    return Xray(
        views=[view.name for view in views],
        image=image.swapaxes(1, 2) if turned else image,
        projection=np.stack([view.projection()[swap] for view in views]),
        source_mm=np.stack([view.source_mm for view in views]),
        detector_mm=np.stack([view.detector_mm()[[0, 2, 1] if turned else [0, 1, 2]] for view in views]),
        attrs={"beam": beam, "mu_water_per_mm": MU_WATER},
    )


def distance_to_ball():
    z, y, x = np.indices(SHAPE)
    world = np.stack([x, y, z, np.ones(SHAPE)], axis=-1) @ AFFINE.T
    return world[..., :3], np.linalg.norm(world[..., :3] - BALL, axis=-1)


@pytest.mark.parametrize("turned", [False, True], ids=["upright", "turned detector"])
@pytest.mark.parametrize(("beam", "span"), [("parallel", 180), ("cone", 360)])
def test_many_views_give_the_balls_hu_and_place_back(beam, span, turned):
    xray = xrays_of_ball(beam, np.arange(72) * span / 72, turned)
    task = Task(beam, tuple(xray.views), ("background",), SHAPE, (-1000.0, 1500.0))
    prediction = Backprojection(task, BackprojectionSettings()).predict(xray, AFFINE)
    world, distance = distance_to_ball()
    assert prediction.label is None
    assert prediction.ct_hu[distance < RADIUS - 4].mean() == pytest.approx(BALL_HU, abs=10)
    assert prediction.ct_hu[distance > RADIUS + 4].mean() == pytest.approx(-1000, abs=20)
    density = np.where(distance < RADIUS + 10, prediction.ct_hu + 1000.0, 0).clip(min=0)
    centroid = (world * density[..., None]).sum(axis=(0, 1, 2)) / density.sum()
    assert centroid == pytest.approx(BALL, abs=0.25)


@pytest.mark.parametrize("beam", ["parallel", "cone"])
def test_two_views_are_highest_where_their_shadows_cross(beam):
    mu_per_mm = backproject(xrays_of_ball(beam, [0, 90]), AFFINE, SHAPE)
    world, _ = distance_to_ball()
    both = mu_per_mm > 0.75 * np.percentile(mu_per_mm, 99)  # one shadow alone gives half
    assert world[both].mean(axis=0) == pytest.approx(BALL, abs=1.5)


def test_views_share_half_a_turn():
    axis = np.array([0.0, 0, 1])

    def weights_deg(*angles):
        rays = np.stack([[np.cos(a), np.sin(a), 0] for a in np.deg2rad(angles)])
        return np.rad2deg(angular_weights(rays, axis))

    assert weights_deg(10) == pytest.approx([180])
    assert weights_deg(0, 90) == pytest.approx([90, 90])
    assert weights_deg(0, 90, 180, 270) == pytest.approx([45, 45, 45, 45])
    assert weights_deg(20, 0, 60) == pytest.approx([30, 70, 80])  # gaps 20, 40 and 120 to the next half turn


@pytest.mark.parametrize("beam", ["parallel", "cone"])
def test_the_gantry_is_found_in_the_geometry_alone(beam):
    xray = xrays_of_ball(beam, [0, 50, 110])
    assert np.abs(rotation_axis(xray)) == pytest.approx([0, 0, 1])
    assert central_rays(xray)[0] == pytest.approx([0, 1, 0])
    if beam == "cone":
        assert isocentre(xray) == pytest.approx(MIDDLE)


def test_cone_rays_are_weighted_by_their_cosine(monkeypatch):
    monkeypatch.setattr("xr2ct.models.backprojection.ramp_filter", lambda rows, pitch_mm: rows)
    xray = xrays_of_ball("cone", [0, 90])
    weighted = filter_view(replace(xray, image=np.ones_like(xray.image)), 1, np.array([0.0, 0, 1]))
    v, u = np.indices((100, 110))
    expected = 260 / np.sqrt(260**2 + ((u - 54.5) * 1.5) ** 2 + ((v - 49.5) * 1.5) ** 2)
    assert weighted == pytest.approx(expected)


def test_near_voxels_weigh_more_by_the_square_of_their_depth():
    place = Lattice(np.array([2, 20]), np.array([0, 27]), np.array([5]), SHAPE)
    lat = magnification_weight(xrays_of_ball("cone", [0, 90]), 1, AFFINE, place)  # rays run to -x from x = 160 + middle
    assert lat == pytest.approx(np.full((2, 2, 1), 160 * 260 / (160 + MIDDLE[0] - (2 * 5 - 31)) ** 2))
    frontal = magnification_weight(xrays_of_ball("cone", [0, 90]), 0, AFFINE, place)  # from y = middle - 160 to +y
    depth = 160 + np.array([-40, 3 * 27 - 40]) - MIDDLE[1]
    assert frontal[0, :, 0] == pytest.approx(160 * 260 / depth**2)
    assert frontal[1] == pytest.approx(frontal[0])


def test_missing_attenuation_of_water_is_said():
    xray = xrays_of_ball("parallel", [0, 90])
    xray.attrs.pop("mu_water_per_mm")
    task = Task("parallel", ("0", "90"), ("background",), SHAPE, (-1000.0, 1500.0))
    with pytest.raises(UserError, match="mu_water_per_mm"):
        Backprojection(task, BackprojectionSettings()).predict(xray, AFFINE)
