"""Shared by the servers of the package: the names that they answer to, and how they listen and end."""
