"""What the servers of the package share: the names that they answer to, and how they listen and end."""
