//! A process's look at an object in a GPU's memory. Owns the hold on it, which ends after the block is closed here.

use crate::client::{Client, ClientError, bad};
use crate::protocol::{Kind, Message};
use bridgehead_spec::ObjectId;
use bridgehead_store_gpu::{Export, Opened, open};
use bridgehead_wire::ObjectRef;

/// An object's bytes in the memory of a GPU of this node. They stay there, and do not change, for as long as this lives.
#[derive(Debug)]
pub struct DeviceView {
    client: Client,
    id: ObjectId,
    head: Vec<u8>,
    /// Taken out when this is dropped: the block must be closed before the store may free it.
    opened: Option<Opened>,
}

impl Client {
    /// Looks at an object in the memory of a GPU of this node, without a copy. Where it has no copy on one and `gpu` is given,
    /// it is copied there first.
    ///
    /// # Errors
    /// It is not on this node or on no GPU, that GPU has no room, or this process does not see the GPU.
    pub fn device_view(&self, object: &ObjectRef, gpu: Option<u32>) -> Result<DeviceView, ClientError> {
        let id = object.id();
        let mut asked = Message::about(Kind::View, id);
        asked.words[2] = gpu.map_or(0, |gpu| u64::from(gpu) + 1);
        let (answer, mut fds) = self.ask_with(&asked)?;
        let mut view = DeviceView {
            client: self.clone(),
            id,
            head: Vec::new(),
            opened: None,
        };
        let len = usize::try_from(answer.words[1]).unwrap_or(usize::MAX);
        let (bytes, head) = answer
            .text
            .split_at_checked(len)
            .ok_or_else(|| bad("the store's answer about a GPU's memory is cut off"))?;
        head.clone_into(&mut view.head);
        let export = Export {
            bytes: bytes.to_vec(),
            descriptor: fds.pop(),
        };
        view.opened = Some(open(export).map_err(|error| ClientError::Never(error.to_string()))?);
        Ok(view)
    }
}

impl DeviceView {
    /// The open block; `None` never but while it is being dropped.
    #[must_use]
    pub fn opened(&self) -> Option<&Opened> {
        self.opened.as_ref()
    }

    /// The object's first bytes, up to 2 KiB, in host memory.
    #[must_use]
    pub fn head(&self) -> &[u8] {
        &self.head
    }
}

impl Drop for DeviceView {
    fn drop(&mut self) {
        // A forked child has inherited the mapping, but the hold is its parent's.
        let own = self.client.is_own();
        match self.opened.take() {
            Some(opened) if !own && !opened.is_stand_in() => std::mem::forget(opened), // CUDA does not survive a fork.
            opened => drop(opened),
        }
        if own {
            self.client.tell(&Message::about(Kind::Unview, self.id));
        }
    }
}
