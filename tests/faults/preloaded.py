"""What commands import, once, before they are forked; nothing here may touch a device."""

import importlib
import warnings

MODULES = (
    "array_record.python.array_record_data_source",
    "matplotlib.pyplot",
    "orbax.checkpoint",
    "scipy.stats",
    "tensorflow_datasets",
    "experiments.evaluate",
    "experiments.run",
    "experiments.sample",
    "experiments.table",
    "experiments.tasks.likelihood",
    "experiments.tasks.token_sampling",
    "experiments.train",
    "launch",
)
for name in MODULES:
    importlib.import_module(name)
# The warning of JAX is for processes that have touched a device.
warnings.filterwarnings("ignore", message="os.fork")
