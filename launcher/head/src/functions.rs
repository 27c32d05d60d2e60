//! Functions by digest: each is known to the run once, under one number that all agents use, and sent once to each agent.

use bridgehead_spec::Digest;
use bridgehead_wire::PutFunction;
use bytes::Bytes;
use std::collections::{HashMap, HashSet};

#[derive(Debug)]
struct Function {
    digest: Digest,
    name: String,
    /// Empty: the code lies in `blobs/` of the run folder.
    code: Bytes,
}

/// All functions of a run.
#[derive(Debug, Default)]
pub struct Functions {
    list: Vec<Function>,
    by_digest: HashMap<Digest, u32>,
    known: HashSet<(u32, u32)>,
}

impl Functions {
    /// Learns a function; the same digest keeps its number.
    pub fn add(&mut self, digest: Digest, name: &str, code: Bytes) -> u32 {
        let next = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        let index = *self.by_digest.entry(digest).or_insert(next);
        if index == next {
            self.list.push(Function {
                digest,
                name: name.to_owned(),
                code,
            });
        }
        index
    }

    /// The number of a digest.
    #[must_use]
    pub fn index(&self, digest: &Digest) -> Option<u32> {
        self.by_digest.get(digest).copied()
    }

    /// The name of a function, for people.
    #[must_use]
    pub fn name(&self, index: u32) -> &str {
        self.list.get(index as usize).map_or("?", |f| f.name.as_str())
    }

    /// The digest of a function.
    #[must_use]
    pub fn digest(&self, index: u32) -> Option<Digest> {
        self.list.get(index as usize).map(|f| f.digest)
    }

    /// What must be sent to `agent` before its first call of `index`; `None` when it knows.
    pub fn introduce(&mut self, agent: u32, index: u32) -> Option<PutFunction> {
        if !self.known.insert((agent, index)) {
            return None;
        }
        let f = self.list.get(index as usize)?;
        Some(PutFunction {
            index,
            digest: Bytes::copy_from_slice(&f.digest.0),
            name: f.name.clone(),
            code: f.code.clone(),
        })
    }

    /// A lost agent knows nothing any more.
    pub fn forget(&mut self, agent: u32) {
        self.known.retain(|&(a, _)| a != agent);
    }
}
