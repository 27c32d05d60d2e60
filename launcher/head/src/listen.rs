//! The head's port on the network: where it listens, under which names others find it, and the tickets that let them in.

use crate::connection::Event;
use crate::options::{HeadError, HeadOptions, io_error};
use crate::server::{self, ConnIds, Tickets};
use crate::tls::{self, Authority};
use bridgehead_wire::Ticket;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedSender;

/// Listens for agents and remote clients, writes their tickets, and gives the addresses at which they find this head; none where
/// nobody is to come.
pub(crate) async fn listen(
    o: &HeadOptions,
    attempt: u32,
    events: UnboundedSender<Event>,
) -> Result<Vec<String>, HeadError> {
    if o.config.agents.len() < 2 && o.listen.is_loopback() {
        return Ok(Vec::new()); // Nobody else joins, so nothing listens on the network.
    }
    let listener = tokio::net::TcpListener::bind((o.listen, 0)).await;
    let listener = listener.map_err(io_error("listen on", PathBuf::from(o.listen.to_string())))?;
    let address = listener
        .local_addr()
        .map_err(io_error("ask for the address of", "the listener".into()))?;
    let mut addresses: Vec<String> = o.advertise.iter().map(|host| host_port(host, address.port())).collect();
    if addresses.is_empty() {
        addresses.push(address.to_string());
    }
    let authority = Authority::new(&o.config.run)?;
    tls::secret_folder(&o.folder).map_err(io_error("make", o.folder.tls()))?;
    let mut secrets = BTreeMap::new();
    for rank in 1..u32::try_from(o.config.agents.len()).unwrap_or(u32::MAX) {
        let ticket = Ticket {
            life: o.life.clone(),
            attempt,
            ..authority.ticket(&o.config.run, rank, addresses.clone())?
        };
        secrets.insert(rank, ticket.secret.clone());
        write_ticket(o.folder.ticket(rank), &ticket)?;
    }
    let client = authority.client_ticket(&o.config.run, addresses.clone())?;
    let tickets = Rc::new(Tickets::new(secrets, &client)?);
    if !o.listen.is_loopback() {
        write_ticket(o.folder.client_ticket(), &client)?;
    }
    let config = Arc::new(authority.server_config()?);
    let run = o.config.run.to_string();
    tokio::task::spawn_local(server::accept_tls(
        listener,
        config,
        run,
        tickets,
        ConnIds::remote(),
        events,
    ));
    Ok(addresses)
}

fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

fn write_ticket(path: PathBuf, ticket: &Ticket) -> Result<(), HeadError> {
    let text = serde_json::to_vec(ticket).expect("plain data can be written");
    tls::write_secret(&path, &text).map_err(io_error("write", path))
}
