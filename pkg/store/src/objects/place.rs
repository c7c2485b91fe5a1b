//! Where objects are: what a storage url names, and how paths below it and the texts about them are made.

use object_store::path::Path;

use crate::Error;

/// What kind of storage it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Memory,
    Folder,
    S3,
    Google,
    Azure,
}

/// A storage url, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) scheme: Scheme,
    /// The bucket or container with its scheme, such as `s3://logs`; the folder, or `memory:`.
    pub(super) root: String,
    /// What all objects lie below, in a bucket; without slashes at its ends.
    pub(super) prefix: String,
}

impl Place {
    /// Takes a url apart. Without a scheme it is a folder.
    ///
    /// # Errors
    /// [`Error::Config`], which says what a url looks like.
    pub(super) fn parse(url: &str) -> Result<Self, Error> {
        let config = |reason: String| Error::Config { reason };
        if url == "memory:" {
            return Ok(Self { scheme: Scheme::Memory, root: url.to_owned(), prefix: String::new() });
        }
        let Some((scheme, rest)) = url.split_once("://") else {
            if url.is_empty() {
                return Err(config("the storage url is empty; a folder or s3://bucket/prefix is wanted".to_owned()));
            }
            if let Some(scheme) = ["s3:", "gs:", "az:", "file:"].into_iter().find(|scheme| url.starts_with(scheme)) {
                return Err(config(format!("storage url {url}: {scheme}// is wanted")));
            }
            return Ok(Self { scheme: Scheme::Folder, root: url.to_owned(), prefix: String::new() });
        };
        let scheme = match scheme {
            "file" => {
                let path = reqwest::Url::parse(url).ok().and_then(|url| url.to_file_path().ok());
                let path = path.and_then(|path| path.into_os_string().into_string().ok());
                let path = path.ok_or_else(|| config(format!("storage url {url}: file:///folder is wanted")))?;
                return Ok(Self { scheme: Scheme::Folder, root: path, prefix: String::new() });
            }
            "s3" => Scheme::S3,
            "gs" => Scheme::Google,
            "az" => Scheme::Azure,
            _ => {
                let known = "a folder, file:///folder, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix";
                return Err(config(format!("storage url {url}: {known} is wanted")));
            }
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_matches('/');
        let at_allowed = scheme == Scheme::Azure;
        if bucket.is_empty() || bucket.contains(['?', '#', ' ', ':']) || (bucket.contains('@') && !at_allowed) {
            return Err(config(format!("storage url {url}: '{bucket}' is no name of a bucket")));
        }
        if prefix.contains(['?', '#']) || Path::parse(prefix).is_err() {
            return Err(config(format!("storage url {url}: '{prefix}' is no prefix of objects")));
        }
        let word = url.split("://").next().unwrap_or_default();
        Ok(Self { scheme, root: format!("{word}://{bucket}"), prefix: prefix.to_owned() })
    }

    /// An object or folder as the crate below names it. Empty: all.
    ///
    /// # Errors
    /// [`Error::Config`] for what names no object, such as `a/../b`.
    pub(super) fn path(&self, path: &str) -> Result<Path, Error> {
        let full = match (self.prefix.as_str(), path) {
            ("", path) => path.to_owned(),
            (prefix, "") => prefix.to_owned(),
            (prefix, path) => format!("{prefix}/{path}"),
        };
        Path::parse(&full).map_err(|source| Error::Config { reason: format!("{}: {source}", self.url_of(path)) })
    }

    /// The path below this place of what the crate below has named.
    pub(super) fn below<'a>(&self, full: &'a Path) -> &'a str {
        let full = full.as_ref();
        if self.prefix.is_empty() {
            return full;
        }
        full.strip_prefix(&self.prefix).map_or(full, |rest| rest.trim_start_matches('/'))
    }

    /// The url of an object, for texts.
    pub(super) fn url_of(&self, path: &str) -> String {
        let parts = [self.root.trim_end_matches('/'), &self.prefix, path];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let place = |url| Place::parse(url).unwrap();
        assert_eq!(place("memory:").scheme, Scheme::Memory);
        assert_eq!(place("data/store").scheme, Scheme::Folder);
        assert_eq!(place("file:///var/my%20logs").root, "/var/my logs");
        let s3 = place("s3://logs/team/a/");
        assert_eq!((s3.scheme, s3.root.as_str(), s3.prefix.as_str()), (Scheme::S3, "s3://logs", "team/a"));
        assert_eq!(s3.url_of("t/x.blk"), "s3://logs/team/a/t/x.blk");
        assert_eq!(s3.path("t/x.blk").unwrap().as_ref(), "team/a/t/x.blk");
        assert_eq!(s3.below(&Path::parse("team/a/t/x.blk").unwrap()), "t/x.blk");
        assert_eq!(place("gs://logs").prefix, "");
        assert_eq!(place("az://logs@account.blob.core.windows.net/p").prefix, "p");
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for url in [
            "",
            "ftp://x/y",
            "s3://",
            "s3:bucket",
            "s3://key:secret@bucket/x",
            "s3://b/a?x=1",
            "s3://b/a/../c",
            "file://here",
        ] {
            let error = Place::parse(url).unwrap_err();
            assert!(matches!(error, Error::Config { .. }), "{url}: {error}");
            assert!(!error.to_string().is_empty());
        }
        let place = Place::parse("memory:").unwrap();
        for path in ["a/../b", "a//b", "."] {
            assert!(place.path(path).is_err(), "{path}");
        }
    }
}
