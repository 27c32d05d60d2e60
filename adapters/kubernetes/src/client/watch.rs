//! Waiting until one object has changed: list and watch, which go on after a lost connection and begin anew where the server has
//! forgotten (410). Owns the deadline; what is waited for is the caller's.

use super::calls::Calls;
use super::kinds::{Kind, job_kind};
use super::reference::JobName;
use super::trouble::Trouble;
use futures::{StreamExt as _, TryStreamExt as _};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, watch_object};
use serde_json::Value;
use std::time::Duration;

impl Kind {
    fn resource(&self) -> ApiResource {
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(self.group, self.version, self.kind), self.plural)
    }
}

/// What ends a wait at once: no right, or no such kind. All else may pass.
fn hopeless(error: watcher::Error) -> Option<Trouble> {
    let (watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error)) = error else {
        return None;
    };
    let trouble = Trouble::from(error);
    let no = matches!(&trouble, Trouble::Denied(_)) || matches!(trouble.code(), Some(403 | 404));
    no.then_some(trouble)
}

impl Calls {
    /// Waits until `done` holds of the job's object (`None` where it is gone, also where another job has its name). `false` where
    /// that did not come within `patience`.
    pub(crate) async fn wait_for(
        &self,
        job: &JobName,
        patience: Duration,
        mut done: impl FnMut(Option<&Value>) -> bool,
    ) -> Result<bool, Trouble> {
        let resource = job_kind(job.flavor).resource();
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &job.namespace, &resource);
        let changes = watch_object(api, &job.name).default_backoff().into_stream();
        let mut changes = std::pin::pin!(changes);
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let change = match tokio::time::timeout_at(deadline, changes.next()).await {
                Err(_) => return Ok(false),
                Ok(None) => return Err(Trouble::Lost("the watch has ended".to_owned())),
                Ok(Some(Ok(change))) => change,
                Ok(Some(Err(error))) => match hopeless(error) {
                    Some(trouble) => return Err(trouble),
                    None => continue,
                },
            };
            let object = change.and_then(|object| serde_json::to_value(object).ok());
            let same = object.filter(|object| object["metadata"]["uid"] == job.uid.as_str());
            if done(same.as_ref()) {
                return Ok(true);
            }
        }
    }
}
