"""Metrics: functions from samples to numbers, without files, plots or configs."""
