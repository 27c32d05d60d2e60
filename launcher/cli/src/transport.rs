//! How bytes go between nodes: which fabrics an agent opens, and why. The one place that names them; which of them a pair of agents uses is
//! `bridgehead_fabric::Choice`'s to say.

use bridgehead_fabric::{Choice, Fabric};
use bridgehead_spec::{TransportChoice, TransportConfig};
use bridgehead_tcp::TcpFabric;
use bridgehead_ucx::{Found, Moving, UcxFabric};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the kernel lists devices for RDMA.
const RDMA_DEVICES: &str = "/sys/class/infiniband";

/// What an agent opens, with the reason for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// TCP alone.
    Tcp {
        /// Why not UCX.
        reason: String,
    },
    /// UCX, and TCP for peers without it unless UCX is required.
    Ucx {
        /// Which of UCX's transports, as in `UCX_TLS`; its own choice if `None`.
        over: Option<&'static str>,
        /// How it moves bytes.
        moving: Moving,
        /// Why.
        reason: String,
    },
}

impl Decision {
    /// Its name, as in `--transport`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Tcp { .. } => "tcp",
            Self::Ucx { .. } => "ucx",
        }
    }

    /// Why.
    pub(crate) fn reason(&self) -> &str {
        let (Self::Tcp { reason } | Self::Ucx { reason, .. }) = self;
        reason
    }
}

/// Where libucp may be.
pub(crate) fn libraries(config: &TransportConfig) -> Vec<PathBuf> {
    bridgehead_ucx_sys::candidates(config.ucx.as_deref(), None)
}

/// Names of the devices for RDMA.
pub(crate) fn rdma_devices() -> Vec<String> {
    let entries = std::fs::read_dir(Path::new(RDMA_DEVICES))
        .into_iter()
        .flatten()
        .flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Decides for one agent. `look` opens UCX, and is only asked where that matters.
///
/// # Errors
/// UCX is required, and not to be had.
pub(crate) fn decide(
    config: &TransportConfig,
    rdma: &[String],
    look: impl FnOnce() -> Result<Found, String>,
) -> Result<Decision, String> {
    let tcp = |reason: String| Ok(Decision::Tcp { reason });
    match config.choice {
        TransportChoice::Tcp => tcp("it was asked for".into()),
        TransportChoice::Auto if rdma.is_empty() => tcp(format!(
            "there is no device for RDMA ({RDMA_DEVICES} is empty or not there)"
        )),
        TransportChoice::Auto => match look() {
            Ok(found) if found.has_rdma() => Ok(Decision::Ucx {
                // Its TCP authenticates nothing, ours does; what UCX cannot reach by RDMA it must not reach at all.
                over: std::env::var_os("UCX_TLS").is_none().then_some("^tcp"),
                moving: moving(&found),
                reason: format!("UCX {} uses {}, {}", version(&found), rdma.join(", "), way(&found)),
            }),
            Ok(found) => tcp(format!(
                "UCX {} at {} cannot use {}",
                version(&found),
                found.path.display(),
                rdma.join(", ")
            )),
            Err(error) => tcp(error),
        },
        TransportChoice::Ucx => match look().and_then(sound) {
            Ok(found) => Ok(Decision::Ucx {
                over: None,
                moving: moving(&found),
                reason: format!("it was asked for; UCX {} {}", version(&found), way(&found)),
            }),
            Err(error) if config.required => Err(format!("UCX is required: {error}")),
            Err(error) => tcp(error),
        },
    }
}

/// Refuses a UCX that would take the agent with it when a peer is lost and comes back.
fn sound(found: Found) -> Result<Found, String> {
    if found.is_fragile() {
        return Err(format!(
            "UCX {} at {} has no device for RDMA here, and without one a peer that is lost and comes back can crash it (seen in 1.13.1): \
             use UCX 1.22 or newer",
            version(&found),
            found.path.display()
        ));
    }
    Ok(found)
}

/// How a UCX moves bytes here: its emulation of one-sided reads and writes is never used.
fn moving(found: &Found) -> Moving {
    if found.has_rdma() {
        Moving::OneSided
    } else {
        Moving::Messages
    }
}

/// The same for people, with what whoever asks for UCX without RDMA has to know.
pub(crate) fn way(found: &Found) -> &'static str {
    match moving(found) {
        Moving::OneSided => "by one-sided reads and writes",
        Moving::Messages => {
            "by messages with a code, because it has no device for RDMA; UCX's own TCP lets whoever reaches its port write to this process"
        }
    }
}

pub(crate) fn version(found: &Found) -> String {
    let (major, minor, patch) = found.version;
    format!("{major}.{minor}.{patch}")
}

/// Decides for the agent that this process is.
///
/// # Errors
/// UCX is required, and not to be had.
pub(crate) fn decide_here(config: &TransportConfig) -> Result<Decision, String> {
    decide(config, &rdma_devices(), || bridgehead_ucx::probe(&libraries(config)))
}

/// Opens the fabrics of an agent, and says once which and why.
///
/// # Errors
/// What is required cannot be had, or the system refused.
pub(crate) fn make(
    config: &TransportConfig,
    agent: u32,
    key: [u8; 32],
    address: IpAddr,
) -> Result<Arc<dyn Fabric>, String> {
    let tcp = || -> Result<Arc<dyn Fabric>, String> {
        let options = bridgehead_tcp::Options::new(agent, key, address);
        Ok(Arc::new(TcpFabric::start(options).map_err(|e| e.to_string())?))
    };
    let decision = decide_here(config)?;
    let asked_in_vain = config.choice == TransportChoice::Ucx && decision.name() != "ucx";
    if asked_in_vain {
        tracing::warn!(
            reason = decision.reason(),
            "the nodes are joined by tcp, ucx was asked for"
        );
    } else {
        tracing::info!(
            reason = decision.reason(),
            "the nodes are joined by {}",
            decision.name()
        );
    }
    let fabrics = match decision {
        Decision::Tcp { .. } => vec![tcp()?],
        Decision::Ucx { over, moving, .. } => {
            let mut options = bridgehead_ucx::Options::new(agent, key, libraries(config));
            options.transports = over.map(ToOwned::to_owned);
            options.moving = moving;
            let ucx: Arc<dyn Fabric> = Arc::new(UcxFabric::start(options).map_err(|e| e.to_string())?);
            if config.required { vec![ucx] } else { vec![ucx, tcp()?] }
        }
    };
    Ok(Arc::new(
        Choice::new(fabrics, config.required).map_err(|e| e.to_string())?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bridgehead_ucx::Device;

    fn found(transport: &str) -> Result<Found, String> {
        let device = Device {
            transport: transport.into(),
            device: "x".into(),
        };
        Ok(Found {
            path: "libucp.so.0".into(),
            version: (1, 22, 0),
            devices: vec![device],
        })
    }

    fn config(choice: TransportChoice, required: bool) -> TransportConfig {
        TransportConfig {
            choice,
            required,
            ucx: None,
        }
    }

    /// With these devices and this UCX that is decided, for a reason with these words.
    fn check(choice: TransportChoice, rdma: &[&str], ucx: Result<Found, String>, name: &str, words: &str) {
        let rdma: Vec<String> = rdma.iter().map(ToString::to_string).collect();
        let decision = decide(&config(choice, false), &rdma, || ucx).expect("nothing is required");
        assert_eq!(decision.name(), name, "{decision:?}");
        assert!(decision.reason().contains(words), "{decision:?}");
    }

    #[test]
    fn auto_is_ucx_only_where_it_would_use_rdma() {
        let auto = TransportChoice::Auto;
        check(auto, &["mlx5_0"], found("rc_mlx5"), "ucx", "mlx5_0, by one-sided");
        check(auto, &["mlx5_0"], found("tcp"), "tcp", "cannot use mlx5_0");
        check(auto, &["mlx5_0"], Err("not found".into()), "tcp", "not found");
        let decision = decide(&config(auto, false), &[], || panic!("UCX is not even opened"));
        assert_eq!(decision.map(|d| d.name()), Ok("tcp"));
    }

    #[test]
    fn ucx_without_rdma_moves_messages_if_asked_for_and_is_said_to_trust_everybody() {
        check(
            TransportChoice::Ucx,
            &[],
            found("tcp"),
            "ucx",
            "by messages with a code, because it has no device for RDMA",
        );
        check(
            TransportChoice::Ucx,
            &[],
            found("tcp"),
            "ucx",
            "whoever reaches its port",
        );
        check(TransportChoice::Ucx, &[], Err("not found".into()), "tcp", "not found");
        let old = |transport| {
            found(transport).map(|found| Found {
                version: (1, 13, 1),
                ..found
            })
        };
        check(TransportChoice::Ucx, &[], old("tcp"), "tcp", "can crash it");
        check(
            TransportChoice::Ucx,
            &["mlx5_0"],
            old("rc_mlx5"),
            "ucx",
            "1.13.1 by one-sided",
        );
        check(TransportChoice::Tcp, &["mlx5_0"], found("rc_mlx5"), "tcp", "asked for");
    }

    #[test]
    fn a_fall_back_from_what_is_required_is_an_error_with_the_reason() {
        let decision = decide(&config(TransportChoice::Ucx, true), &[], || Err("not found".into()));
        assert_eq!(decision, Err("UCX is required: not found".to_owned()));
    }
}
