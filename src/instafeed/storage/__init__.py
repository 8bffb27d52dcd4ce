"""The servers that hold everything: PostgreSQL, Redis, S3 and the job queue. SQL stands beside the function that runs it."""
