"""Recipes that several tables share: scales, models, rows, columns and plots. None is a table of its own."""
