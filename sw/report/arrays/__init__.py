"""How several arrays share a network: measured with parts of its layers on the RTL of one of them.

``python -m celosia.sw.report.arrays`` measures; docs/many_multipliers.md says what was found.
"""
