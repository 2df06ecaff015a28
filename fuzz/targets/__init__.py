"""What is fuzzed: each module's `check` reads bytes as its parser would, and raises what is wrong.

An input is text that can be read and written by hand: lines, as each module's docstring has them.
"""
