"""The checks: one module for each family of statements, each taking (scene, tally).

A check counts its cases as it goes; what it cannot find out is a failed case.
"""
