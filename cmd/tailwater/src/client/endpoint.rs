//! Which server, and as whom.

use std::path::PathBuf;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::Args;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::tls::{Stream, Tls, TlsArgs};
use super::{CONNECT_TIMEOUT, ClientError};
use crate::error::Error;

/// What stands unescaped in the value of a query parameter.
const QUERY_VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
const DEFAULT_HTTP_PORT: u16 = 80;
const DEFAULT_HTTPS_PORT: u16 = 443;

/// The server to talk to. The environment variables are logcli's.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Server")]
pub(crate) struct ServerArgs {
    /// URL of a Loki-compatible server; a path in it is kept
    #[arg(long, alias = "url", value_name = "URL", env = "LOKI_ADDR", default_value = "http://127.0.0.1:3100")]
    pub(crate) addr: String,
    /// Tenant, sent as X-Scope-OrgID; to read several together: 'a|b'
    #[arg(long, value_name = "TENANT", env = "LOKI_ORG_ID")]
    pub(crate) org_id: Option<String>,
    /// User name for basic authentication
    #[arg(long, value_name = "USER", env = "LOKI_USERNAME")]
    pub(crate) username: Option<String>,
    /// Password for basic authentication
    #[arg(long, value_name = "PASSWORD", env = "LOKI_PASSWORD", hide_env_values = true)]
    pub(crate) password: Option<String>,
    /// Token for bearer authentication
    #[arg(long, value_name = "TOKEN", env = "LOKI_BEARER_TOKEN", hide_env_values = true)]
    pub(crate) bearer_token: Option<String>,
    /// File that holds the token for bearer authentication
    #[arg(long, value_name = "FILE", env = "LOKI_BEARER_TOKEN_FILE")]
    pub(crate) bearer_token_file: Option<PathBuf>,
    /// A further request header, `Name: value` (repeatable)
    #[arg(long = "header", value_name = "HEADER")]
    pub(crate) headers: Vec<String>,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
}

impl ServerArgs {
    /// A server on this machine without authentication.
    pub(crate) fn local(address: std::net::SocketAddr) -> Self {
        Self {
            addr: format!("http://{address}"),
            org_id: None,
            username: None,
            password: None,
            bearer_token: None,
            bearer_token_file: None,
            headers: Vec::new(),
            tls: TlsArgs::default(),
        }
    }

    /// The server and the headers of every request.
    ///
    /// # Errors
    /// [`Error::Usage`] for a URL or a combination of credentials that cannot work.
    pub(crate) fn endpoint(&self) -> Result<Endpoint, Error> {
        let mut headers = HeaderMap::new();
        let value = |what: &str, text: &str| {
            HeaderValue::from_str(text)
                .map_err(|_| Error::Usage(format!("{what} holds a character that no header can")))
        };
        if let Some(tenant) = self.org_id.as_deref().filter(|t| !t.is_empty()) {
            headers.insert("x-scope-orgid", value("--org-id", tenant)?);
        }
        if let Some(mut secret) = self.authorization()? {
            secret.set_sensitive(true);
            headers.insert(AUTHORIZATION, secret);
        }
        for header in &self.headers {
            let (name, text) = header
                .split_once(':')
                .ok_or_else(|| Error::Usage(format!("--header {header:?} has no colon; write 'Name: value'")))?;
            let name: HeaderName = name
                .trim()
                .parse()
                .map_err(|_| Error::Usage(format!("--header {header:?}: {:?} is no header name", name.trim())))?;
            headers.append(name, value("--header", text.trim())?);
        }
        Endpoint::parse(&self.addr, headers, &self.tls)
    }

    fn authorization(&self) -> Result<Option<HeaderValue>, Error> {
        let given = |s: &Option<String>| s.clone().filter(|s| !s.is_empty());
        let from_file = match self.bearer_token_file.as_deref().filter(|p| !p.as_os_str().is_empty()) {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|e| Error::Usage(format!("--bearer-token-file {}: {e}", path.display())))?;
                Some(text.trim().to_owned())
            }
            None => None,
        };
        let text = match (given(&self.username), given(&self.password), given(&self.bearer_token), from_file) {
            (None, None, None, None) => return Ok(None),
            (Some(user), Some(password), None, None) => {
                format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
            }
            (None, None, Some(token), None) | (None, None, None, Some(token)) => format!("Bearer {token}"),
            (Some(_), None, None, None) => {
                return Err(Error::Usage("--username (LOKI_USERNAME) needs --password (LOKI_PASSWORD) too".to_owned()));
            }
            (None, Some(_), None, None) => {
                return Err(Error::Usage("--password (LOKI_PASSWORD) needs --username (LOKI_USERNAME) too".to_owned()));
            }
            _ => {
                return Err(Error::Usage(
                    "give one of --username/--password, --bearer-token and --bearer-token-file, not several \
                     (LOKI_USERNAME, LOKI_PASSWORD, LOKI_BEARER_TOKEN and LOKI_BEARER_TOKEN_FILE count too)"
                        .to_owned(),
                ));
            }
        };
        HeaderValue::from_str(&text)
            .map(Some)
            .map_err(|_| Error::Usage("the bearer token holds a character that no header can".to_owned()))
    }
}

/// A server, and what every request to it carries.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    host: String,
    port: u16,
    prefix: String,
    headers: HeaderMap,
    tls: Option<Tls>,
    /// What other nodes are trusted by.
    trust: TlsArgs,
}

impl Endpoint {
    /// Another node of the same cluster: the same headers go there. None if that is no URL that can be used.
    pub(crate) fn elsewhere(&self, addr: &str) -> Option<Self> {
        Self::parse(addr, self.headers.clone(), &self.trust).ok()
    }

    fn parse(addr: &str, headers: HeaderMap, tls: &TlsArgs) -> Result<Self, Error> {
        let usage = |problem: &str| Error::Usage(format!("--addr {addr:?}: {problem}"));
        let uri: hyper::Uri = addr.parse().map_err(|_| usage("not a URL; write for example http://127.0.0.1:3100"))?;
        let is_safe = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(other) => return Err(usage(&format!("{other:?} is not supported; write http://host:port"))),
            None => return Err(usage(&format!("the scheme is missing; write http://{addr}"))),
        };
        let authority = uri.authority().ok_or_else(|| usage("the host is missing"))?;
        if authority.as_str().contains('@') {
            return Err(usage("credentials do not go into the URL; use --username and --password"));
        }
        if uri.query().is_some() {
            return Err(usage("a server's URL has no query part"));
        }
        let port = if is_safe { DEFAULT_HTTPS_PORT } else { DEFAULT_HTTP_PORT };
        Ok(Self {
            tls: is_safe.then(|| tls.to(authority.host())).transpose()?,
            host: authority.host().to_owned(),
            port: authority.port_u16().unwrap_or(port),
            prefix: uri.path().trim_end_matches('/').to_owned(),
            headers,
            trust: tls.clone(),
        })
    }

    /// `host:port`, for messages and the `Host` header.
    pub(crate) fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The headers of every request.
    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Path and query of a request: the prefix of the URL, `path` and the escaped parameters.
    pub(crate) fn target(&self, path: &str, parameters: &[(&str, &str)]) -> String {
        let mut target = format!("{}{path}", self.prefix);
        for (i, (name, value)) in parameters.iter().enumerate() {
            target.push(if i == 0 { '?' } else { '&' });
            target.push_str(name);
            target.push('=');
            target.extend(utf8_percent_encode(value, QUERY_VALUE));
        }
        target
    }

    /// A new connection, small writes sent at once.
    ///
    /// # Errors
    /// [`ClientError::Connect`].
    pub(crate) async fn connect(&self) -> Result<Stream, ClientError> {
        let failed = |reason: String| ClientError::Connect { address: self.address(), reason };
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let connecting = async {
            let tcp = TcpStream::connect((host, self.port)).await?;
            tcp.set_nodelay(true)?;
            match &self.tls {
                None => Ok(Stream::Plain(tcp)),
                Some(tls) => tls.over(tcp).await,
            }
        };
        timeout(CONNECT_TIMEOUT, connecting)
            .await
            .map_err(|_| failed(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs())))?
            .map_err(|e| failed(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(addr: &str) -> ServerArgs {
        ServerArgs { addr: addr.to_owned(), ..ServerArgs::local("127.0.0.1:1".parse().unwrap()) }
    }

    #[test]
    fn a_path_in_the_url_is_kept_and_values_are_escaped() {
        let endpoint = args("http://[::1]:80/loki-proxy/").endpoint().unwrap();
        assert_eq!(endpoint.address(), "[::1]:80");
        assert_eq!(
            endpoint.target("/loki/api/v1/tail", &[("query", "{a=\"b c\"} |= `&`"), ("limit", "5")]),
            "/loki-proxy/loki/api/v1/tail?query=%7Ba%3D%22b%20c%22%7D%20%7C%3D%20%60%26%60&limit=5"
        );
    }

    #[test]
    fn urls_that_cannot_work_say_what_to_write() {
        for (addr, says) in [
            ("localhost:3100", "http://localhost:3100"),
            ("https://[x", "not a URL"),
            ("http://u:p@x", "--username"),
            ("http://x?y=1", "no query part"),
            ("ftp://x", "\"ftp\" is not supported"),
            ("not a url", "not a URL"),
        ] {
            let error = args(addr).endpoint().unwrap_err();
            assert!(error.to_string().contains(says), "{addr}: {error}");
            assert_eq!(error.exit_code(), std::process::ExitCode::from(2));
        }
    }

    #[test]
    fn credentials_become_headers_and_do_not_mix() {
        let mut a = args("http://x");
        a.username = Some("user".into());
        assert!(a.endpoint().unwrap_err().to_string().contains("--password"));
        a.password = Some("pass".into());
        a.org_id = Some("team-a".into());
        a.headers = vec!["X-Extra: 1".into()];
        let headers = a.endpoint().unwrap().headers().clone();
        assert_eq!(headers["authorization"], "Basic dXNlcjpwYXNz");
        assert_eq!(headers["x-scope-orgid"], "team-a");
        assert_eq!(headers["x-extra"], "1");
        a.bearer_token = Some("t".into());
        assert!(a.endpoint().unwrap_err().to_string().contains("not several"));
        (a.username, a.password) = (None, None);
        assert_eq!(a.endpoint().unwrap().headers()["authorization"], "Bearer t");
    }
}
