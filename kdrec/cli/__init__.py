"""The command line: LightningCLI plus what turns a config into a run, a table and the next step."""
