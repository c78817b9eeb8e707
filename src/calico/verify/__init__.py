"""The verifier: sets up instances through the Neutron API and looks at real packets.

`run.verify(cloud, ids, tell)` gives a `result.Report`; what a check asks of a cloud is
in `cloud.py`, so that checks know nothing of labs.
"""
