"""What follows from the rows of a table: differences with their 95 % intervals."""
