"""OpenStack's own API test suites against a lab, and what their results mean.

May import `calico.lab` and what is below it. The suites run in processes of their own;
nothing here imports them.
"""
