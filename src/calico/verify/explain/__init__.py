"""Why a packet gets through or not, hop by hop; and one such packet as evidence.

`journey.explain` puts the answer together from what the datastore holds (`picture`),
what hosts make of it (`hops`) and what kernels say of routes (`routes`); these are
pure. `in_lab`, `on_host` and `probe` are what looks and sends.
"""
