"""Others that do what we do, to be measured against."""
