//! A pull: the head's folder as it is now into the mirror. Owns the order in which files come, which is what readers of the mirror
//! rely on. What the head names is checked as if it were a stranger.

use crate::body;
use crate::client::{Pulled, Wanted};
use crate::link::{self, Link, Trouble};
use crate::paths::{FilePath, Listed, ROOT_FILES, Top};
use crate::tree::Tree;
use crate::{DOCUMENT_MOST, FOLDER_HEADER, VERSION};
use hyper::body::Incoming;
use hyper::header::{HeaderValue, RANGE};
use hyper::{HeaderMap, Method, Response, StatusCode};
use std::io;
use std::os::unix::fs::FileExt;

/// Documents that are replaced as a whole, and what is in them now.
type Documents = Vec<(FilePath, Vec<u8>)>;

/// Documents are read first and written last, so that none of them tells of what the rest of the mirror does not have; results
/// come before the journal, whose records name them, and the journal comes as long as it was when results were listed.
pub(crate) async fn pull(link: &mut Link, tree: &Tree, wanted: Wanted) -> Result<Pulled, Trouble> {
    let documents = documents(link).await?;
    let (name, listed) = list(link).await?;
    // A folder that was begun anew has files of the same names, and none of what the mirror has of the one before.
    tree.mirrors(&name).map_err(Trouble::Here)?;
    let mut pulled = Pulled {
        complete: true,
        ..Pulled::default()
    };
    for top in [Top::Logs, Top::Results, Top::Journal] {
        let here = tree.lens(top).map_err(Trouble::Here)?;
        for (path, size) in listed.iter().filter(|(path, _)| path.top == top) {
            match here.get(&path.to_string()) {
                Some(len) if len == size => {}
                Some(len) if top != Top::Results && len < size => {
                    grow(link, tree, path, (*len, *size), &mut pulled).await?
                }
                None if top != Top::Results => grow(link, tree, path, (0, *size), &mut pulled).await?,
                // A file that grows and became shorter is another file.
                _ if top != Top::Results || wanted.results => anew(link, tree, path, *size, &mut pulled).await?,
                _ => pulled.complete = false,
            }
        }
    }
    for (path, text) in documents {
        replace(tree, &path, &text, &mut pulled).map_err(Trouble::Here)?;
    }
    Ok(pulled)
}

async fn get(link: &mut Link, path: &str, range: Option<(u64, u64)>) -> Result<Option<Response<Incoming>>, Trouble> {
    let mut headers = HeaderMap::new();
    if let Some((from, to)) = range {
        let range = HeaderValue::try_from(format!("bytes={from}-{to}"));
        headers.insert(RANGE, range.map_err(|e| Trouble::Here(io::Error::other(e)))?);
    }
    let partial = range.is_some();
    match link
        .ask(Method::GET, &format!("{VERSION}{path}"), headers, body::empty())
        .await
    {
        Ok(response) if partial == (response.status() == StatusCode::PARTIAL_CONTENT) => Ok(Some(response)),
        Ok(response) => {
            let text = format!(
                "the head's folder service answered {} to a request for {path}",
                response.status()
            );
            Err(Trouble::Here(io::Error::other(text)))
        }
        // It went away, or became shorter, since it was listed.
        Err(Trouble::Refused { status, .. })
            if status == StatusCode::NOT_FOUND || status == StatusCode::RANGE_NOT_SATISFIABLE =>
        {
            Ok(None)
        }
        Err(trouble) => Err(trouble),
    }
}

async fn documents(link: &mut Link) -> Result<Documents, Trouble> {
    let mut found = Vec::new();
    for name in ROOT_FILES {
        if let Some(response) = get(link, &format!("files/{name}"), None).await? {
            let text = link::read(response, DOCUMENT_MOST).await?;
            found.extend(FilePath::parse(name).map(|path| (path, text)));
        }
    }
    Ok(found)
}

/// The folder's name, and what the head has of journal, logs and results; other paths are none of a mirror's.
async fn list(link: &mut Link) -> Result<(String, Vec<(FilePath, u64)>), Trouble> {
    let response = get(link, "files", None).await?;
    let none = || Trouble::Here(io::Error::other("the head's folder service has no list of its files"));
    let response = response.ok_or_else(none)?;
    let name = response
        .headers()
        .get(FOLDER_HEADER)
        .and_then(|name| name.to_str().ok());
    let name = name.ok_or_else(none)?.to_owned();
    let text = link::read(response, DOCUMENT_MOST).await?;
    let listed: Vec<Listed> = serde_json::from_slice(&text).map_err(|e| {
        Trouble::Here(io::Error::other(format!(
            "the head's list of its files is not valid: {e}"
        )))
    })?;
    let mut files = Vec::new();
    for file in listed {
        match FilePath::parse(&file.path) {
            Some(path) if matches!(path.top, Top::Journal | Top::Logs | Top::Results) => files.push((path, file.size)),
            Some(_) => {}
            None => tracing::warn!(path = file.path, "the head lists a file that cannot be mirrored"),
        }
    }
    Ok((name, files))
}

/// A file that grows: what is missing at its end, at its place.
async fn grow(
    link: &mut Link,
    tree: &Tree,
    path: &FilePath,
    (from, size): (u64, u64),
    pulled: &mut Pulled,
) -> Result<(), Trouble> {
    let file = tree.write_at(path).map_err(Trouble::Here)?;
    if size > 0 {
        let mut at = from;
        let whole = copy(link, path, (from, size), |bytes| {
            file.write_all_at(bytes, at)?;
            at += bytes.len() as u64;
            pulled.bytes += bytes.len() as u64;
            Ok(())
        });
        pulled.complete &= whole.await?;
    }
    pulled.files += 1;
    Ok(())
}

/// A file as a whole, or not at all.
async fn anew(link: &mut Link, tree: &Tree, path: &FilePath, size: u64, pulled: &mut Pulled) -> Result<(), Trouble> {
    let mut part = tree.part(path).map_err(Trouble::Here)?;
    let whole = size == 0 || copy(link, path, (0, size), |bytes| part.write(bytes)).await?;
    pulled.complete &= whole;
    if whole {
        part.finish().map_err(Trouble::Here)?;
        pulled.files += 1;
        pulled.bytes += size;
    }
    Ok(())
}

/// Hands the bytes from `from` up to `end` to `write`; `false` where the head does not have all of them any more.
async fn copy(
    link: &mut Link,
    path: &FilePath,
    (from, end): (u64, u64),
    mut write: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<bool, Trouble> {
    let Some(response) = get(link, &format!("files/{path}"), Some((from, end - 1))).await? else {
        return Ok(false);
    };
    let (mut body, mut left) = (response.into_body(), end - from);
    while let Some(bytes) = body::next(&mut body).await.map_err(Trouble::Broken)? {
        let len = bytes.len() as u64;
        if len > left {
            let text = format!("the head sent more of {path} than it was asked for");
            return Err(Trouble::Here(io::Error::other(text)));
        }
        write(&bytes).map_err(Trouble::Here)?;
        left -= len;
    }
    Ok(left == 0)
}

fn replace(tree: &Tree, path: &FilePath, text: &[u8], pulled: &mut Pulled) -> io::Result<()> {
    let same = || -> io::Result<bool> {
        let (file, len) = tree.read(path)?;
        if len != text.len() as u64 {
            return Ok(false);
        }
        let mut now = vec![0; text.len()];
        file.read_exact_at(&mut now, 0)?;
        Ok(now == text)
    };
    if !same().unwrap_or(false) {
        tree.write_whole(path, text)?; // Where it cannot be read, it is written anew.
        pulled.files += 1;
        pulled.bytes += text.len() as u64;
    }
    Ok(())
}
