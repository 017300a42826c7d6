"""The LightningModules and callbacks; they compose, and hold no loss arithmetic."""
