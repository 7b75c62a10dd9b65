"""Pools of fine-tunings that come with the package, one YAML file each."""
