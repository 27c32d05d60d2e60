//! The opaque address and the region keys that travel through the control channel. Owns their bytes; opens nothing.

use bytes::Bytes;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use thiserror::Error;

const VERSION: u8 = 1;
const V4: u8 = 4;
const V6: u8 = 6;
const ADDRESS_LEN: usize = 1 + 4 + 8 + 1 + 16 + 2;
const KEY_LEN: usize = 1 + 8 + 8;

/// What can be wrong with bytes that should be an address.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AddressError {
    /// Not as long as an address is.
    #[error("{0} bytes are not an address, which has {ADDRESS_LEN}")]
    Length(usize),
    /// Of another version.
    #[error("address of version {0}, this side knows {VERSION}: use the same bridgehead version on both sides")]
    Version(u8),
    /// Neither IPv4 nor IPv6.
    #[error("address family {0} is neither 4 nor 6")]
    Family(u8),
}

/// Where and who a fabric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The agent's number.
    pub number: u32,
    /// Drawn at random at each start, so that a port used again by another process is noticed.
    pub incarnation: u64,
    /// Where it listens.
    pub socket: SocketAddr,
}

impl Address {
    /// version | number | incarnation | family | address | port, little endian.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let (family, octets) = match self.socket.ip() {
            IpAddr::V4(ip) => (V4, ip.to_ipv6_mapped().octets()),
            IpAddr::V6(ip) => (V6, ip.octets()),
        };
        let mut out = Vec::with_capacity(ADDRESS_LEN);
        out.push(VERSION);
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.incarnation.to_le_bytes());
        out.push(family);
        out.extend_from_slice(&octets);
        out.extend_from_slice(&self.socket.port().to_le_bytes());
        out.into()
    }

    /// The inverse of `encode`.
    ///
    /// # Errors
    /// The bytes are not an address of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, AddressError> {
        let bytes: &[u8; ADDRESS_LEN] = bytes.try_into().map_err(|_| AddressError::Length(bytes.len()))?;
        if bytes[0] != VERSION {
            return Err(AddressError::Version(bytes[0]));
        }
        let octets: [u8; 16] = array(bytes, 14);
        let ip = match bytes[13] {
            V4 => IpAddr::V4(Ipv4Addr::new(octets[12], octets[13], octets[14], octets[15])),
            V6 => IpAddr::V6(Ipv6Addr::from(octets)),
            other => return Err(AddressError::Family(other)),
        };
        Ok(Self {
            number: u32::from_le_bytes(array(bytes, 1)),
            incarnation: u64::from_le_bytes(array(bytes, 5)),
            socket: SocketAddr::new(ip, u16::from_le_bytes(array(bytes, 30))),
        })
    }
}

/// Packs a region's number for peers; the incarnation keeps keys of an earlier process from meaning a region of this one.
pub(crate) fn pack_key(region: u64, incarnation: u64) -> Bytes {
    let mut out = Vec::with_capacity(KEY_LEN);
    out.push(VERSION);
    out.extend_from_slice(&region.to_le_bytes());
    out.extend_from_slice(&incarnation.to_le_bytes());
    out.into()
}

/// Region and incarnation of a packed key; nothing if it is none.
pub(crate) fn unpack_key(bytes: &[u8]) -> Option<(u64, u64)> {
    let bytes: &[u8; KEY_LEN] = bytes.try_into().ok()?;
    (bytes[0] == VERSION).then(|| (u64::from_le_bytes(array(bytes, 1)), u64::from_le_bytes(array(bytes, 9))))
}

/// `N` bytes from `at` on, of a longer array whose length the caller knows.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the range has N bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_as_they_were() {
        for ip in ["127.0.0.1", "10.1.2.3", "::1", "fd00::17"] {
            let address = Address {
                number: 7,
                incarnation: u64::MAX - 3,
                socket: SocketAddr::new(ip.parse().expect("an address"), 40_001),
            };
            assert_eq!(Address::decode(&address.encode()), Ok(address));
        }
    }

    #[test]
    fn bytes_that_are_no_address_are_refused_by_name() {
        assert_eq!(Address::decode(b"short"), Err(AddressError::Length(5)));
        let mut bytes = [0; ADDRESS_LEN];
        assert_eq!(Address::decode(&bytes), Err(AddressError::Version(0)));
        bytes[0] = VERSION;
        assert_eq!(Address::decode(&bytes), Err(AddressError::Family(0)));
        assert_eq!(unpack_key(b""), None);
        assert_eq!(unpack_key(&[9; KEY_LEN]), None);
        assert_eq!(unpack_key(&pack_key(3, 4)), Some((3, 4)));
    }
}
