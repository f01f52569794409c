"""The verbs of launch.py, and beside them the results and the tables that they generate."""
