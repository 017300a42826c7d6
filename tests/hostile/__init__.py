"""What strangers may hand to kdrec: for each reader of foreign input a way to make such input, and to read it.

The default run of the tests gives each reader a few inputs (`test_hostile`); ``python -m tests.hostile`` gives it
thousands.
"""
