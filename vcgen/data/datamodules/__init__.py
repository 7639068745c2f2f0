"""LightningDataModules and what they deal out."""
