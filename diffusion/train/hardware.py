"""Published peak rates of accelerators, for model FLOPs utilization and the roofline."""

from dataclasses import dataclass

import jax


@dataclass(frozen=True)
class Peak:
    """Peak bf16 matrix FLOP/s, memory bandwidth in bytes/s, memory in bytes and link bandwidth in bytes/s per device.

    The link bandwidth is the aggregate of the interconnect of one chip, in one direction. `network` is the bandwidth
    of a chip between slices, which have at most `slice` chips; both are 0 where they are not known.
    """

    flops: float
    bandwidth: float
    memory: float
    link: float
    network: float = 0.0
    slice: int = 0


GIB = 2**30
# From the data sheets of vendors, per chip; a link bandwidth is half of the published one for both directions together.
# Names are device kinds of JAX, in which v5p is "TPU v5" and v5e is "TPU v5 lite".
# The network of v5e has 6.4 Tbit/s for a pod of 256 chips, that of v5p 50 Gbit/s for a chip.
V5E = Peak(197e12, 819e9, 16 * GIB, 200e9, 3.125e9, 256)
V5P = Peak(459e12, 2765e9, 95 * GIB, 600e9, 6.25e9, 6144)
V6E = Peak(918e12, 1640e9, 32 * GIB, 400e9)
PEAKS = {
    "TPU v4": Peak(275e12, 1228e9, 32 * GIB, 300e9),
    "TPU v5 lite": V5E,
    "TPU v5e": V5E,
    "TPU v5": V5P,
    "TPU v5p": V5P,
    "TPU v6 lite": V6E,
    "TPU v6e": V6E,
    "NVIDIA A100": Peak(312e12, 2039e9, 80 * GIB, 300e9),
    "NVIDIA A100-SXM4-40GB": Peak(312e12, 1555e9, 40 * GIB, 300e9),
    "NVIDIA H100": Peak(989e12, 3350e9, 80 * GIB, 450e9),
    "NVIDIA H100 PCIe": Peak(756e12, 2000e9, 80 * GIB, 300e9),
    "NVIDIA H200": Peak(989e12, 4800e9, 141 * GIB, 450e9),
}


def peak(kind: str) -> Peak | None:
    """Return the peak rates of a device kind of JAX, or None if they are not known (a CPU)."""
    matches = [name for name in PEAKS if kind.startswith(name)]
    return PEAKS[max(matches, key=len)] if matches else None


def memory_in_use() -> float | None:
    """Return the peak bytes in use on the first device, or the peak resident bytes of the process on a CPU."""
    statistics = jax.local_devices()[0].memory_stats()
    if statistics and "peak_bytes_in_use" in statistics:
        return float(statistics["peak_bytes_in_use"])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
