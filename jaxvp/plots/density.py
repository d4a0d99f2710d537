r"""Density of shares between 0 and 1, for a figure of many thousand genes in milliseconds.

Shares pile up at the ends of their range, often at exactly 0. A plain kernel estimate would put
half of that mass outside; here the kernel is reflected at both ends, so that all of it stays in.
With the counts ``c`` in M bins followed by their mirror image, reflection at both ends is periodic
with 2M, and the estimate is one product of Fourier transforms,

    density = M/n irfft(rfft([c, mirrored c]) exp(-(pi k h)^2 / 2)),    k = 0 ... M,

which is a Gaussian kernel of standard deviation h (the heat equation with closed ends: Botev,
Grotowski and Kroese 2010, Annals of Statistics 38:2916). The bandwidth h is Silverman's (1986, rule
3.31), 0.9 min(sd, IQR/1.34) n^(-1/5), with sd alone where half of the values are equal.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

BINS = 512
# A spike, such as many exact zeros, is still seen as an area.
LEAST_BANDWIDTH = 0.008


def bandwidth(values: Float[np.ndarray, " n"]) -> float:
    """Silverman's rule of thumb, and at least `LEAST_BANDWIDTH`."""
    spread = values.std()
    lower, upper = np.percentile(values, [25, 75])
    if upper > lower:
        spread = min(spread, (upper - lower) / 1.34)
    return max(0.9 * float(spread) * len(values) ** -0.2, LEAST_BANDWIDTH)


def density(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " bins"]:
    """Kernel density at the centres of `BINS` equal bins of 0 to 1.

    Parameters
    ----------
    values
        At least one, all within 0 and 1.
    """
    bins = np.minimum((values * BINS).astype(np.intp), BINS - 1)
    counts = np.bincount(bins, minlength=BINS) / len(values)
    frequency = np.pi * np.arange(BINS + 1)
    kernel = np.exp(-0.5 * (frequency * bandwidth(values)) ** 2)
    smooth = np.fft.irfft(np.fft.rfft(np.concatenate([counts, counts[::-1]])) * kernel, 2 * BINS)
    return np.maximum(smooth[:BINS], 0.0) * BINS  # rounding makes -1e-17 of zero


def outline(
    values: Float[np.ndarray, " n"],
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """Heights and half widths of a violin whose widest place is 1.

    It ends where the values end (a hair later, so that equal values have an area too).
    """
    low = max(values.min() - LEAST_BANDWIDTH, 0.0)
    high = min(values.max() + LEAST_BANDWIDTH, 1.0)
    centres = (np.arange(BINS) + 0.5) / BINS
    inside = centres[(centres > low) & (centres < high)]
    heights = np.concatenate([[low], inside, [high]])
    widths = np.interp(heights, centres, density(values))
    return heights, widths / widths.max()
