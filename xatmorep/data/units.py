"""Units of atmospheric data: a small parser, and conversions between units of one kind."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from xatmorep.errors import ConventionError

__all__ = ["Conversion", "convert_units"]

# Dimensions are exponents of (length, mass, time, temperature, amount of substance).
_Dimensions = tuple[int, int, int, int, int]
_NUMBER: _Dimensions = (0, 0, 0, 0, 0)
_LENGTH: _Dimensions = (1, 0, 0, 0, 0)
_MASS: _Dimensions = (0, 1, 0, 0, 0)
_TIME: _Dimensions = (0, 0, 1, 0, 0)
_TEMPERATURE: _Dimensions = (0, 0, 0, 1, 0)
_AMOUNT: _Dimensions = (0, 0, 0, 0, 1)
_PRESSURE: _Dimensions = (-1, 1, -2, 0, 0)
_ENERGY: _Dimensions = (2, 1, -2, 0, 0)
_POWER: _Dimensions = (2, 1, -3, 0, 0)
_MASS_PER_AREA: _Dimensions = (-2, 1, 0, 0, 0)

_SPELLINGS: tuple[tuple[str, _Dimensions, float], ...] = (
    ("1 ~ fraction dimensionless", _NUMBER, 1.0),
    ("% percent", _NUMBER, 0.01),
    ("m meter meters metre metres gpm", _LENGTH, 1.0),
    ("km", _LENGTH, 1e3),
    ("cm", _LENGTH, 1e-2),
    ("mm millimeter millimeters millimetre millimetres", _LENGTH, 1e-3),
    ("kg kilogram kilograms", _MASS, 1.0),
    ("g gram grams", _MASS, 1e-3),
    ("mg", _MASS, 1e-6),
    ("s sec second seconds", _TIME, 1.0),
    ("min minute minutes", _TIME, 60.0),
    ("h hr hour hours", _TIME, 3600.0),
    ("d day days", _TIME, 86400.0),
    ("K kelvin Kelvin degK", _TEMPERATURE, 1.0),
    ("mol mole moles", _AMOUNT, 1.0),
    ("Pa pascal pascals Pascal", _PRESSURE, 1.0),
    ("hPa hectopascal hectopascals mb mbar millibar millibars", _PRESSURE, 1e2),
    ("kPa", _PRESSURE, 1e3),
    ("bar", _PRESSURE, 1e5),
    ("J joule joules", _ENERGY, 1.0),
    ("kJ", _ENERGY, 1e3),
    ("W watt watts", _POWER, 1.0),
)
_BASE: dict[str, tuple[_Dimensions, float]] = {
    word: (dimensions, scale) for words, dimensions, scale in _SPELLINGS for word in words.split()
}

# Temperatures with a zero of their own: value in K = scale * value + offset.
_CELSIUS = ("C", "°C", "celsius", "Celsius", "degC", "deg_C", "degreeC")
_FAHRENHEIT = ("F", "°F", "fahrenheit", "Fahrenheit", "degF", "deg_F", "degreeF")
_TEMPERATURES = {
    spelling: unit
    for words, unit in ((_CELSIUS, (1.0, 273.15)), (_FAHRENHEIT, (5 / 9, 459.67 * 5 / 9)))
    for word in words
    for spelling in (word, f"degree_{word}", f"degrees_{word}")
}

# Ratios whose parts would cancel, and words that are no units: ERA5's way to say a fraction.
_MOLE_FRACTION: _Dimensions = (0, 0, 0, 0, 99)
_WHOLE: dict[str, tuple[_Dimensions, float]] = {
    "mol mol-1": (_MOLE_FRACTION, 1.0),
    "mole mole-1": (_MOLE_FRACTION, 1.0),
    "(0 - 1)": (_NUMBER, 1.0),
    "0-1": (_NUMBER, 1.0),
}

_FACTOR = re.compile(r"(?P<base>[A-Za-z_%~°]+|1)(?P<power>[+-]?\d+)?")


@dataclass(frozen=True)
class Conversion:
    """Linear change of units: ``wanted = scale * found + offset``.

    Examples
    --------
    >>> Conversion(scale=100.0).apply(850.0)
    85000.0
    """

    scale: float = 1.0
    offset: float = 0.0

    @property
    def is_identity(self) -> bool:
        """Whether values stay as they are."""
        return self.scale == 1.0 and self.offset == 0.0

    def apply(self, values: Any) -> Any:
        """Values in the units found -> values in the units wanted."""
        return values * self.scale + self.offset

    def invert(self, values: Any) -> Any:
        """Values in the units wanted -> values in the units found."""
        return (values - self.offset) / self.scale


def convert_units(found: str, wanted: str, *, what: str, water: bool = False) -> Conversion:
    """Conversion from one unit to another of the same kind.

    Parameters
    ----------
    found, wanted : str
        Units in any of the usual spellings: ``"m s-1"``, ``"m/s"``, ``"m s**-1"``, ``"m.s-1"``.
    what : str
        Whose units they are, for the error message.
    water : bool
        Whether the quantity is an amount of water, so that 1 kg m-2 is a depth of 1 mm.

    Raises
    ------
    ConventionError
        If the units are of different kinds, or not understood and not spelled alike.

    Examples
    --------
    >>> convert_units("hPa", "Pa", what="msl")
    Conversion(scale=100.0, offset=0.0)
    >>> convert_units("degC", "K", what="tas")
    Conversion(scale=1.0, offset=273.15)
    >>> convert_units("g/kg", "kg kg-1", what="q")
    Conversion(scale=0.001, offset=0.0)
    >>> convert_units("kg m-2", "m", what="tp", water=True)
    Conversion(scale=0.001, offset=0.0)
    """
    if _tidy(found) == _tidy(wanted):
        return Conversion()
    from_, to = _parse(found), _parse(wanted)
    if from_ is not None and to is not None:
        if water:
            from_, to = _as_depth(from_), _as_depth(to)
        if from_.dimensions == to.dimensions:
            return Conversion(from_.scale / to.scale, (from_.offset - to.offset) / to.scale)
    raise ConventionError(
        f"{what} has units {found!r}, which can't be converted to {wanted!r}: convert the values "
        f"and set .attrs['units'], or choose another variable"
    )


@dataclass(frozen=True)
class _Unit:
    dimensions: _Dimensions
    scale: float
    offset: float = 0.0


def _tidy(text: str) -> str:
    """One spelling of powers, products and blanks; quotients are left to the parser."""
    text = re.sub(r"\s+of water( equivalent)?$", "", text.strip())
    text = text.replace("**", "").replace("^", "").replace("\N{SUPERSCRIPT TWO}", "2")
    text = re.sub(r"\s*[*·]\s*|(?<=\w)\.(?=\w)", " ", text)
    text = re.sub(r"\s*/\s*", "/", text)
    return re.sub(r"\s+", " ", text)


def _parse(text: str) -> _Unit | None:
    text = _tidy(text)
    if text in _WHOLE:
        return _Unit(*_WHOLE[text])
    if text in _TEMPERATURES:
        scale, offset = _TEMPERATURES[text]
        return _Unit(_TEMPERATURE, scale, offset)
    dimensions, scale = list(_NUMBER), 1.0
    numerator, *denominators = text.split("/")
    # As in UDUNITS, a slash divides by the one factor that follows it: kg/m2/s is kg m-2 s-1.
    factors = [(factor, 1) for factor in numerator.split(" ")]
    for part in denominators:
        first, *rest = part.split(" ")
        factors += [(first, -1), *((factor, 1) for factor in rest)]
    for factor, sign in factors:
        match = _FACTOR.fullmatch(factor)
        if match is None or match["base"] not in _BASE:
            return None
        power = sign * int(match["power"] or 1)
        base, base_scale = _BASE[match["base"]]
        dimensions = [d + power * b for d, b in zip(dimensions, base, strict=True)]
        scale *= base_scale**power
    length, mass, time, temperature, amount = dimensions
    return _Unit((length, mass, time, temperature, amount), scale)


def _as_depth(unit: _Unit) -> _Unit:
    """A mass of water per area as the depth of that water (1000 kg m-3)."""
    if unit.dimensions == _MASS_PER_AREA:
        return _Unit(_LENGTH, unit.scale / 1000.0)
    return unit
