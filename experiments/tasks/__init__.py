"""What one kind of data is: how it is checked, referenced, sampled, measured and shown."""
