"""Detection in millions of photos, as a pipeline of Apache Beam on one machine or on a cluster (extra `beam`)."""
