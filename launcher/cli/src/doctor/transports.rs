//! `doctor --transport`: the ways between nodes that this machine has, which one a run would take and why, and how fast each is here.

use super::curve::{self, Curve, SIZES};
use crate::error::{CliError, OK};
use crate::output;
use crate::transport::{decide, libraries, rdma_devices, version, way};
use bridgehead_fabric::{Fabric, PeerId};
use bridgehead_spec::TransportConfig;
use bridgehead_tcp::TcpFabric;
use bridgehead_ucx::{Found, Moving, Options, UcxFabric};
use serde::Serialize;
use serde_json::json;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// The key of fabrics that only this process has.
const KEY: [u8; 32] = [0; 32];

/// Lanes of UCX that are measured, with their `UCX_TLS`, the transports that they need, and how bytes are moved over them.
const LANES: [(&str, &str, &[&str], Moving); 3] = [
    (
        "ucx rdma",
        "rc,dc,ud,self",
        &["rc_verbs", "rc_mlx5", "dc_mlx5", "ud_verbs", "ud_mlx5"],
        Moving::OneSided,
    ),
    (
        "ucx shared memory",
        "posix,sysv,self",
        &["posix", "sysv"],
        Moving::Messages,
    ),
    ("ucx tcp", "tcp", &["tcp"], Moving::Messages),
];

/// A way between two ends on this machine.
#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    /// What UCX took, in its own words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lanes: Vec<String>,
    #[serde(flatten)]
    curve: Option<Curve>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// `bridgehead doctor --transport`.
pub(super) fn doctor(as_json: bool) -> Result<u8, CliError> {
    let config = TransportConfig {
        ucx: std::env::var_os("BRIDGEHEAD_UCX").map(Into::into),
        ..TransportConfig::default()
    };
    let found = bridgehead_ucx::probe(&libraries(&config));
    let chosen = decide(&config, &rdma_devices(), || found.clone());
    let (chosen, reason) = match &chosen {
        Ok(decision) => (decision.name(), decision.reason()),
        Err(error) => ("none", error.as_str()),
    };
    let plain = curve::plain();
    let mut rows = vec![row("tcp", tcp_ends(), |_| Vec::new())];
    if let Ok(found) = &found {
        rows.extend(ucx_rows(&config, found));
    }
    if as_json {
        output::line(json!({
            "ucx": ucx(&found), "chosen": chosen, "reason": reason, "sizes": SIZES, "plain_socket": plain.ok(), "curves": rows,
        }))?;
        return Ok(OK);
    }
    for line in lines(&found, (chosen, reason), &plain, &rows) {
        output::line(line)?;
    }
    Ok(OK)
}

fn ucx(found: &Result<Found, String>) -> serde_json::Value {
    match found {
        Ok(found) => json!({
            "version": version(found), "path": found.path, "moves": way(found),
            "devices": found.devices.iter().map(|d| format!("{}/{}", d.transport, d.device)).collect::<Vec<_>>(),
        }),
        Err(error) => json!({ "error": error }),
    }
}

/// Two ends of the fabric over TCP.
pub(super) fn tcp_ends() -> Result<[Arc<dyn Fabric>; 2], String> {
    let end = |number| -> Result<Arc<dyn Fabric>, String> {
        let options = bridgehead_tcp::Options::new(number, KEY, Ipv4Addr::LOCALHOST.into());
        Ok(Arc::new(TcpFabric::start(options).map_err(|e| e.to_string())?))
    };
    Ok([end(0)?, end(1)?])
}

fn row(
    name: &'static str,
    ends: Result<[Arc<dyn Fabric>; 2], String>,
    lanes: impl FnOnce(&[Arc<dyn Fabric>; 2]) -> Vec<String>,
) -> Row {
    let curve = ends.as_ref().map_err(Clone::clone).and_then(curve::of);
    Row {
        name,
        lanes: ends.as_ref().map(lanes).unwrap_or_default(),
        error: curve.as_ref().err().cloned(),
        curve: curve.ok(),
    }
}

/// The lanes of UCX that there are.
fn ucx_rows(config: &TransportConfig, found: &Found) -> Vec<Row> {
    let there = |needs: &[&str]| {
        found
            .devices
            .iter()
            .any(|device| needs.contains(&device.transport.as_str()))
    };
    let lanes = LANES.iter().filter(|(_, _, needs, _)| there(needs));
    lanes
        .map(|(name, transports, _, moving)| {
            let end = |number| {
                let mut options = Options::new(number, KEY, libraries(config));
                options.transports = Some((*transports).to_owned());
                options.moving = *moving;
                UcxFabric::start(options).map(Arc::new).map_err(|e| e.to_string())
            };
            let ends = end(0).and_then(|near| Ok([near, end(1)?]));
            let near = ends.as_ref().ok().map(|ends| ends[0].clone());
            let ends = ends.map(|ends| ends.map(|end| -> Arc<dyn Fabric> { end }));
            row(name, ends, |_| near.map(|near| lanes_of(&near)).unwrap_or_default())
        })
        .collect()
}

/// `tcp/lo` of `lane[0]:  0:tcp/lo.0 md[0] ...`, each once.
fn lanes_of(fabric: &UcxFabric) -> Vec<String> {
    let text = fabric.lanes(PeerId(1)).unwrap_or_default();
    let mut lanes: Vec<String> = text.lines().filter_map(lane).collect();
    lanes.dedup();
    lanes
}

fn lane(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("lane[")?;
    let (_, rest) = rest.split_once("]:")?;
    let name = rest.split_whitespace().next()?;
    let (_, name) = name.split_once(':')?;
    Some(name.rsplit_once('.').map_or(name, |(name, _)| name).to_owned())
}

fn lines(
    found: &Result<Found, String>,
    (chosen, reason): (&str, &str),
    plain: &Result<Vec<f64>, String>,
    rows: &[Row],
) -> Vec<String> {
    let mut out = vec!["within a node   shared memory of our own, always".to_owned()];
    match found {
        Ok(found) => {
            let devices: Vec<_> = found
                .devices
                .iter()
                .map(|d| format!("{}/{}", d.transport, d.device))
                .collect();
            out.push(format!(
                "ucx             {} at {}: {}",
                version(found),
                found.path.display(),
                devices.join(" ")
            ));
            out.push(format!("                it moves bytes {}", way(found)));
        }
        Err(error) => out.push(format!("ucx             {error}")),
    }
    out.push(format!("between nodes   {chosen}: {reason}"));
    out.push(String::new());
    out.push(
        "Between two ends on this machine; ratio: to a plain blocking socket that receives as many bytes.".to_owned(),
    );
    match plain {
        Ok(plain) => {
            out.push(format!(
                "{:<22} {:>9} {:>12} {:>10} {:>7}",
                "", "bytes", "time", "GB/s", "ratio"
            ));
            out.extend(table("plain socket get", plain, plain));
            for row in rows {
                out.extend(of_row(row, plain));
            }
        }
        Err(error) => out.push(error.clone()),
    }
    out
}

fn of_row(row: &Row, plain: &[f64]) -> Vec<String> {
    let Some(curve) = &row.curve else {
        return vec![format!(
            "{}: {}",
            row.name,
            row.error.as_deref().unwrap_or("not measured")
        )];
    };
    let mut out = Vec::new();
    if !row.lanes.is_empty() {
        out.push(format!("{}: lanes {}", row.name, row.lanes.join(" ")));
    }
    out.extend(table(&format!("{} get", row.name), &curve.get, plain));
    out.extend(table(&format!("{} put", row.name), &curve.put, plain));
    out
}

#[allow(clippy::cast_precision_loss)] // Figures for people.
fn table(name: &str, times: &[f64], plain: &[f64]) -> Vec<String> {
    let rows = SIZES.iter().zip(times).zip(plain);
    rows.map(|((size, time), plain)| {
        let (micros, speed) = (format!("{:.1} us", time * 1e6), *size as f64 / time / 1e9);
        format!("{name:<22} {size:>9} {micros:>12} {speed:>10.3} {:>7.2}", plain / time)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_are_read_from_what_ucx_prints() {
        let text = "#                 lane[0]:  1:sysv/memory.0 md[1]           -> md[1]/sysv/sysdev[255] am";
        assert_eq!(lane(text), Some("sysv/memory".to_owned()));
        assert_eq!(lane("#               peer: <no debug data>"), None);
    }

    #[test]
    fn how_ucx_moves_bytes_is_said_with_the_reason() {
        let of = |transport: &str| {
            let device = bridgehead_ucx::Device {
                transport: transport.to_owned(),
                device: "x".to_owned(),
            };
            let found = Ok(Found {
                path: "libucp.so.0".into(),
                version: (1, 22, 0),
                devices: vec![device],
            });
            lines(&found, ("tcp", "why"), &Err("no socket".to_owned()), &[]).join("\n")
        };
        assert!(
            of("tcp").contains("moves bytes by messages with a code, because"),
            "{}",
            of("tcp")
        );
        assert!(
            of("rc_mlx5").contains("moves bytes by one-sided reads and writes"),
            "{}",
            of("rc_mlx5")
        );
    }

    #[test]
    fn the_ratio_is_to_the_plain_socket() {
        let plain = [1e-6; SIZES.len()];
        let lines = table("x", &[2e-6; SIZES.len()], &plain);
        assert!(lines.len() == SIZES.len() && lines[0].ends_with("0.50"), "{lines:?}");
    }
}
