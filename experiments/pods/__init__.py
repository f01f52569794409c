"""Scripts that run a table on several hosts: on this machine, with Slurm, on a Cloud TPU slice, or with XPK."""
