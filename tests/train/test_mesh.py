"""Meshes over TPU slices, of devices that stand in for those of a TPU."""

from dataclasses import dataclass

import jax
import numpy as np
import pytest

from diffusion.train.mesh import make_mesh
from tests.checks import refused


@dataclass(frozen=True)
class Device:
    """A chip of a TPU, of which each process has two."""

    id: int
    slice_index: int
    coords: tuple[int, int, int]
    process_index: int
    core_on_chip: int = 0
    platform: str = "tpu"
    device_kind: str = "TPU v5 lite"


def slices(count, across=2, down=2):
    """Return the devices of slices of `across` x `down` chips, whose list alternates between the slices."""
    chips = [(x, y, 0) for y in range(down) for x in range(across)]
    return [
        Device(len(chips) * index + place, index, chip, (len(chips) * index + place) // 2)
        for place, chip in enumerate(chips)
        for index in range(count)
    ]


@pytest.mark.parametrize(
    ("axes", "expected"),
    [((-1, 1, 1), (8, 1, 1)), ((-1, 2, 1), (4, 2, 1)), ((2, 2, 2), (2, 2, 2)), ((2, 4, 1), (2, 4, 1))],
)
def test_the_data_axis_goes_over_the_slices_and_no_other_axis_does(axes, expected):
    """Also where the rows of a process do not follow one another in the order of the torus."""
    devices = slices(2)
    mesh = make_mesh(*axes, devices=devices).devices
    assert mesh.shape == expected and set(mesh.flat) == set(devices)
    by_slice = np.vectorize(lambda device: device.slice_index)(mesh)
    assert (by_slice == by_slice[:, :1, :1]).all(), "one slice per group of fsdp and model"
    np.testing.assert_array_equal(by_slice[:, 0, 0], np.repeat([0, 1], len(mesh) // 2))
    processes = [device.process_index for device in mesh.flat]
    assert processes == sorted(processes), "each host's rows of a batch follow one another"


def test_axes_that_do_not_fit_into_a_slice_are_refused():
    with refused(r"^mesh: fsdp x model = 8 x 1 does not divide the 4 devices of each of 2 slices; set --config\.mesh"):
        make_mesh(1, 8, 1, devices=slices(2))
    with refused(r"^mesh: fsdp x model = 3 x 2 does not divide the 4 devices of each of 3 slices"):
        make_mesh(2, 3, 2, devices=slices(3))


def test_one_slice_has_the_order_of_its_torus_where_hosts_have_consecutive_rows():
    """Of 2 x 2 chips with one host, a ring; of a part of a slice, the order of the list."""
    one_host = [Device(each.id, 0, each.coords, 0) for each in slices(1)]
    ring = [device.coords[:2] for device in make_mesh(devices=one_host).devices.flat]
    steps = np.abs(np.diff([*ring, ring[0]], axis=0)).sum(axis=1)
    assert set(steps) == {1}, "neighbors are connected"
    part = one_host[:3]
    assert list(make_mesh(devices=part).devices.flat) == part


def test_devices_of_other_platforms_keep_the_order_of_the_list():
    devices = jax.devices()[::-1]
    assert list(make_mesh(2, 2, 2, devices).devices.flat) == devices
