"""Small parts that every process is built from: errors, logs, backoff, readiness. Each module stands alone."""
