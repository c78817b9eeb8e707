"""What an operator's policies do to guests that talk, and to a host's own traffic."""

import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest
from tests.endpoints import HOST, endpoint
from tests.kernel.data_path import HostBed, host_bed
from tests.kernel.netns import eventually, in_netns
from tests.kernel.talks import SERVERS, A, B, reaches, talks
from tests.policies import OPEN_GROUPS, OPEN_POLICY

from calico.model.ids import ip_network_of
from calico.model.operator import Action, End, GlobalPolicy, OperatorRule
