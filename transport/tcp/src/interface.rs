//! Which address of this machine peers should use. The choice is pure; only `choose_address` asks the system.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use thiserror::Error;

/// Names of interfaces that lead nowhere outside this machine: bridges and pairs of containers and virtual machines.
const LOCAL_NAMES: [&str; 14] = [
    "docker", "br-", "veth", "virbr", "cni", "flannel", "cali", "cilium", "lxc", "lxd", "podman", "vmnet", "kube-",
    "nerdctl",
];
/// Names of fast networks, which come before others: IP over InfiniBand, Slingshot.
const FAST_NAMES: [&str; 2] = ["ib", "hsn"];

/// A network, as `10.0.0.0/8` or `fd00::/8`; a single address is a network of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    base: IpAddr,
    bits: u8,
}

impl Subnet {
    /// Whether the address lies in it.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.base, ip) {
            (IpAddr::V4(base), IpAddr::V4(ip)) => {
                let shift = 32 - u32::from(self.bits);
                u32::from(base).checked_shr(shift) == u32::from(ip).checked_shr(shift)
            }
            (IpAddr::V6(base), IpAddr::V6(ip)) => {
                let shift = 128 - u32::from(self.bits);
                u128::from(base).checked_shr(shift) == u128::from(ip).checked_shr(shift)
            }
            _ => false,
        }
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

impl FromStr for Subnet {
    type Err = ChooseError;

    fn from_str(text: &str) -> Result<Self, ChooseError> {
        let wrong = || ChooseError::Subnet(text.to_owned());
        let (ip, bits) = text.split_once('/').map_or((text, None), |(ip, bits)| (ip, Some(bits)));
        let base: IpAddr = ip.parse().map_err(|_| wrong())?;
        let most = if base.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), str::parse).map_err(|_| wrong())?;
        if bits > most {
            Err(wrong())
        } else {
            Ok(Self { base, bits })
        }
    }
}

/// Why there is no address.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChooseError {
    /// Not a subnet.
    #[error("\"{0}\" is not a subnet: write it as 10.0.0.0/8 or fd00::/8")]
    Subnet(String),
    /// No address lies in the subnet.
    #[error("no address of this machine lies in {subnet}; there are: {seen}")]
    NoneInSubnet {
        /// The subnet asked for.
        subnet: Subnet,
        /// What the machine has.
        seen: String,
    },
    /// Only loopback and bridges.
    #[error("this machine has no address that others could reach; there are: {seen}. Name a subnet to use one of them")]
    None {
        /// What the machine has.
        seen: String,
    },
    /// The system refused.
    #[error("cannot list the interfaces of this machine: {0}")]
    System(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Interface {
    name: String,
    ip: IpAddr,
}

/// The address that peers on other machines should use: not loopback, not link-local, not of a container's bridge; fast networks and
/// IPv4 first. With a subnet: the first address in it, whatever its interface; so `127.0.0.0/8` gives loopback.
///
/// # Errors
/// There is none, or the system does not tell.
pub fn choose_address(subnet: Option<Subnet>) -> Result<IpAddr, ChooseError> {
    let seen = if_addrs::get_if_addrs().map_err(|error| ChooseError::System(error.to_string()))?;
    let seen: Vec<Interface> = seen
        .into_iter()
        .map(|seen| Interface {
            ip: seen.ip(),
            name: seen.name,
        })
        .collect();
    choose(&seen, subnet)
}

fn choose(seen: &[Interface], subnet: Option<Subnet>) -> Result<IpAddr, ChooseError> {
    let listed = || {
        seen.iter()
            .map(|i| format!("{} {}", i.name, i.ip))
            .collect::<Vec<_>>()
            .join(", ")
    };
    if let Some(subnet) = subnet {
        let found = seen.iter().find(|interface| subnet.contains(interface.ip));
        return found
            .map(|found| found.ip)
            .ok_or_else(|| ChooseError::NoneInSubnet { subnet, seen: listed() });
    }
    seen.iter()
        .filter(|interface| is_reachable(interface))
        .min_by_key(|interface| (!starts_with(&interface.name, &FAST_NAMES), interface.ip.is_ipv6()))
        .map(|interface| interface.ip)
        .ok_or_else(|| ChooseError::None { seen: listed() })
}

fn is_reachable(interface: &Interface) -> bool {
    let link_local = match interface.ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !link_local && !interface.ip.is_loopback() && !starts_with(&interface.name, &LOCAL_NAMES)
}

fn starts_with(name: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(interfaces: &[(&str, &str)]) -> Vec<Interface> {
        let interface = |(name, ip): &(&str, &str)| Interface {
            name: (*name).to_owned(),
            ip: ip.parse().expect("an address"),
        };
        interfaces.iter().map(interface).collect()
    }

    fn check(interfaces: &[(&str, &str)], subnet: Option<&str>, expected: Option<&str>) {
        let subnet = subnet.map(|text| text.parse().expect("a subnet"));
        let chosen = choose(&machine(interfaces), subnet).ok();
        assert_eq!(
            chosen,
            expected.map(|ip| ip.parse().expect("an address")),
            "{interfaces:?} {subnet:?}"
        );
    }

    const NODE: [(&str, &str); 7] = [
        ("lo", "127.0.0.1"),
        ("docker0", "172.17.0.1"),
        ("veth12ab", "fd12::1"),
        ("eth0", "fe80::1"),
        ("eth0", "2001:db8::5"),
        ("eth0", "10.0.0.5"),
        ("ib0", "10.1.0.5"),
    ];

    #[test]
    fn loopback_bridges_and_link_local_are_skipped_and_fast_networks_come_first() {
        check(&NODE, None, Some("10.1.0.5"));
        check(&NODE[..6], None, Some("10.0.0.5"));
        check(&NODE[..5], None, Some("2001:db8::5"));
        check(&NODE[..4], None, None);
        check(&[], None, None);
    }

    #[test]
    fn a_subnet_decides_alone() {
        check(&NODE, Some("10.0.0.0/16"), Some("10.0.0.5"));
        check(&NODE, Some("172.16.0.0/12"), Some("172.17.0.1"));
        check(&NODE, Some("127.0.0.0/8"), Some("127.0.0.1"));
        check(&NODE, Some("2001:db8::/32"), Some("2001:db8::5"));
        check(&NODE, Some("0.0.0.0/0"), Some("127.0.0.1"));
        check(&NODE, Some("192.168.0.0/16"), None);
        check(&NODE, Some("10.1.0.5"), Some("10.1.0.5"));
    }

    #[test]
    fn errors_name_what_there_is_and_bad_subnets() {
        let error = choose(&machine(&NODE[..2]), None)
            .expect_err("nothing to reach")
            .to_string();
        assert!(error.contains("docker0 172.17.0.1"), "{error}");
        for text in ["", "10.0.0.0/33", "10.0.0/8", "fd00::/129", "10.0.0.0/-1", "host"] {
            assert_eq!(text.parse::<Subnet>(), Err(ChooseError::Subnet(text.to_owned())));
        }
    }

    #[test]
    fn this_machine_has_a_loopback_address() {
        let subnet = "127.0.0.0/8".parse().expect("a subnet");
        assert!(choose_address(Some(subnet)).expect("loopback is up").is_loopback());
    }
}
