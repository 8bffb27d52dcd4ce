"""arq only: the worker, its schedule, and adapters of a few lines that call a verb."""
