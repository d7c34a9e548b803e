"""Simulators as values: what is wrong is named, whoever gives it; and CTs in memory that are none."""

from dataclasses import fields

import numpy as np
import pytest

from pipeline.config import schema
from pipeline.errors import UserError
from pipeline.physics.spectra import spectrum_names
from pipeline.projectors import PROJECTORS
from pipeline.simulators import Simulator, check_volume, make_simulator, tube_spectrum

CONE = {
    "beam": "cone",
    "backend": "joseph",
    "views": ("PA", "LAT"),
    "detector_px": (20, 30),
    "pixel_mm": 2.0,
    "sdd_mm": 1000.0,
    "sod_mm": 700.0,
    "energy_kev": 60.0,
}
AFFINE = np.diag([2.0, 3.0, 5.0, 1.0])


def test_the_first_eight_fields_stay_and_the_others_are_the_leaves_of_the_config():
    names = [item.name for item in fields(Simulator)]
    assert names[:8] == list(CONE)
    rules = schema()["properties"]["simulators"]["additionalProperties"]["properties"]
    assert set(names) == set(rules)
    bare = Simulator(*CONE.values())
    for name, rule in rules.items():
        if name not in CONE:
            value = getattr(bare, name)
            assert (list(value) if isinstance(value, tuple) else value) == rule.get("default"), name


def test_the_config_offers_what_there_is():
    rules = schema()["properties"]["simulators"]["additionalProperties"]["properties"]
    offered = {name: rules[name]["enum"] for name in ("beam", "physics", "materials", "scatter", "grid")}
    for name, choices in offered.items():
        for choice in choices:
            make_simulator({**CONE, "physics": "realistic", name: choice})
        with pytest.raises(UserError, match=f"expected one of: {', '.join(choices)}"):
            make_simulator({**CONE, name: "?"})
    described = {*rules["backend"]["description"].replace(";", ",").replace(".", "").replace(":", ",").split(", ")}
    assert {backend for backends in PROJECTORS.values() for backend in backends} <= described
    assert all(name in rules["spectrum"]["description"] for name in spectrum_names())


def test_values_become_their_canonical_types():
    simulator = make_simulator(
        {**CONE, "sdd_mm": 1000, "detector_px": [20, np.int64(30)], "offset_mm": np.array([1, 2])}
    )
    assert simulator == Simulator(**CONE, offset_mm=(1.0, 2.0))
    assert isinstance(simulator.sdd_mm, float) and simulator.detector_px == (20, 30)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"beam": "fan"}, "beam is 'fan'; expected one of: parallel, cone"),
        ({"backend": "josef"}, "backend 'josef' cannot simulate a cone beam; .* Did you mean 'joseph'"),
        ({"backend": "astra"}, "backend 'astra' cannot simulate a cone beam; expected one of: joseph"),
        ({"physics": "realistc"}, "physics is 'realistc'; .* Did you mean 'realistic'"),
        (
            {"materials": "deepdrr"},
            "materials is 'deepdrr'; expected one of: deepdrr-v1, smooth-v1. Did you mean 'deepdrr-v1'",
        ),
        (
            {"scatter": "monte carlo"},
            "scatter is 'monte carlo'; expected one of: none, kernel, montecarlo. Did you mean",
        ),
        ({"grid": "r9"}, "grid is 'r9'; expected one of: none, r8, r10, r12"),
        ({"physics": "realistic", "spectrum": "80KV"}, "spectrum '80KV' is not known; expected one of: 60KV_AL35"),
        ({"physics": "realistic", "kvp": 75.0}, "kvp 75 without filter_mm_al; expected a filter"),
        ({"physics": "realistic", "filter_mm_al": 2.5}, "filter_mm_al 2.5 without kvp; expected both"),
        ({"kvp": 90.0}, "kvp 90.0 has no meaning for physics 'monoenergetic'; .* leave kvp out"),
        ({"photons": -1}, "photons is -1; expected at least 0"),
        ({"photons": "many"}, "photons is 'many'; expected a finite number. Write it .* without quotes"),
        ({"photons": float("nan")}, "photons is nan; expected a finite number"),
        ({"photons": True}, "photons is True; expected a finite number"),
        ({"psf_px": -0.5}, "psf_px is -0.5; expected at least 0"),
        ({"scatter_photons": 0}, "scatter_photons is 0; expected at least 10000"),
        ({"scatter_photons": 20000.5}, "scatter_photons is 20000.5; expected a whole number"),
        ({"scatter": "kernel"}, "scatter 'kernel' has no meaning for physics 'monoenergetic'"),
        ({"physics": "realistic", "psf_px": 1e9}, "psf_px 1e\\+09; expected"),
        ({"backend": 5}, "backend is 5; expected a name"),
        ({"pixel_mm": 0.0}, "pixel_mm is 0; expected more than 0"),
        ({"pixel_mm": -2.0}, "pixel_mm is -2; expected more than 0"),
        ({"energy_kev": float("inf")}, "energy_kev is inf; expected a finite number"),
        ({"roll_deg": "30"}, "roll_deg is '30'; expected a finite number. .* without quotes"),
        ({"offset_mm": 3.0}, r"offset_mm is 3.0; expected two finite numbers \(u, v\)"),
        ({"offset_mm": ("1", "2")}, "offset_mm is .* expected two finite numbers"),
        (
            {"detector_px": (0, 30)},
            r"detector_px is \(0, 30\); expected two whole numbers \(rows, columns\) from 1 to 8192",
        ),
        ({"detector_px": (20.5, 30)}, "detector_px is .* expected two whole numbers"),
        ({"detector_px": (20,)}, "detector_px is .* expected two whole numbers"),
        (
            {"sod_mm": 1000.0},
            "sod_mm 1000 and sdd_mm 1000 put the patient behind the tube or the detector; expected 0 <",
        ),
        ({"sod_mm": 0.0}, "expected 0 < sod_mm < sdd_mm"),
        ({"views": "PA"}, "views is 'PA'; expected a list of at least one view"),
        ({"views": ()}, "expected a list of at least one view"),
        ({"views": ("PA", "PA")}, r"views names a view twice \(PA, PA\)"),
        ({"views": ("XX",)}, "view 'XX' is not known; expected one of: PA, LAT, AP, RLAT"),
        ({"views": ({"name": "a/b", "alpha_deg": 3.0},)}, "view name 'a/b'; expected 1 to 32 letters"),
        (
            {"views": ({"name": "a", "alpha_deg": "30"},)},
            "view a: an angle is '30'; expected a finite number of degrees",
        ),
        ({"views": ({"name": "a", "alpha_deg": {"uniform": [3, 1]}},)}, "expected {uniform: .* low first"),
        ({"views": ({"name": "a", "alpha_deg": {"unifrm": [1, 3]}},)}, "expected {uniform: "),
        ({"views": ({"name": "a", "alpha_deg": {"uniform": ["1", "3"]}},)}, "expected {uniform: "),
        ({"views": ({"name": "a", "alpha_deg": {"uniform": [0, float("inf")]}},)}, "expected {uniform: "),
        ({"views": ({"name": "a", "alpha_deg": [1, 3]},)}, r"view a: an angle is \[1, 3\]"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
def test_a_wrong_leaf_is_named(change, words):
    with pytest.raises(UserError, match=words):
        make_simulator({**CONE, **change})


def test_a_parallel_beam_needs_no_distances():
    assert Simulator(**{**CONE, "beam": "parallel", "sdd_mm": 0.0, "sod_mm": 0.0}).sdd_mm == 0.0


def test_errors_of_a_config_say_where_and_unknown_keys_are_told_the_nearest():
    with pytest.raises(UserError, match="^simulators.a: pixel_mm is -1"):
        make_simulator({**CONE, "pixel_mm": -1.0}, label="simulators.a: ")
    with pytest.raises(UserError, match="simulator key is 'pixel'; .* Did you mean 'pixel_mm'"):
        make_simulator({**CONE, "pixel": 3.0})


def test_a_tube_voltage_picks_its_named_spectrum():
    assert tube_spectrum(Simulator(**CONE, physics="realistic")).name == "90KV_AL40"
    for name, (kvp, filter_mm_al) in spectrum_names().items():
        assert tube_spectrum(Simulator(**CONE, physics="realistic", spectrum=name)).name == name
        assert tube_spectrum(Simulator(**CONE, physics="realistic", kvp=kvp)).name == name
        assert tube_spectrum(Simulator(**CONE, physics="realistic", kvp=kvp, filter_mm_al=filter_mm_al)).name == name


def test_a_ct_in_memory_is_accepted():
    check_volume(np.zeros((2, 3, 4), np.int16), AFFINE)
    check_volume(np.zeros((2, 3, 4), np.int16), np.diag([-2, 3, 5, 1]))


def bad_affine(row, column, value):
    affine = AFFINE.copy()
    affine[row, column] = value
    return affine


@pytest.mark.parametrize(
    ("ct_hu", "affine", "words"),
    [
        ([[[0]]], AFFINE, "ct_hu is a list; expected a NumPy array"),
        (np.zeros((2, 2, 2, 2), np.int16), AFFINE, r"shape \(2, 2, 2, 2\); expected three axes .* Take one volume"),
        (np.zeros((4, 4), np.int16), AFFINE, r"shape \(4, 4\); expected three axes"),
        (np.zeros((0, 4, 4), np.int16), AFFINE, r"shape \(0, 4, 4\); expected at least 2 voxels"),
        (np.zeros((1, 1, 1), np.int16), AFFINE, r"shape \(1, 1, 1\); expected at least 2 voxels along each axis"),
        (
            np.full((2, 3, 4), np.nan, np.float32),
            AFFINE,
            "ct_hu is float32 and holds 24 NaN or infinite values; expected int16",
        ),
        (np.zeros((2, 3, 4)), AFFINE, r"ct_hu is float64; expected int16 HU. Use np.rint\(np.clip"),
        (np.zeros((2, 3, 4), complex), AFFINE, "ct_hu is complex128; expected int16 HU"),
        (np.zeros((2, 3, 4), np.uint16), AFFINE, "ct_hu is uint16; expected int16 HU"),
        (np.zeros((2, 3, 4), np.int16), np.eye(3), r"affine is of shape \(3, 3\) .* expected a 4 x 4 array"),
        (np.zeros((2, 3, 4), np.int16), None, "affine is None; expected a 4 x 4 array"),
        (np.zeros((2, 3, 4), np.int16), AFFINE.astype(str), "expected a 4 x 4 array of numbers"),
        (np.zeros((2, 3, 4), np.int16), bad_affine(0, 3, np.nan), "expected finite mm and the last row 0 0 0 1"),
        (np.zeros((2, 3, 4), np.int16), bad_affine(3, 3, 2.0), "last row 0 0 0 1"),
        (np.zeros((2, 3, 4), np.int16), bad_affine(2, 2, 0.0), "is singular: its axes lie in one plane"),
        (np.zeros((2, 3, 4), np.int16), np.ones((4, 4)) - np.diag([0, 0, 0, 0.0]), "last row"),
    ],
)
def test_what_is_no_ct_is_refused_in_words(ct_hu, affine, words):
    with pytest.raises(UserError, match=words):
        check_volume(ct_hu, affine)


def test_two_parallel_axes_are_singular_however_small_the_voxels():
    tiny = np.diag([1e-3, 1e-3, 1e-3, 1.0])
    check_volume(np.zeros((2, 3, 4), np.int16), tiny)
    tiny[:3, 1] = 2 * tiny[:3, 0]
    with pytest.raises(UserError, match="is singular"):
        check_volume(np.zeros((2, 3, 4), np.int16), tiny)
