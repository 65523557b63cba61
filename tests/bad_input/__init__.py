"""What a user gets wrong: one line on stderr that names the value and the remedy, exit code 2, nothing half-written."""
