"""An agent's settings: read whole, or refused with the file and the reason."""

from pathlib import Path

import pytest

from calico.config import AgentSettings, BadSettings, load_agent_settings


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    return path


def test_settings_are_read_with_defaults_for_the_rest(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        'host = "host-1"\nuplinks = ["eth0"]\n'
        '[etcd]\nendpoints = ["https://a:2379", "https://b:2379"]\n'
        'ca = "/etc/ca.pem"\n',
    )
    settings = load_agent_settings(path)
    assert settings.host == "host-1"
    assert settings.uplinks == ("eth0",)
    assert settings.etcd.endpoints == ("https://a:2379", "https://b:2379")
    assert settings.etcd.ca == Path("/etc/ca.pem")
    default = AgentSettings(host=settings.host)
    assert settings.resync_interval == default.resync_interval


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "host"),
        ('host = "h"\nhots = 1\n', "unknown setting hots"),
        ('host = "h"\n[etcd]\nendpoint = "x"\n', "unknown setting etcd.endpoint"),
        ('host = "h"\n[metadata]\nbackend = "x"\n', "unknown setting metadata.backend"),
        ('host = "h"\n[metadata]\nbackends = ["x"]\n', "metadata.backends: 'x'"),
        ('host = "h"\n[dns]\nresolver = "x"\n', "unknown setting dns.resolver"),
        ('host = "h"\n[dns]\nresolvers = ["x"]\n', "dns.resolvers: 'x'"),
        ('host = "h"\n[dns]\ndomains = ["a b"]\n', "dns.domains: 'a b'"),
        ('host = "h"\nresync_interval = "soon"\n', "resync_interval"),
        ("host = \n", "agent.toml"),
        ('host = "h"\nlog_rate = 0\n', "log_rate"),
        ('host = "h"\nlog_burst = 1000001\n', "log_burst"),
        ('host = "h"\nuplinks = ["eth0", "a\\" b"]\n', "uplinks"),
    ],
)
def test_bad_settings_name_the_file_and_the_reason(
    tmp_path: Path, text: str, complaint: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(BadSettings, match=complaint) as failure:
        load_agent_settings(path)
    assert str(path) in str(failure.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="No such file"):
        load_agent_settings(tmp_path / "none.toml")
