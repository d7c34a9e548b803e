import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.physics.monoenergetic import hu_to_mu, mu_water_per_mm


def test_water_at_tabulated_energies():
    """NIST mass attenuation of water, cm2/g at 1 g/cm3: 0.2059 at 60 keV, 0.1707 at 100 keV."""
    assert mu_water_per_mm(60.0) == pytest.approx(0.02059)
    assert mu_water_per_mm(100.0) == pytest.approx(0.01707)
    assert 10 * mu_water_per_mm(70.0) == pytest.approx(0.1929, rel=6e-3)  # NIST XCOM; linear in energy would be 1 % off


def test_air_water_and_bone():
    mu = hu_to_mu(np.array([[[-1024, -1000, 0, 1000]]], np.int16), 60.0)
    np.testing.assert_allclose(mu, [[[0, 0, 0.02059, 2 * 0.02059]]])


def test_energies_outside_the_table_are_refused():
    with pytest.raises(UserError, match="energy_kev 10 lies outside the table; expected 30 to 150"):
        mu_water_per_mm(10.0)
