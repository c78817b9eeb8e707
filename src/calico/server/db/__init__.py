"""What the Neutron side keeps in Neutron's database, and how its schema came to be.

May import Neutron and SQLAlchemy, nothing else of the project.
"""
