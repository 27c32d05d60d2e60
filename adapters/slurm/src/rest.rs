//! The REST door: slurmrestd over TCP or a Unix socket. Owns the search for the version, who asks (token), and what an answer
//! means: an error that made the job all the same, a warning that tells of a dropped key, a 500 that only says that the token
//! is bad.

use crate::body::{self, VERSIONS, Version};
use crate::door::{Door, Trouble};
use crate::from_json::{self, Complaint};
use crate::job::SlurmJob;
use crate::options::DoorKind;
use crate::record::{JobRecord, Node, Partition};
use crate::token::{Secret, Tokens};
use crate::waiter::Waiter;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a request may take. A daemon whose controller is down answers after 9 s, one with thousands of jobs after a few.
const PATIENCE: Duration = Duration::from_secs(60);
/// A refusal that took so long is a controller that does not answer, not a bad token: both read the same.
const SLOW: Duration = Duration::from_secs(5);
/// An answer is at most this long: that of 20,000 jobs has 64 MB.
const LONGEST: usize = 512 << 20;
/// Slurm does not know the job.
const NO_JOB: u64 = 2017;
/// The job is over already.
const ALREADY_OVER: u64 = 2021;

/// Where slurmrestd is, and who asks.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) url: String,
    pub(crate) user: Option<String>,
    pub(crate) tokens: Option<Tokens>,
    /// Variables of the caller, which a job gets as it would by sbatch.
    pub(crate) caller: BTreeMap<String, String>,
}

/// slurmrestd at one version of its API.
pub(crate) struct Rest {
    waiter: Arc<Waiter>,
    client: Client,
    base: String,
    place: Place,
    version: Version,
}

impl std::fmt::Debug for Rest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rest")
            .field("url", &self.place.url)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// An answer: its status and its document, null where it is none.
struct Answer {
    status: StatusCode,
    document: Value,
    text: String,
    took: Duration,
}

/// What a site's slurmrestd does before it asks for a token.
pub(crate) enum Knock {
    /// It answers at a version that this client speaks.
    Open(Rest),
    /// It wants to know who asks.
    WhoIsIt(Place),
}

impl Rest {
    /// Looks for the newest version that both sides speak.
    pub(crate) fn knock(waiter: Arc<Waiter>, place: Place) -> Result<Knock, Trouble> {
        let (client, base) = client(&place.url)?;
        let mut rest = Self {
            waiter,
            client,
            base,
            place,
            version: VERSIONS[0],
        };
        for &version in VERSIONS {
            rest.version = version;
            let answer = rest.ask(Method::GET, "ping", None)?;
            match answer.status {
                StatusCode::NOT_FOUND => {}
                StatusCode::UNAUTHORIZED if rest.place.tokens.is_none() => return Ok(Knock::WhoIsIt(rest.place)),
                status if status.is_success() => return Ok(Knock::Open(rest)),
                _ => return Err(rest.trouble(&answer)),
            }
        }
        Err(Trouble::Refused(format!(
            "{} speaks none of {}: use door=\"cli\"",
            rest.place.url,
            VERSIONS.iter().map(Version::to_string).collect::<Vec<_>>().join(", ")
        )))
    }

    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// Asks below `/slurm/VERSION/`; once more with another token if the first is refused.
    fn ask(&self, method: Method, path: &str, body: Option<&str>) -> Result<Answer, Trouble> {
        self.ask_api(method, "slurm", path, body)
    }

    fn ask_api(&self, method: Method, api: &str, path: &str, body: Option<&str>) -> Result<Answer, Trouble> {
        let token = self.place.tokens.as_ref().map(Tokens::current).transpose()?;
        let answer = self.send(method.clone(), api, path, body, token.as_ref())?;
        if let (Some(tokens), Some(refused)) = (&self.place.tokens, &token)
            && answer.is_of_a_stranger()
            && from_json::made(&answer.document).is_none()
            && let Some(other) = tokens.instead_of(refused)
        {
            return self.send(method, api, path, body, Some(&other));
        }
        Ok(answer)
    }

    fn send(
        &self,
        method: Method,
        api: &str,
        path: &str,
        body: Option<&str>,
        token: Option<&Secret>,
    ) -> Result<Answer, Trouble> {
        let mut request = self
            .client
            .request(method, format!("{}/{api}/{}/{path}", self.base, self.version));
        if let Some(token) = token {
            let mut value = reqwest::header::HeaderValue::from_str(token.reveal())
                .map_err(|_| Trouble::Denied("the token is no text that a header can hold".to_owned()))?;
            value.set_sensitive(true);
            request = request.header("X-SLURM-USER-TOKEN", value);
            if let Some(user) = &self.place.user {
                request = request.header("X-SLURM-USER-NAME", user);
            }
        }
        if let Some(body) = body {
            // No charset: slurmrestd refuses a type that has one.
            request = request.header("Content-Type", "application/json").body(body.to_owned());
        }
        let begun = Instant::now();
        self.waiter.wait(async {
            let mut response = request.send().await.map_err(|e| self.lost(&e))?;
            let status = response.status();
            let mut bytes = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(|e| self.lost(&e))? {
                if bytes.len() + chunk.len() > LONGEST {
                    return Err(Trouble::Lost(format!(
                        "{} sends an answer without an end",
                        self.place.url
                    )));
                }
                bytes.extend_from_slice(&chunk);
            }
            Ok(Answer {
                status,
                document: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
                text: excerpt(&bytes),
                took: begun.elapsed(),
            })
        })
    }

    fn lost(&self, error: &reqwest::Error) -> Trouble {
        let mut words = format!("{}: ", self.place.url);
        let mut cause: Option<&dyn std::error::Error> = Some(error);
        let mut last = String::new();
        while let Some(e) = cause {
            last = e.to_string();
            cause = e.source();
        }
        words += &last;
        if error.is_connect() || error.is_builder() {
            Trouble::Unreachable(format!(
                "{words}; see rest_url, whether slurmrestd runs there, or use door=\"cli\""
            ))
        } else {
            Trouble::Lost(words)
        }
    }

    /// What an answer that is none of success tells.
    fn trouble(&self, answer: &Answer) -> Trouble {
        let words = answer.words();
        if answer.is_of_a_stranger() {
            if answer.took >= SLOW && answer.status == StatusCode::INTERNAL_SERVER_ERROR {
                return Trouble::Unreachable(format!(
                    "{words}: the controller does not answer; `scontrol ping` tells"
                ));
            }
            let way = match &self.place.tokens {
                Some(tokens) => tokens.way_out(),
                None => "give token_file (what `scontrol token` prints, mode 0600)".to_owned(),
            };
            let who = self.place.user.as_deref().unwrap_or("nobody");
            return Trouble::Denied(format!(
                "slurmrestd at {} does not accept the token of user {who} ({words}): {way}; \
                 if the token is good, see `scontrol ping`: a controller that is down reads the same",
                self.place.url
            ));
        }
        let gateway = [
            StatusCode::BAD_GATEWAY,
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::GATEWAY_TIMEOUT,
        ];
        if gateway.contains(&answer.status) || answer.status.is_server_error() && answer.complaints().is_empty() {
            return Trouble::Lost(format!("{} answered {}: {words}", self.place.url, answer.status));
        }
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            return Trouble::Busy(words);
        }
        Trouble::of(&words)
    }

    /// The answer's document, if it says that all went well.
    fn good(&self, answer: Answer) -> Result<Value, Trouble> {
        if answer.status.is_success() && answer.complaints().is_empty() && !answer.document.is_null() {
            return Ok(answer.document);
        }
        if answer.status.is_success() && answer.document.is_null() {
            return Err(Trouble::Lost(format!(
                "{} answered with no JSON: {}",
                self.place.url, answer.text
            )));
        }
        Err(self.trouble(&answer))
    }
}

impl Answer {
    fn complaints(&self) -> Vec<Complaint> {
        from_json::complaints(&self.document)
    }

    fn has(&self, codes: &[u64]) -> bool {
        self.complaints()
            .iter()
            .any(|complaint| codes.contains(&complaint.code))
    }

    fn words(&self) -> String {
        let words: Vec<String> = self.complaints().into_iter().map(|c| c.words).collect();
        if !words.is_empty() {
            words.join("; ")
        } else if self.text.is_empty() {
            format!("HTTP status {}", self.status)
        } else {
            self.text.clone()
        }
    }

    /// Whether the daemon did not accept who asks. Old versions say so only by failing to load anything.
    fn is_of_a_stranger(&self) -> bool {
        /// Slurm's "Protocol authentication error".
        const NOT_AUTHENTIC: u64 = 1007;
        let plain = self.status == StatusCode::UNAUTHORIZED || self.status.as_u16() == 511;
        let unable = self.status == StatusCode::INTERNAL_SERVER_ERROR
            && self
                .complaints()
                .iter()
                .any(|c| c.code == 0 && c.words.contains("Unspecified error"));
        plain || unable || self.has(&[NOT_AUTHENTIC])
    }
}

/// The beginning of an answer, for people.
fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A client for `url`, and what its requests begin with.
fn client(url: &str) -> Result<(Client, String), Trouble> {
    // Whoever set a provider before us has the same one: ring is the only one in the build.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // A token must go where it was meant for: to no proxy, and not on with a redirection.
    let builder = Client::builder()
        .timeout(PATIENCE)
        .connect_timeout(Duration::from_secs(10))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy();
    let (builder, base) = if let Some(path) = url.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        (
            builder.unix_socket(path).tls_certs_only([]),
            "http://localhost".to_owned(),
        )
    } else if url.starts_with("http://") {
        // The system's certificates are of no use here, and reading them takes longer than a submission.
        (builder.tls_certs_only([]), url.trim_end_matches('/').to_owned())
    } else if url.starts_with("https://") {
        (builder, url.trim_end_matches('/').to_owned())
    } else {
        return Err(Trouble::Refused(format!(
            "option rest_url: {url:?} begins with none of http://, https:// and unix:"
        )));
    };
    let client = builder
        .build()
        .map_err(|e| Trouble::Refused(format!("no HTTP client could be made: {e:?}")))?;
    Ok((client, base))
}

impl Door for Rest {
    fn kind(&self) -> DoorKind {
        DoorKind::Rest
    }

    fn render(&self, job: &SlurmJob) -> Result<String, String> {
        let body = body::submission(job, self.version, &self.place.caller)?;
        Ok(format!("{body:#}\n"))
    }

    fn submit(&self, text: &str) -> Result<u64, Trouble> {
        let answer = self.ask(Method::POST, "job/submit", Some(text))?;
        // Also an error's answer may have made the job.
        let Some(id) = from_json::made(&answer.document) else {
            return Err(match self.good(answer) {
                Ok(_) => Trouble::Lost(format!("{} answered without a job's number", self.place.url)),
                Err(trouble) => trouble,
            });
        };
        let dropped = from_json::warnings(&answer.document);
        match dropped
            .iter()
            .find(|warning| warning.starts_with("Ignoring unknown field"))
        {
            None => Ok(id),
            Some(warning) => {
                self.cancel(id)?;
                Err(Trouble::Refused(format!(
                    "slurmrestd {} made the job without a part of what was asked ({warning}); it was cancelled: use door=\"cli\"",
                    self.version
                )))
            }
        }
    }

    fn jobs(&self, ids: &[u64]) -> Result<Vec<JobRecord>, Trouble> {
        let path = match ids {
            [] => return Ok(Vec::new()),
            [one] => format!("job/{one}"),
            _ => "jobs".to_owned(),
        };
        let answer = self.ask(Method::GET, &path, None)?;
        if answer.has(&[NO_JOB]) {
            return Ok(Vec::new());
        }
        let found = from_json::jobs(&self.good(answer)?);
        Ok(found
            .into_iter()
            .filter(|record| ids.iter().any(|&id| record.is_of(id)))
            .collect())
    }

    fn by_comment(&self, comment: &str) -> Result<Vec<JobRecord>, Trouble> {
        let answer = self.good(self.ask(Method::GET, "jobs", None)?)?;
        // Who needs no token speaks to a daemon of their own, and its jobs are theirs, whatever the login name.
        let user = self.place.user.as_ref().filter(|_| self.place.tokens.is_some());
        let mine = |record: &JobRecord| user.is_none_or(|user| record.user == *user);
        let found = from_json::jobs(&answer).into_iter();
        Ok(found
            .filter(|record| record.comment == comment && mine(record))
            .collect())
    }

    fn accounted(&self, ids: &[u64]) -> Vec<JobRecord> {
        let mut found = Vec::new();
        for id in ids {
            // Without accounting the path is missing or every answer is an error.
            let answer = self.ask_api(Method::GET, "slurmdb", &format!("job/{id}"), None);
            match answer.and_then(|answer| self.good(answer)) {
                Ok(answer) => found.extend(from_json::accounted(&answer)),
                Err(_) => break,
            }
        }
        found
    }

    fn cancel(&self, id: u64) -> Result<(), Trouble> {
        let answer = self.ask(Method::DELETE, &format!("job/{id}"), None)?;
        if answer.has(&[NO_JOB, ALREADY_OVER]) {
            return Ok(());
        }
        self.good(answer).map(drop)
    }

    fn depend(&self, id: u64, dependency: &str) -> Result<(), Trouble> {
        let body = json!({"dependency": dependency}).to_string();
        let answer = self.ask(Method::POST, &format!("job/{id}"), Some(&body))?;
        self.good(answer).map(drop)
    }

    fn partitions(&self) -> Result<Vec<Partition>, Trouble> {
        let answer = self.good(self.ask(Method::GET, "partitions", None)?)?;
        Ok(from_json::partitions(&answer))
    }

    fn nodes(&self) -> Result<Vec<Node>, Trouble> {
        let answer = self.good(self.ask(Method::GET, "nodes", None)?)?;
        Ok(from_json::nodes(&answer))
    }
}
