//! Arrays under names: written into the node's store in place or by one copy, read there without one. Owns drafts and views;
//! the format of an array is `wire`'s. Hot path: `Guest::put`, `Guest::get`, `Watch::next`.

use crate::error::GuestError;
use crate::guest::{Guest, Held, Patience, Watch};
use crate::memory::Local;
use bridgehead_store_node::{Lease, Reservation, new_id};
use bridgehead_wire::{ArrayHead, NameOp, NameReply, NameRequest, Outcome, PutObject, Value, outcome, value};
use std::ops::Range;

/// An array to be filled.
#[derive(Debug)]
pub struct Draft {
    guest: Guest,
    place: Range<usize>,
    room: Room,
}

#[derive(Debug)]
enum Room {
    /// It is so small that it travels in messages.
    Local(Local),
    Stored(Reservation),
}

impl Room {
    fn bytes(&mut self) -> &mut [u8] {
        match self {
            Self::Local(local) => local.bytes_mut(),
            Self::Stored(reservation) => reservation.bytes(),
        }
    }
}

impl Draft {
    /// Its numbers, which nobody else sees yet. What they are at first is undefined.
    pub fn numbers(&mut self) -> &mut [u8] {
        let place = self.place.clone();
        &mut self.room.bytes()[place]
    }

    /// Makes it a version of a name, without a copy: its number. `version` gives it one beyond the newest; a number that is not
    /// changes nothing. In a stream that blocks it waits for room.
    ///
    /// # Errors
    /// The name was closed, or there was no room in time.
    pub fn publish(self, name: &str, version: Option<u64>, patience: Patience) -> Result<u64, GuestError> {
        let Self { guest, room, .. } = self;
        let request = NameRequest {
            version,
            ..guest.about(NameOp::Put, name)?
        };
        guest.shared.check_own()?;
        // Until the answer is there this process holds what it wrote, and the table then does.
        let (value, _held) = match room {
            Room::Local(local) => (Value::inline(local.bytes().to_vec().into()), None),
            Room::Stored(reservation) => {
                let (object, lease) = reservation.seal(new_id()?);
                guest.shared.add(PutObject {
                    object: Some(object.clone()),
                });
                let shared = guest.shared.clone();
                let held = Held {
                    object: object.clone(),
                    shared,
                };
                (Value::stored(object), Some((lease, held)))
            }
        };
        let value = Some(value);
        let reply = guest.shared.ask(NameRequest { value, ..request }, patience.bounded())?;
        Ok(reply.version)
    }
}

/// An array that was taken: its bytes stay for as long as this.
#[derive(Debug)]
pub struct View {
    /// Its version.
    pub version: u64,
    /// All but its numbers.
    pub head: ArrayHead,
    place: Range<usize>,
    memory: Memory,
}

#[derive(Debug)]
enum Memory {
    Local(Local),
    /// The lease goes before the hold, so that the agent finds none when it hears of the release.
    Stored(Lease, #[allow(dead_code, reason = "kept, not read")] Held),
}

impl Memory {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Local(local) => local.bytes(),
            Self::Stored(lease, _) => lease.bytes(),
        }
    }
}

impl View {
    /// Its numbers.
    #[must_use]
    pub fn numbers(&self) -> &[u8] {
        &self.memory.bytes()[self.place.clone()]
    }

    fn new(name: &str, version: u64, memory: Memory) -> Result<Self, GuestError> {
        let (head, place) = ArrayHead::read(memory.bytes()).map_err(|e| GuestError::of_array(name, &e))?;
        Ok(Self {
            version,
            head,
            place,
            memory,
        })
    }
}

impl Guest {
    /// An array in the store of this node, to be filled in place.
    ///
    /// # Errors
    /// There is no room.
    pub fn create(&self, head: &ArrayHead) -> Result<Draft, GuestError> {
        self.shared.check_own()?;
        let len = head.len();
        let mut room = if len <= self.shared.config.inline_limit as usize {
            Room::Local(Local::new(len))
        } else {
            Room::Stored(self.shared.store.reserve(len).map_err(GuestError::of_room)?)
        };
        head.write(room.bytes());
        let place = head.offset()..len;
        let guest = self.clone();
        Ok(Draft { guest, place, room })
    }

    /// Adds a version of a name with these numbers, as `Draft::publish` does: its number.
    ///
    /// # Errors
    /// As `create` and `Draft::publish`; or there are not as many bytes as the head says.
    pub fn put(
        &self,
        name: &str,
        head: &ArrayHead,
        numbers: &[u8],
        version: Option<u64>,
        patience: Patience,
    ) -> Result<u64, GuestError> {
        if numbers.len() != head.bytes() {
            let why = format!(
                "an array of {} bytes was given as one of {}",
                numbers.len(),
                head.bytes()
            );
            return Err(GuestError::Wrong(why));
        }
        let mut draft = self.create(head)?;
        draft.numbers().copy_from_slice(numbers);
        draft.publish(name, version, patience)
    }

    /// The array of a version, of the newest one if none is named.
    ///
    /// # Errors
    /// It is not there, did not come in time, is lost, or is no plain array.
    pub fn get(&self, name: &str, version: Option<u64>, patience: Patience) -> Result<View, GuestError> {
        let once = || {
            let request = NameRequest {
                version,
                wait: patience != Patience::None,
                ..self.about(NameOp::Get, name)?
            };
            self.take(name, self.shared.ask(request, patience)?)
        };
        match once() {
            // A copy that went down with its node while it was on its way: there may be another.
            Err(GuestError::Lost(_)) => once(),
            other => other,
        }
    }

    /// The array in an answer of the table of names.
    fn take(&self, name: &str, reply: NameReply) -> Result<View, GuestError> {
        let kind = match reply.outcome {
            Some(Outcome {
                kind: Some(outcome::Kind::Value(value)),
            }) => value.kind,
            _ => None,
        };
        let memory = match kind {
            Some(value::Kind::Inline(bytes)) => {
                let mut local = Local::new(bytes.len());
                local.bytes_mut().copy_from_slice(&bytes);
                Memory::Local(local)
            }
            Some(value::Kind::Stored(object)) => {
                let shared = self.shared.clone();
                let held = Held { object, shared };
                let place = if held.object.node == self.node() {
                    held.object.clone()
                } else {
                    self.shared.fetch(&held.object)?
                };
                let lease = self.shared.store.lease(&place).map_err(GuestError::of_reading)?;
                Memory::Stored(lease, held)
            }
            Some(value::Kind::Program(_) | value::Kind::File(_)) | None => {
                return Err(GuestError::NoArray(format!("the value of {name:?} is no array")));
            }
        };
        View::new(name, reply.version, memory)
    }
}

impl Watch {
    /// The next version, once it is there; `None` when no more will come. After a version that is lost or no plain array the
    /// next call goes on.
    ///
    /// # Errors
    /// It did not come in time, the task that wrote the name has failed, or the version is lost or no plain array.
    pub fn next(&mut self, patience: Patience) -> Result<Option<View>, GuestError> {
        let before = self.after;
        match self.next_once(patience) {
            Err(GuestError::Lost(_)) => {
                self.after = before; // As in `get`.
                self.next_once(patience)
            }
            other => other,
        }
    }

    fn next_once(&mut self, patience: Patience) -> Result<Option<View>, GuestError> {
        let request = NameRequest {
            version: Some(self.after),
            about: self.number,
            ..self.guest.about(NameOp::Next, &self.name)?
        };
        let reply = self.guest.shared.ask(request, patience.bounded())?;
        if reply.version == 0 {
            return Ok(None);
        }
        self.after = reply.version;
        self.guest.take(&self.name, reply).map(Some)
    }
}
