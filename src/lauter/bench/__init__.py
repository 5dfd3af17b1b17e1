"""Benchmarks: suites that resume, their result files, and the tables made from them."""
