"""Forward processes: how clean data becomes noise."""
