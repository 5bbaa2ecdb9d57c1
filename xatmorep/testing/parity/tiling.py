"""AtmoRep's tiling of the globe, and the weights of its rows in the loss."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["global_tiles", "latitude_weight_table"]


def global_tiles(
    resolution: float | tuple[float, float],
    num_tokens: tuple[int, int],
    token_size: tuple[int, int],
    overlap: tuple[int, int] = (0, 0),
) -> npt.NDArray[np.float64]:
    """Centers of the neighborhoods with which the original covers the globe.

    Rows follow each other from the north pole, and one more always reaches the south pole. Each
    begins near Greenwich, and its last neighborhood goes on beyond it where the circle is no
    multiple of the side. Where the side divides 180 degrees, the grid points just north of the
    last row are left out.

    Parameters
    ----------
    resolution : float or (float, float)
        Degrees between grid points in (latitude, longitude), or one number for both.
    num_tokens : (int, int)
        Tokens of a neighborhood in (latitude, longitude).
    token_size : (int, int)
        Grid points of a token in (latitude, longitude).
    overlap : (int, int)
        Tokens that neighborhoods share with the next one in (latitude, longitude); more than
        half of the neighborhood counts as half.

    Returns
    -------
    (tiles, 2) float64 array
        Degrees north and degrees east of each center, rows from north to south.

    Examples
    --------
    >>> global_tiles(36, (1, 1), (2, 5))
    array([[ 54.,  90.],
           [ 54., 270.],
           [-18.,  90.],
           [-18., 270.],
           [-90.,  90.],
           [-90., 270.]])
    """
    steps = np.broadcast_to(np.asarray(resolution, dtype=np.float64), 2).tolist()
    token = [size * step for size, step in zip(token_size, steps, strict=True)]
    height, width = (count * size for count, size in zip(num_tokens, token, strict=True))
    shared = [
        min(tokens * size, side / 2)
        for tokens, size, side in zip(overlap, token, (height, width), strict=True)
    ]
    # Sums rather than multiples: rounding is that of the original at any resolution.
    rows, colatitude = [], height / 2
    while colatitude + height / 2 < 180:
        rows.append(colatitude)
        colatitude += height - shared[0]
    rows.append(180 - height / 2 + steps[0])
    columns, longitude = [], width / 2 - shared[1] / 2
    while longitude - width / 2 < 360:
        columns.append(longitude % 360)
        longitude += width - shared[1]
    return np.array([(90 - row, column) for row in rows for column in columns])


def latitude_weight_table() -> npt.NDArray[np.float32]:
    """Weights of the 721 rows of a grid of 0.25 degrees, from north to south.

    The original's steps are those of 722 rows, so that only the northernmost weight is that of a
    pole.

    Returns
    -------
    (721,) float32 array
        Cosine of the latitude, computed in float64.

    Examples
    --------
    >>> latitude_weight_table()[[0, 360, 720]].round(6)
    array([0.      , 0.999998, 0.004357], dtype=float32)
    """
    latitude: npt.NDArray[np.float64] = np.pi / 2 - np.arange(721) * np.pi / 721
    return np.cos(latitude).astype(np.float32)
