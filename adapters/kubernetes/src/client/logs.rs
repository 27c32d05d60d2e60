//! What pods print, through the API server: once, or followed. Owns the rule by which a stream that ended is opened again without loss
//! or repeat: by stamp, and by how many lines had the last one. A stream is of one start of one container: a new pod is a new stream.

use super::connect::Cluster;
use super::ends::index;
use super::kinds::{POD, job_kind};
use super::phases;
use super::reference::JobName;
use super::trouble::Trouble;
use crate::Flavor;
use bridgehead_backend::{BackendError, JobState};
use futures::{AsyncBufReadExt as _, AsyncReadExt as _};
use k8s_openapi::jiff::Timestamp;
use kube::api::LogParams;
use kube::core::Request;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::mpsc::Sender;

const READ: &str = "read logs";
/// Most bytes of one pod that are read at once.
const MOST: i64 = 16 << 20;
/// Bytes after which a line is handed on in pieces.
const LONGEST: u64 = 1 << 20;
/// Between two looks for new pods, and before a stream is opened again.
const LOOK: Duration = Duration::from_secs(1);

/// What one pod printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodLog {
    /// The pod's name.
    pub pod: String,
    /// Its index in its group.
    pub rank: Option<u64>,
    /// Its uid: a pod that was started anew is another pod.
    pub uid: String,
    /// Its lines.
    pub text: String,
}

/// A line of a pod, as it was printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// The pod's name.
    pub pod: String,
    /// Its index in its group.
    pub rank: Option<u64>,
    /// Its uid: another one with the same name is another attempt.
    pub uid: String,
    /// How often its container had been started again before.
    pub restarts: u64,
    /// The line, without its end.
    pub text: String,
}

/// One start of one pod's container.
#[derive(Debug, Clone)]
struct Source {
    namespace: String,
    pod: String,
    rank: Option<u64>,
    uid: String,
    restarts: u64,
}

/// How far a stream has been read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Cursor {
    last: Option<Timestamp>,
    /// Lines with that stamp that were seen.
    seen: u64,
    /// Of those, how many the open stream has shown again.
    again: u64,
}

impl Cursor {
    /// A stream is opened, with lines since the last stamp's whole second.
    fn reopen(&mut self) {
        self.again = 0;
    }

    /// From when on a stream is to show lines: the whole second before the last stamp. The request has whole seconds, and a part
    /// of one would be rounded up there, past lines that were never seen.
    fn since(&self) -> Option<Timestamp> {
        self.last.and_then(|last| Timestamp::from_second(last.as_second()).ok())
    }

    /// Whether a line with this stamp is new.
    fn take(&mut self, stamp: Timestamp) -> bool {
        match self.last {
            Some(last) if stamp < last => false,
            Some(last) if stamp == last => {
                self.again += 1;
                let new = self.again > self.seen;
                self.seen = self.seen.max(self.again);
                new
            }
            _ => {
                *self = Self {
                    last: Some(stamp),
                    seen: 1,
                    again: 1,
                };
                true
            }
        }
    }
}

/// A line with its stamp; `None` where there is no stamp.
fn stamped(line: &str) -> Option<(Timestamp, &str)> {
    let (stamp, text) = line.split_once(' ').unwrap_or((line, ""));
    Some((stamp.parse().ok()?, text))
}

/// The start of a pod's container that can be read: it has begun.
fn source(job: &JobName, pod: &Value) -> Option<Source> {
    let status = &pod["status"]["containerStatuses"][0];
    let begun = status["state"]["running"].is_object() || status["state"]["terminated"].is_object();
    begun.then_some(())?;
    Some(Source {
        namespace: job.namespace.clone(),
        pod: pod["metadata"]["name"].as_str()?.to_owned(),
        rank: index(job.flavor, pod),
        uid: pod["metadata"]["uid"].as_str()?.to_owned(),
        restarts: status["restartCount"].as_u64().unwrap_or(0),
    })
}

/// Rank 0 and what failed, or all.
fn is_wanted(flavor: Flavor, pod: &Value, all: bool) -> bool {
    all || index(flavor, pod) == Some(0) || pod["status"]["phase"] == "Failed"
}

fn request(source: &Source, params: &LogParams) -> Result<http::Request<Vec<u8>>, Trouble> {
    let pods = Request::new(POD.path(Some(&source.namespace)));
    pods.logs(&source.pod, params)
        .map_err(|e| Trouble::Broken(e.to_string()))
}

impl Cluster {
    /// What the pods of a job have printed that are there now: of rank 0 and of those that failed, or of all.
    pub(crate) async fn logs(&self, job: &JobName, all: bool) -> Result<Vec<PodLog>, BackendError> {
        let pods = self.pods(job).await.map_err(|t| t.error(READ))?;
        let mut logs = Vec::new();
        for pod in pods.iter().filter(|pod| is_wanted(job.flavor, pod, all)) {
            let Some(source) = source(job, pod) else { continue };
            let params = LogParams {
                limit_bytes: Some(MOST),
                ..LogParams::default()
            };
            let request = request(&source, &params).map_err(|t| t.error(READ))?;
            let read = tokio::time::timeout(super::calls::CALL, self.calls.client.request_text(request)).await;
            let late = |_| Trouble::Lost(format!("pod {} gave no log in time", source.pod));
            let text = match read.map_err(late).and_then(|text| text.map_err(Trouble::from)) {
                Err(trouble) if trouble.is_absent() => continue, // It went meanwhile.
                other => other.map_err(|t| t.error(READ))?,
            };
            logs.push(PodLog {
                pod: source.pod,
                rank: source.rank,
                uid: source.uid,
                text,
            });
        }
        Ok(logs)
    }

    /// Hands on the lines of a job's pods as they are printed, until the job is over and all of them are read, or nobody
    /// listens.
    pub(crate) async fn follow(self, job: JobName, all: bool, to: Sender<Result<LogLine, BackendError>>) {
        let mut known = BTreeSet::new();
        let mut readers = tokio::task::JoinSet::new();
        loop {
            // The job is looked at before its pods: what it had when it was over is there to be read.
            let over = self.is_over(&job).await;
            let pods = match self.pods(&job).await {
                Ok(pods) => pods,
                Err(Trouble::Lost(_)) => Vec::new(), // It may come back; the job is looked at again.
                Err(trouble) => {
                    let _ = to.send(Err(trouble.error(READ))).await; // Nobody listens any more.
                    return;
                }
            };
            let wanted = pods.iter().filter(|pod| is_wanted(job.flavor, pod, all));
            for source in wanted.filter_map(|pod| source(&job, pod)) {
                if known.insert((source.uid.clone(), source.restarts)) {
                    readers.spawn(self.clone().read(source, to.clone()));
                }
            }
            if over {
                while readers.join_next().await.is_some() {}
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = to.closed() => return,
            }
        }
    }

    async fn is_over(&self, job: &JobName) -> bool {
        let place = job_kind(job.flavor).within(&job.namespace);
        match self.calls.find(place, &job.name).await {
            Ok(Some(object)) if object["metadata"]["uid"] == job.uid.as_str() => {
                phases::of(job.flavor, &object).state == JobState::Ended
            }
            Ok(_) => true,
            Err(_) => false,
        }
    }

    /// Reads one start of one container to its end.
    async fn read(self, source: Source, to: Sender<Result<LogLine, BackendError>>) {
        let mut cursor = Cursor::default();
        loop {
            // Looked at before the stream: a container that has ended prints nothing after what the stream then shows.
            let ended = self.has_ended(&source).await;
            let params = LogParams {
                follow: true,
                timestamps: true,
                since_time: cursor.since(),
                ..LogParams::default()
            };
            cursor.reopen();
            let Ok(request) = request(&source, &params) else { return };
            match self.calls.client.request_stream(request).await {
                Err(error) => {
                    if Trouble::from(error).is_final() {
                        return; // The pod is gone.
                    }
                }
                Ok(stream) => {
                    let whole = lines(stream, ended, &source, &mut cursor, &to).await;
                    if to.is_closed() || (whole && ended) {
                        return;
                    }
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether the container of this start has ended, or its pod is gone or another.
    async fn has_ended(&self, source: &Source) -> bool {
        match self.calls.find(POD.within(&source.namespace), &source.pod).await {
            Ok(Some(pod)) => {
                let status = &pod["status"]["containerStatuses"][0];
                let same = pod["metadata"]["uid"] == source.uid.as_str() && status["restartCount"] == source.restarts;
                !same || status["state"]["terminated"].is_object()
            }
            Ok(None) => true,
            Err(_) => false,
        }
    }
}

/// Hands on what is new in a stream; `true` where it ended in good order. A line without its end is one that the break cut, and
/// comes whole when the stream is opened again; only what `ended` has such a line for its last.
async fn lines(
    stream: impl futures::AsyncBufRead,
    ended: bool,
    source: &Source,
    cursor: &mut Cursor,
    to: &Sender<Result<LogLine, BackendError>>,
) -> bool {
    let mut stream = std::pin::pin!(stream);
    let mut new = true;
    loop {
        let mut line = Vec::new();
        match (&mut stream).take(LONGEST).read_until(b'\n', &mut line).await {
            Err(_) => return false,
            Ok(0) => return true,
            Ok(_) => {}
        }
        let is_whole = line.pop_if(|last| *last == b'\n').is_some();
        if !is_whole && !ended && (line.len() as u64) < LONGEST {
            return false;
        }
        let line = String::from_utf8_lossy(&line);
        let text = match stamped(&line) {
            Some((stamp, text)) => {
                new = cursor.take(stamp);
                text
            }
            None => line.as_ref(), // The rest of a very long line: it is as new as its beginning.
        };
        let line = LogLine {
            pod: source.pod.clone(),
            rank: source.rank,
            uid: source.uid.clone(),
            restarts: source.restarts,
            text: text.to_owned(),
        };
        if new && to.send(Ok(line)).await.is_err() {
            return true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_is_opened_again_loses_and_repeats_nothing() {
        let printed: Vec<(&str, &str)> = vec![
            ("2026-11-30T08:00:00.1Z", "a"),
            ("2026-11-30T08:00:00.25Z", "b"),
            ("2026-11-30T08:00:00.25Z", "c"),
            ("2026-11-30T08:00:00.25Z", "d"),
            ("2026-11-30T08:00:01Z", "e"),
        ];
        // The stream breaks after each number of lines and shows all of that second again.
        for cut in 0..=printed.len() {
            let mut cursor = Cursor::default();
            let mut got = Vec::new();
            for stream in [&printed[..cut], &printed[..]] {
                cursor.reopen();
                for (stamp, text) in stream {
                    let line = format!("{stamp} {text}");
                    let (stamp, text) = stamped(&line).unwrap();
                    if cursor.take(stamp) {
                        got.push(text.to_owned());
                    }
                }
            }
            assert_eq!(got, ["a", "b", "c", "d", "e"], "broken after {cut}");
        }
    }

    #[test]
    fn a_stream_is_opened_from_the_second_of_the_last_line_and_not_from_the_next() {
        let mut cursor = Cursor::default();
        assert_eq!(cursor.since(), None);
        cursor.take("2026-11-30T08:00:39.9Z".parse().unwrap());
        assert_eq!(cursor.since(), Some("2026-11-30T08:00:39Z".parse().unwrap()));
    }

    #[test]
    fn a_stamp_without_trailing_zeros_is_earlier_all_the_same() {
        let (early, _) = stamped("2026-11-30T08:00:00.6Z x").unwrap();
        let (late, text) = stamped("2026-11-30T08:00:00.61Z ").unwrap();
        assert!(early < late && text.is_empty());
        assert_eq!(stamped("no stamp here"), None);
    }
}
