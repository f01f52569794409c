"""Ids of the jobs of every table, by which completed jobs are recognized."""

import importlib

import pytest

from experiments.plan import plan
from tests.test_configs import TABLES

NAMES = [f"{table}, {variant}" for table in TABLES for variant in ("debug", "local")]


@pytest.mark.parametrize("name", NAMES)
def test_ids_of_jobs(golden, name):
    table, variant = name.split(", ")
    module = importlib.import_module(f"configs.{table}")
    config = module.get_config(variant)
    ids = {}
    for job in plan(list(module.rows(config)), config):
        ids.setdefault(job.row, []).append(job.id)
    golden(name, ids)


def test_every_record_has_a_table(golden):
    golden.complete(NAMES)
