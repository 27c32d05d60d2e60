//! What the folder service answers: who may ask for what, and the file behind it. Nothing that a peer says is believed: paths
//! follow the rules of `paths.rs`, sizes have bounds, and a file that does not come whole never has a name.

use crate::body::{self, Sent};
use crate::paths::{FilePath, Kind, Listed, Top};
use crate::service::{Role, Shared};
use crate::tree::Part;
use crate::{APPEND_MOST, FOLDER_HEADER, LENGTH_HEADER, LIFE_HEADER, VERSION};
use bridgehead_wire::Ticket;
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, RANGE, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use std::io;

/// Most bytes of a bundle.
const BUNDLE_MOST: u64 = 1 << 30;
/// Most bytes of a request in the mailbox.
const MAILBOX_MOST: u64 = 1 << 20;
/// Most bytes of a result or a blob; more is no value of one task.
const VALUE_MOST: u64 = 1 << 40;

/// What a request gets that is refused, or is for something that is not there.
struct Refusal {
    status: StatusCode,
    text: String,
    header: Option<(HeaderName, String)>,
}

impl Refusal {
    fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self {
            status,
            text: text.into(),
            header: None,
        }
    }

    /// It is not there yet.
    fn later(text: impl Into<String>) -> Self {
        Self {
            header: Some((RETRY_AFTER, "1".to_owned())),
            ..Self::new(StatusCode::NOT_FOUND, text)
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        let status = match error.kind() {
            io::ErrorKind::NotFound => StatusCode::NOT_FOUND,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StatusCode::INSUFFICIENT_STORAGE,
            // A link or something that is no file stands there.
            io::ErrorKind::InvalidInput => StatusCode::FORBIDDEN,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

type Answer = Result<Response<Sent>, Refusal>;

/// Answers one request.
pub(crate) async fn answer(shared: &Shared, role: Role, request: Request<Incoming>) -> Response<Sent> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    route(shared, role, request).await.unwrap_or_else(|refusal| {
        let Refusal { status, text, header } = refusal;
        tracing::debug!(%method, path, %status, text, "the folder service refused a request");
        let mut response = respond(status, body::bytes(format!("{text}\n")));
        if let Some((name, value)) = header {
            put(&mut response, name, &value);
        }
        response
    })
}

fn respond(status: StatusCode, body: Sent) -> Response<Sent> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

fn put(response: &mut Response<Sent>, name: HeaderName, value: &str) {
    if let Ok(value) = value.parse() {
        response.headers_mut().insert(name, value);
    }
}

fn done() -> Answer {
    Ok(respond(StatusCode::NO_CONTENT, body::empty()))
}

async fn route(shared: &Shared, role: Role, request: Request<Incoming>) -> Answer {
    if role == Role::Agent {
        check_life(shared, &request)?;
    }
    let path = request.uri().path().to_owned();
    let Some(path) = path.strip_prefix(VERSION) else {
        return Err(Refusal::new(
            StatusCode::NOT_FOUND,
            format!("paths begin with {VERSION}"),
        ));
    };
    let method = request.method().clone();
    let (what, rest) = path.split_once('/').unwrap_or((path, ""));
    match (what, rest, role) {
        ("files", "", Role::Client) if method == Method::GET => list(shared),
        ("files", name, _) if !name.is_empty() => match method {
            Method::GET => get_file(shared, role, name, &request),
            Method::HEAD => file_len(shared, role, name),
            Method::PUT => put_file(shared, role, name, request).await,
            _ => Err(not_so(&method)),
        },
        ("tickets", rank, Role::Agent) if method == Method::GET => ticket(shared, rank),
        ("bundle", "", Role::Agent) if method == Method::GET => get_bundle(shared),
        ("bundle", "", Role::Client) if method == Method::PUT => put_bundle(shared, request).await,
        ("done", "", Role::Agent) if method == Method::POST => agent_done(shared, request).await,
        ("collected", "", Role::Client) if method == Method::POST => {
            shared.collected();
            done()
        }
        ("files" | "tickets" | "bundle" | "done" | "collected", ..) => Err(not_for(role)),
        _ => Err(Refusal::new(StatusCode::NOT_FOUND, "there is no such thing")),
    }
}

fn not_so(method: &Method) -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not for files"))
}

fn not_for(role: Role) -> Refusal {
    let who = match role {
        Role::Client => "the client",
        Role::Agent => "an agent",
    };
    Refusal::new(StatusCode::FORBIDDEN, format!("that is not for {who}"))
}

/// Agents of another life of the launch must not take part in this one.
fn check_life(shared: &Shared, request: &Request<Incoming>) -> Result<(), Refusal> {
    let life = request.headers().get(LIFE_HEADER).and_then(|value| value.to_str().ok());
    if life == Some(&shared.life) {
        return Ok(());
    }
    let text = format!(
        "the agent is of life {:?} of the launch, this head of life {:?}",
        life.unwrap_or(""),
        shared.life
    );
    Err(Refusal::new(StatusCode::CONFLICT, text))
}

fn list(shared: &Shared) -> Answer {
    let mut files: Vec<Listed> = Vec::new();
    // The journal before the results: what a record names that is listed here is listed as well.
    for top in [Top::Root, Top::Journal, Top::Logs, Top::Results] {
        files.extend(shared.tree.list(top)?);
    }
    let text = serde_json::to_vec(&files).map_err(io::Error::other)?;
    let mut response = respond(StatusCode::OK, body::bytes(text));
    put(&mut response, CONTENT_TYPE, "application/json");
    put(&mut response, HeaderName::from_static(FOLDER_HEADER), &shared.name);
    Ok(response)
}

/// The file that a request names, if `role` may do that with it.
fn named(role: Role, name: &str, allowed: impl Fn(Top) -> bool) -> Result<FilePath, Refusal> {
    let path = FilePath::parse(name);
    let path = path.ok_or_else(|| Refusal::new(StatusCode::FORBIDDEN, "that path does not travel"))?;
    if allowed(path.top) {
        Ok(path)
    } else {
        Err(not_for(role))
    }
}

fn get_file(shared: &Shared, role: Role, name: &str, request: &Request<Incoming>) -> Answer {
    let path = named(role, name, |top| match role {
        Role::Client => matches!(top, Top::Root | Top::Journal | Top::Logs | Top::Results),
        Role::Agent => matches!(top, Top::Results | Top::Blobs),
    })?;
    let (file, len) = shared.tree.read(&path)?;
    let Some(asked) = request.headers().get(RANGE) else {
        return Ok(respond(StatusCode::OK, body::file(file, 0, len)));
    };
    let wanted = asked.to_str().ok().and_then(range);
    match wanted.filter(|(from, to)| from <= to && *from < len) {
        Some((from, to)) => {
            let to = to.min(len - 1);
            let body = body::file(file, from, to - from + 1);
            let mut response = respond(StatusCode::PARTIAL_CONTENT, body);
            put(&mut response, CONTENT_RANGE, &format!("bytes {from}-{to}/{len}"));
            Ok(response)
        }
        None => Err(Refusal {
            header: Some((CONTENT_RANGE, format!("bytes */{len}"))),
            ..Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, format!("{path} has {len} bytes"))
        }),
    }
}

/// N and M of `bytes=N-M`; to the end where M is left out.
fn range(text: &str) -> Option<(u64, u64)> {
    let (from, to) = text.strip_prefix("bytes=")?.split_once('-')?;
    let to = if to.is_empty() { u64::MAX } else { digits(to)? };
    Some((digits(from)?, to))
}

/// N and M of `bytes N-M/*`.
fn content_range(text: &str) -> Option<(u64, u64)> {
    let (from, to) = text.strip_prefix("bytes ")?.strip_suffix("/*")?.split_once('-')?;
    Some((digits(from)?, digits(to)?)).filter(|(from, to)| from <= to)
}

/// A number of digits alone; Rust's own reading takes a sign as well.
fn digits(text: &str) -> Option<u64> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

/// How long a log is, for the agent that goes on with it.
fn file_len(shared: &Shared, role: Role, name: &str) -> Answer {
    let path = named(role, name, |top| role == Role::Agent && top == Top::Logs)?;
    let Some(len) = shared.tree.len(&path)? else {
        return Err(Refusal::new(StatusCode::NOT_FOUND, format!("there is no {path}")));
    };
    let mut response = respond(StatusCode::OK, body::empty());
    put(&mut response, CONTENT_LENGTH, &len.to_string());
    Ok(response)
}

async fn put_file(shared: &Shared, role: Role, name: &str, request: Request<Incoming>) -> Answer {
    let path = named(role, name, |top| match role {
        Role::Client => top == Top::Mailbox,
        Role::Agent => matches!(top, Top::Results | Top::Blobs | Top::Logs),
    })?;
    if path.top.kind() == Kind::Append {
        return append(shared, &path, request).await;
    }
    let most = if path.top == Top::Mailbox {
        MAILBOX_MOST
    } else {
        VALUE_MOST
    };
    put_whole(shared, &path, request, most).await
}

/// The length that a request's body will have.
fn announced(request: &Request<Incoming>, most: u64) -> Result<u64, Refusal> {
    match request.body().size_hint().exact() {
        None => Err(Refusal::new(
            StatusCode::LENGTH_REQUIRED,
            "the length must be said before",
        )),
        Some(len) if len > most => {
            let text = format!("{len} bytes are too many, {most} are the limit");
            Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, text))
        }
        Some(len) => Ok(len),
    }
}

async fn put_whole(shared: &Shared, path: &FilePath, request: Request<Incoming>, most: u64) -> Answer {
    let announced = announced(&request, most)?;
    let part = shared.tree.part(path)?;
    let (part, received) = receive(part, request.into_body()).await?;
    if received != announced {
        let text = format!("{received} bytes came of {announced}");
        return Err(Refusal::new(StatusCode::BAD_REQUEST, text));
    }
    // A disk may be slow to sync, and others are to be served meanwhile.
    let finished = tokio::task::spawn_blocking(move || part.finish()).await;
    finished.map_err(io::Error::other)??;
    done()
}

async fn receive(mut part: Part, mut body: Incoming) -> Result<(Part, u64), Refusal> {
    let (mut received, mut trouble) = (0, None);
    while let Some(bytes) = body::next(&mut body).await? {
        if trouble.is_none() {
            // After a full disk the rest is read all the same: who is still sending does not hear an answer.
            trouble = part.write(&bytes).err();
        }
        received += bytes.len() as u64;
    }
    match trouble {
        None => Ok((part, received)),
        Some(error) => Err(error.into()),
    }
}

async fn append(shared: &Shared, path: &FilePath, request: Request<Incoming>) -> Answer {
    let announced = announced(&request, APPEND_MOST)?;
    let range = request
        .headers()
        .get(CONTENT_RANGE)
        .and_then(|value| value.to_str().ok());
    let (from, to) = range
        .and_then(content_range)
        .filter(|(from, to)| to - from + 1 == announced)
        .ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, "an append says `Content-Range: bytes N-M/*`"))?;
    let bytes = body::whole(&mut request.into_body(), APPEND_MOST)
        .await?
        .unwrap_or_default();
    if bytes.len() as u64 != announced {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "not all bytes came"));
    }
    // Nothing is awaited between looking at the length and writing, and there is one thread: two appends cannot meet.
    match shared.tree.append(path, from, &bytes)? {
        Ok(()) => done(),
        Err(len) => Err(Refusal {
            header: Some((HeaderName::from_static(LENGTH_HEADER), len.to_string())),
            ..Refusal::new(
                StatusCode::CONFLICT,
                format!("{path} has {len} bytes, so bytes {from} to {to} do not follow"),
            )
        }),
    }
}

fn rank(shared: &Shared, text: &str) -> Result<u32, Refusal> {
    let rank = digits(text).and_then(|rank| u32::try_from(rank).ok());
    rank.filter(|&rank| rank < shared.agents).ok_or_else(|| {
        let text = format!("the ranks of this run are below {}", shared.agents);
        Refusal::new(StatusCode::BAD_REQUEST, text)
    })
}

/// Tickets of other lives were removed at the start; what lies there is looked at all the same.
fn ticket(shared: &Shared, text: &str) -> Answer {
    let rank = rank(shared, text)?;
    let none = || Refusal::later(format!("there is no ticket for agent {rank} yet"));
    let bytes = match std::fs::read(shared.folder.ticket(rank)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(none()),
        bytes => bytes?,
    };
    let ticket: Ticket = serde_json::from_slice(&bytes).map_err(io::Error::other)?;
    if ticket.life != shared.life || ticket.agent != rank {
        return Err(none());
    }
    Ok(respond(StatusCode::OK, body::bytes(bytes)))
}

fn get_bundle(shared: &Shared) -> Answer {
    match shared.tree.read(&bundle_path(shared)) {
        Ok((file, len)) => Ok(respond(StatusCode::OK, body::file(file, 0, len))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Refusal::later("there is no bundle yet")),
        Err(error) => Err(error.into()),
    }
}

async fn put_bundle(shared: &Shared, request: Request<Incoming>) -> Answer {
    let response = put_whole(shared, &bundle_path(shared), request, BUNDLE_MOST).await?;
    shared.bundle_came();
    Ok(response)
}

/// The bundle's place in the run folder; no request can name it.
fn bundle_path(shared: &Shared) -> FilePath {
    let name = shared.folder.bundle();
    FilePath {
        top: Top::Root,
        name: name.file_name().unwrap_or_default().to_string_lossy().into_owned(),
    }
}

async fn agent_done(shared: &Shared, request: Request<Incoming>) -> Answer {
    let body = body::whole(&mut request.into_body(), 64).await?.unwrap_or_default();
    let rank = rank(shared, String::from_utf8_lossy(&body).trim())?;
    shared.agent_done(rank);
    done()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_of_digits_and_in_order() {
        assert_eq!(range("bytes=17-"), Some((17, u64::MAX)));
        assert_eq!(range("bytes=1-2"), Some((1, 2)));
        for text in [
            "bytes=-5",
            "bytes=+1-",
            "bytes=1-2,4-5",
            "bytes=",
            "17-",
            "bytes=99999999999999999999-",
        ] {
            assert_eq!(range(text), None, "{text}");
        }
        assert_eq!(content_range("bytes 3-9/*"), Some((3, 9)));
        for text in ["bytes 9-3/*", "bytes 3-9/10", "bytes */10", "bytes 3-/*", "3-9/*"] {
            assert_eq!(content_range(text), None, "{text}");
        }
    }
}
