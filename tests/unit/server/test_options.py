"""What an operator writes about pairs becomes a value, or stops the start."""

import pytest
from oslo_config import cfg

from calico.model.cloud_settings import CloudSettings
from calico.model.ids import Invalid
from calico.server import options


def settings(*prefixes: str) -> options.ServerSettings:
    conf = cfg.ConfigOpts()
    conf([], default_config_files=[])
    options.register(conf)
    conf.set_override("allowed_pair_prefixes", list(prefixes), options.GROUP)
    return options.read(conf)


def test_p47_a_prefix_is_allowed_to_all_or_to_one_project() -> None:
    found = settings("192.0.2.0/24", "one = 2001:db8::/32").allowed_pairs
    assert [(str(a.prefix), a.project) for a in found] == [
        ("192.0.2.0/24", None),
        ("2001:db8::/32", "one"),
    ]
    assert settings().allowed_pairs == ()


@pytest.mark.parametrize("translates", [False, True])
def test_s13_source_translation_is_the_operators_choice_and_off_by_default(
    *, translates: bool
) -> None:
    conf = cfg.ConfigOpts()
    conf([], default_config_files=[])
    options.register(conf)
    if translates:
        conf.set_override("floating_ip_source_translation", translates, options.GROUP)
    assert options.read(conf).cloud == CloudSettings(translate_sources=translates)


@pytest.mark.parametrize("text", ["192.0.2.1/24", "one=", "everything"])
def test_p47_what_is_no_prefix_is_an_error_that_names_the_option(text: str) -> None:
    with pytest.raises(Invalid, match="allowed_pair_prefixes"):
        settings(text)
