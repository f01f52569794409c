"""Training objectives: functions of (params, batch, draws) that return a scalar loss and metrics."""
