"""Conformance suites for other people's tasks, optimizers, checkpoint stores and backends."""
