from __future__ import annotations

import numpy as np
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from tests.tasks import small
from xatmorep.tasks.engine import Application, Options
from xatmorep.tasks.lattice import random_mask, random_points
from xatmorep.tokens.spec import FieldSpec


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
    start=st.integers(0, 7),
    length=st.integers(1, 6),
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
)
def test_a_part_in_time_is_a_part_of_the_whole(shape, start, length, rows, columns):
    field = FieldSpec(name="2m_temperature", units="K", token_shape=shape)
    whole = random_points(field, slice(0, 13), rows, columns, 2, rate=0.5, seed=1)
    part = random_points(field, slice(start, start + length), rows, columns, 2, rate=0.5, seed=1)
    np.testing.assert_array_equal(part, whole[:, :, start : start + length])


def test_samples_fields_and_seeds_differ():
    field = FieldSpec(name="2m_temperature", units="K", token_shape=(1, 2, 2))
    other = field.model_copy(update={"name": "temperature"})
    arguments = (slice(0, 2), 20, 20, 2)
    first = random_points(field, *arguments, rate=0.5, seed=0)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[:, :, 0], first[:, :, 1])
    assert not np.array_equal(first, random_points(other, *arguments, rate=0.5, seed=0))
    assert not np.array_equal(first, random_points(field, *arguments, rate=0.5, seed=1))


def test_the_mask_is_what_predict_hides():
    """Where no neighborhood is shifted in space, exactly."""
    ds = small.dataset().isel(latitude=slice(0, 18))
    model = small.model()
    mask = random_mask(Application.of(ds, model, None, Options()), rate=0.3, seed=5)
    hidden = ds.atmorep.predict(model=model, rate=0.3, seed=5)
    xr.testing.assert_equal(
        mask["2m_temperature"].variable, hidden["2m_temperature_hidden"].variable
    )
    assert mask["temperature"].dims == ("time", "level", "latitude", "longitude")


def test_the_mask_has_the_form_of_the_data():
    ds = small.renamed(small.flipped(small.rolled(small.dataset())))
    application = Application.of(ds, small.model(), None, Options())
    mask = random_mask(application, rate=0.3, seed=5)
    np.testing.assert_array_equal(mask["lat"], ds["lat"])
    np.testing.assert_array_equal(mask["lon"], ds["lon"])
    np.testing.assert_array_equal(mask["ta"]["plev"], [50000, 85000])
