"""Commits: write, verify, restore into any number of ps."""
