//! Looking at a run that was handed over, again and again, until it has ended. Owns how often its folder, its head and its
//! scheduler are asked.

use crate::error::CliError;
use crate::far::{self, Far};
use crate::{folder, standing};
use bridgehead_spec::RunFolder;
use serde_json::Value;
use std::time::{Duration, Instant};

/// Between looks for a head elsewhere that could not be reached.
const FAR_AGAIN: Duration = Duration::from_secs(3);
/// Between questions to the scheduler: at first, and at most.
const ASK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Looks at a run again and again: at its folder each time, at its scheduler ever more rarely as long as nothing changes.
pub(crate) struct Looks {
    /// The way to a head whose folder is elsewhere, and when it is looked at again.
    far: Option<(Far, Instant)>,
    next: Option<Instant>,
    pause: Duration,
    /// What the scheduler said when it was last asked.
    said: Value,
}

impl Looks {
    /// Looks at the run in `folder` from now on.
    pub(crate) fn of(folder: &RunFolder) -> Result<Self, CliError> {
        // What of a damaged folder can be read is read as it is, and so is a run that is over where its cluster is out of reach.
        let config = folder::config(folder).ok().filter(|_| !far::is_fetched(folder));
        let over = standing::has_ended(folder)?;
        let far = match config.map(|config| far::of(folder, &config)).transpose() {
            Err(error) if !over => return Err(error),
            far => far.ok().flatten().flatten(),
        };
        Ok(Self {
            far: far.map(|far| (far, Instant::now())),
            next: None,
            pause: Duration::default(),
            said: Value::Null,
        })
    }

    /// How the run stands.
    pub(crate) fn look(&mut self, folder: &RunFolder) -> Result<Value, CliError> {
        if let Some((far, at)) = &mut self.far {
            if Instant::now() >= *at {
                let here = far.sync(false)?;
                if standing::has_ended(folder)? {
                    far.sync(true)?;
                }
                *at = Instant::now() + if here == far::Synced::Here { ASK.0 } else { FAR_AGAIN };
            }
        }
        let written = standing::by_folder(folder)?;
        if let Some(status) = written.as_ref().filter(|status| standing::is_final(status)) {
            return Ok(status.clone());
        }
        if self.next.is_none_or(|next| Instant::now() >= next) {
            let found = standing::of_synced(folder)?.status.unwrap_or(Value::Null); // It was brought just now.
            let changed = found["phase"] != self.said["phase"];
            self.pause = if changed {
                ASK.0
            } else {
                (self.pause * 2).clamp(ASK.0, ASK.1)
            };
            // Many who watch one cluster must not ask it at the same moments.
            let jitter = bridgehead_head::tls::random::<1>().map_or(128, |[byte]| u32::from(byte));
            self.next = Some(Instant::now() + self.pause * (224 + jitter / 4) / 256);
            self.said = found;
        }
        let mut status = self.said.clone();
        if let Some(written) = written {
            status["tasks"] = written["tasks"].clone();
            if self.said["phase"] == "starting" && folder::is_open(&written) {
                status["phase"] = written["phase"].clone();
            }
        }
        Ok(status)
    }
}
