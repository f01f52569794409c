"""Languages whose every probability is known, to test estimators, denoisers and samplers against the truth."""
