"""The formats of `kdrec export`, one file each, found by name.

Each has NEEDS (packages), EXTRA (of setup.cfg), `build` (the files' content) and `answers` (what the written files
recommend, to be compared with torch's answers).
"""
