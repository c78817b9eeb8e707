"""Inside Neutron's processes: what its database says goes to etcd, status comes back.

May import Neutron, and the datastore, model and settings of the project. The only
package that knows OpenStack's server code; agents meet it only in the datastore.
"""
