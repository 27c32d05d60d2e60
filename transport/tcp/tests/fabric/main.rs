//! The fabric over TCP, from outside: the laws of the port under each integrity, and what only a network can do to it.

mod adversary;
mod laws;
mod relay;

use bridgehead_fabric::{Fabric, PeerId};
use bridgehead_tcp::{Address, Options, TcpFabric};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// The key of these tests' runs.
const KEY: [u8; 32] = [42; 32];

fn options(number: u32) -> Options {
    Options::new(number, KEY, IpAddr::V4(Ipv4Addr::LOCALHOST))
}

fn start(options: Options) -> Arc<TcpFabric> {
    Arc::new(TcpFabric::start(options).expect("a fabric on loopback"))
}

/// Its address, with another socket in place of its own.
fn address_through(fabric: &dyn Fabric, socket: std::net::SocketAddr) -> Vec<u8> {
    let own = Address::decode(&fabric.address()).expect("its own address");
    Address { socket, ..own }.encode().to_vec()
}

fn socket_of(fabric: &dyn Fabric) -> std::net::SocketAddr {
    Address::decode(&fabric.address()).expect("its own address").socket
}

fn add(fabric: &dyn Fabric, number: u32, address: &[u8]) {
    fabric
        .add_peer(PeerId(number), address)
        .expect("an address of this fabric");
}
