"""Flags of launch.py, which belong to the process and hold what an earlier command in it gave."""

from absl import flags

import launch


def reset():
    """Give every flag its default again, and delete the overrides of the config."""
    for name in [name for name in flags.FLAGS if name.startswith("config.")]:
        delattr(flags.FLAGS, name)
    for flag in flags.FLAGS.get_flags_for_module(launch):
        flag.unparse()
