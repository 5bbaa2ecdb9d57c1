"""Names of fields: what ECMWF, CMIP6 and CF call the fields that we name as ARCO-ERA5 does."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["FIELDS", "Field", "fields_by_alias", "fields_by_standard_name"]


@dataclass(frozen=True)
class Field:
    """One physical field and its other names.

    Attributes
    ----------
    name : str
        Canonical (ARCO-ERA5) name.
    units : str
        Units that are assumed when a variable is recognized by its name and states none.
    aliases : tuple of str
        ECMWF short names and CMIP6 names.
    standard_names : tuple of str
        CF standard names, together with `levels` and `height`.
    levels : bool
        Whether the field lives on vertical levels.
    height : float or None
        Height in m that a scalar coordinate must state before a standard name is trusted:
        ``air_temperature`` without levels is 2 m temperature only at 2 m.
    water : bool
        Whether the field is an amount of water, so that 1 kg m-2 is a depth of 1 mm.
    """

    name: str
    units: str
    aliases: tuple[str, ...] = ()
    standard_names: tuple[str, ...] = ()
    levels: bool = False
    height: float | None = None
    water: bool = False


def _on_levels(name: str, units: str, aliases: str, standard_name: str) -> Field:
    return Field(name, units, tuple(aliases.split()), (standard_name,), levels=True)


def _surface(
    name: str,
    units: str,
    aliases: str = "",
    standard_names: str = "",
    *,
    height: float | None = None,
    water: bool = False,
) -> Field:
    return Field(
        name,
        units,
        tuple(aliases.split()),
        tuple(standard_names.split()),
        height=height,
        water=water,
    )


# CMIP6 names stand here only where the quantity is the same: not `pr` for an accumulation, not
# `zg` for a geopotential, not `hfls` (upward) for ERA5's downward flux.
_TABLE = (
    _on_levels("temperature", "K", "t ta", "air_temperature"),
    _on_levels("u_component_of_wind", "m s-1", "u ua velocity_u", "eastward_wind"),
    _on_levels("v_component_of_wind", "m s-1", "v va velocity_v", "northward_wind"),
    _on_levels(
        "vertical_velocity",
        "Pa s-1",
        "w wap omega velocity_z",
        "lagrangian_tendency_of_air_pressure",
    ),
    _on_levels("vorticity", "s-1", "vo relative_vorticity", "atmosphere_relative_vorticity"),
    _on_levels("divergence", "s-1", "d", "divergence_of_wind"),
    _on_levels("potential_vorticity", "K m2 kg-1 s-1", "pv", "ertel_potential_vorticity"),
    _on_levels("specific_humidity", "kg kg-1", "q hus", "specific_humidity"),
    _on_levels("relative_humidity", "%", "r hur", "relative_humidity"),
    _on_levels("geopotential", "m2 s-2", "z", "geopotential"),
    _on_levels("geopotential_height", "m", "gh zg", "geopotential_height"),
    _on_levels("wind_speed", "m s-1", "ws", "wind_speed"),
    _on_levels("ozone_mass_mixing_ratio", "kg kg-1", "o3", "mass_fraction_of_ozone_in_air"),
    _on_levels("fraction_of_cloud_cover", "1", "cc cl", "cloud_area_fraction_in_atmosphere_layer"),
    _on_levels(
        "specific_cloud_liquid_water_content",
        "kg kg-1",
        "clwc clw",
        "mass_fraction_of_cloud_liquid_water_in_air",
    ),
    _on_levels(
        "specific_cloud_ice_water_content",
        "kg kg-1",
        "ciwc cli",
        "mass_fraction_of_cloud_ice_in_air",
    ),
    _on_levels("specific_rain_water_content", "kg kg-1", "crwc", "mass_fraction_of_rain_in_air"),
    _on_levels("specific_snow_water_content", "kg kg-1", "cswc", "mass_fraction_of_snow_in_air"),
    _surface("2m_temperature", "K", "t2m 2t tas", "air_temperature", height=2.0),
    _surface("2m_dewpoint_temperature", "K", "d2m 2d", "dew_point_temperature", height=2.0),
    _surface("10m_u_component_of_wind", "m s-1", "u10 10u uas", "eastward_wind", height=10.0),
    _surface("10m_v_component_of_wind", "m s-1", "v10 10v vas", "northward_wind", height=10.0),
    _surface("10m_wind_speed", "m s-1", "si10 10si sfcWind", "wind_speed", height=10.0),
    _surface("100m_u_component_of_wind", "m s-1", "u100 100u", "eastward_wind", height=100.0),
    _surface("100m_v_component_of_wind", "m s-1", "v100 100v", "northward_wind", height=100.0),
    _surface("instantaneous_10m_wind_gust", "m s-1", "i10fg"),
    _surface(
        "mean_sea_level_pressure",
        "Pa",
        "msl psl",
        "air_pressure_at_mean_sea_level air_pressure_at_sea_level",
    ),
    _surface("surface_pressure", "Pa", "sp ps", "surface_air_pressure"),
    _surface("skin_temperature", "K", "skt ts", "surface_temperature"),
    _surface("sea_surface_temperature", "K", "sst tos", "sea_surface_temperature"),
    _surface("sea_ice_cover", "1", "ci siconc sic", "sea_ice_area_fraction"),
    _surface(
        "total_precipitation",
        "m",
        "tp total_precip",
        "lwe_thickness_of_precipitation_amount precipitation_amount",
        water=True,
    ),
    _surface("total_precipitation_6hr", "m", water=True),
    _surface("total_precipitation_12hr", "m", water=True),
    _surface("total_precipitation_24hr", "m", water=True),
    _surface("convective_precipitation", "m", "cp", water=True),
    _surface("large_scale_precipitation", "m", "lsp", water=True),
    _surface("snowfall", "m", "sf", water=True),
    _surface("snow_depth", "m", "sd", "lwe_thickness_of_surface_snow_amount", water=True),
    _surface("evaporation", "m", "e", water=True),
    _surface("runoff", "m", "ro", water=True),
    _surface(
        "mean_total_precipitation_rate", "kg m-2 s-1", "mtpr avg_tprate pr", "precipitation_flux"
    ),
    _surface("mean_convective_precipitation_rate", "kg m-2 s-1", "mcpr avg_cpr prc"),
    _surface("total_cloud_cover", "1", "tcc clt", "cloud_area_fraction"),
    _surface("low_cloud_cover", "1", "lcc"),
    _surface("medium_cloud_cover", "1", "mcc"),
    _surface("high_cloud_cover", "1", "hcc"),
    _surface("total_column_water", "kg m-2", "tcw"),
    _surface(
        "total_column_water_vapour",
        "kg m-2",
        "tcwv prw",
        "atmosphere_mass_content_of_water_vapor",
    ),
    _surface("total_column_cloud_liquid_water", "kg m-2", "tclw"),
    _surface("total_column_cloud_ice_water", "kg m-2", "tciw clivi"),
    _surface("total_column_ozone", "kg m-2", "tco3"),
    _surface("convective_available_potential_energy", "J kg-1", "cape"),
    _surface("convective_inhibition", "J kg-1", "cin"),
    _surface("boundary_layer_height", "m", "blh", "atmosphere_boundary_layer_thickness"),
    _surface("soil_temperature_level_1", "K", "stl1"),
    _surface("soil_temperature_level_2", "K", "stl2"),
    _surface("soil_temperature_level_3", "K", "stl3"),
    _surface("soil_temperature_level_4", "K", "stl4"),
    _surface("volumetric_soil_water_layer_1", "m3 m-3", "swvl1"),
    _surface("volumetric_soil_water_layer_2", "m3 m-3", "swvl2"),
    _surface("volumetric_soil_water_layer_3", "m3 m-3", "swvl3"),
    _surface("volumetric_soil_water_layer_4", "m3 m-3", "swvl4"),
    _surface("toa_incident_solar_radiation", "J m-2", "tisr"),
    _surface("surface_solar_radiation_downwards", "J m-2", "ssrd"),
    _surface("surface_thermal_radiation_downwards", "J m-2", "strd"),
    _surface("surface_net_solar_radiation", "J m-2", "ssr"),
    _surface("surface_net_thermal_radiation", "J m-2", "str"),
    _surface("top_net_solar_radiation", "J m-2", "tsr"),
    _surface("top_net_thermal_radiation", "J m-2", "ttr"),
    _surface("surface_sensible_heat_flux", "J m-2", "sshf"),
    _surface("surface_latent_heat_flux", "J m-2", "slhf"),
    _surface(
        "mean_surface_downward_short_wave_radiation_flux", "W m-2", "msdwswrf avg_sdswrf rsds"
    ),
    _surface("mean_surface_downward_long_wave_radiation_flux", "W m-2", "msdwlwrf avg_sdlwrf rlds"),
    _surface("geopotential_at_surface", "m2 s-2", "z", "geopotential surface_geopotential"),
    _surface("orography", "m", "orog", "surface_altitude"),
    _surface("land_sea_mask", "1", "lsm sftlf", "land_area_fraction land_binary_mask"),
    _surface("standard_deviation_of_orography", "m", "sdor"),
    _surface("soil_type", "1", "slt"),
    _surface("lake_cover", "1", "cl"),
    _surface("lake_depth", "m", "dl"),
    _surface("low_vegetation_cover", "1", "cvl"),
    _surface("high_vegetation_cover", "1", "cvh"),
)

FIELDS: dict[str, Field] = {field.name: field for field in _TABLE}
"""All fields known by name, in the order of the table."""


def _index(pairs: Iterator[tuple[str, Field]]) -> dict[str, tuple[Field, ...]]:
    index: dict[str, list[Field]] = defaultdict(list)
    for key, field in pairs:
        index[key].append(field)
    return {key: tuple(fields) for key, fields in index.items()}


_BY_ALIAS = _index((alias, field) for field in _TABLE for alias in field.aliases)
_BY_STANDARD_NAME = _index((name, field) for field in _TABLE for name in field.standard_names)


def fields_by_alias(alias: str) -> tuple[Field, ...]:
    """Fields that have this short name; several where levels decide.

    Examples
    --------
    >>> [field.name for field in fields_by_alias("z")]
    ['geopotential', 'geopotential_at_surface']
    """
    return _BY_ALIAS.get(alias, ())


def fields_by_standard_name(standard_name: str) -> tuple[Field, ...]:
    """Fields that have this CF standard name; several where levels or a height decide.

    Examples
    --------
    >>> [field.name for field in fields_by_standard_name("air_temperature")]
    ['temperature', '2m_temperature']
    """
    return _BY_STANDARD_NAME.get(standard_name, ())
