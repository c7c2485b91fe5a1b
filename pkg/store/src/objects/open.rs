//! Opening a storage url: which backend it is, its credentials, and its way through TLS.
//!
//! Credentials and endpoints come from the environment that the providers' own tools use (`AWS_*`, `GOOGLE_*`, `AZURE_*`); what the
//! configuration names goes before it. The crate below makes one attempt per request; repeating is ours, so that all backends have the same
//! budgets.

use std::fmt;
use std::path::Path as FilePath;
use std::sync::{Arc, Once};
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::memory::InMemory;
use object_store::multipart::MultipartStore;
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig};
use tokio::sync::Semaphore;

use super::folder::Folder;
use super::metrics::Metrics;
use super::place::{Place, Scheme};
use super::silence::Silence;
use super::{Inner, Objects};
use crate::Error;

/// Most operations under way at once, unless told otherwise.
const CONCURRENCY: usize = 64;

/// Part of what the TLS library says when it finds no root certificates.
const NO_ROOTS: &str = "No CA certificates";

/// How to reach the storage. The default takes everything from the environment.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the service is, such as `http://127.0.0.1:9000`; unset, it is the provider's own.
    pub endpoint: Option<String>,
    /// S3's region.
    pub region: Option<String>,
    /// S3's access key.
    pub access_key_id: Option<String>,
    /// What belongs to it.
    pub secret_access_key: Option<Secret>,
    /// Whether an endpoint without TLS is meant.
    pub allow_http: Option<bool>,
    /// Whether the bucket is in the path of S3's urls (the default) rather than in the name of the host.
    pub path_style: Option<bool>,
    /// Time limits.
    pub timing: Timing,
    /// Most operations under way at once; at least 1.
    pub concurrency: usize,
}

/// How long operations may take.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// One attempt.
    pub attempt: Duration,
    /// Making a connection.
    pub connect: Duration,
    /// An operation that reads, all its attempts together: a query waits for it.
    pub reads: Duration,
    /// An operation that writes, or one part of a large object.
    pub writes: Duration,
}

/// A text that is not shown.
#[derive(Clone)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: None,
            access_key_id: None,
            secret_access_key: None,
            allow_http: None,
            path_style: None,
            timing: Timing::default(),
            concurrency: CONCURRENCY,
        }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            attempt: Duration::from_secs(30),
            connect: Duration::from_secs(5),
            reads: Duration::from_secs(10),
            writes: Duration::from_secs(30),
        }
    }
}

/// A backend, opened.
struct Opened {
    store: Arc<dyn ObjectStore>,
    /// What large objects are written through, in parts.
    parts: Option<Arc<dyn MultipartStore>>,
    folder: Option<Folder>,
}

/// Opens what a url names.
pub(super) fn open(url: &str, options: &Options, write: bool) -> Result<Objects, Error> {
    let place = Place::parse(url)?;
    let opened = match place.scheme {
        Scheme::Memory => {
            let store = Arc::new(InMemory::new());
            Opened { parts: Some(Arc::clone(&store) as _), store, folder: None }
        }
        Scheme::Folder => {
            let folder = Folder::open(FilePath::new(&place.root), write)?;
            Opened { store: folder.store(), parts: None, folder: Some(folder) }
        }
        Scheme::S3 | Scheme::Google | Scheme::Azure => open_remote(&place, options)?,
    };
    let concurrency = options.concurrency.clamp(1, Semaphore::MAX_PERMITS);
    Ok(Objects(Arc::new(Inner {
        store: opened.store,
        parts: opened.parts,
        folder: opened.folder,
        place,
        timing: options.timing,
        concurrency,
        slots: Semaphore::new(concurrency),
        silence: Silence::new(),
        metrics: Metrics::new(),
        writable: write,
    })))
}

fn open_remote(place: &Place, options: &Options) -> Result<Opened, Error> {
    install_tls();
    let built = match place.scheme {
        Scheme::Google => google(place, options),
        Scheme::Azure => azure(place, options),
        _ => s3(place, options),
    };
    built.map_err(|error| match error {
        Error::Config { reason } => Error::Config { reason: format!("storage {}: {reason}", place.url_of("")) },
        other => other,
    })
}

/// Chooses the implementation of TLS, once per process; a choice that was made before stays.
fn install_tls() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _already_chosen = rustls::crypto::ring::default_provider().install_default();
    });
}

fn config(error: &object_store::Error) -> Error {
    let mut reason = error.to_string();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(error) = cause {
        let text = error.to_string();
        if !reason.contains(&text) {
            reason = format!("{reason}: {text}");
        }
        cause = error.source();
    }
    if reason.contains(NO_ROOTS) {
        reason += "; install the package ca-certificates, or name a file of root certificates in SSL_CERT_FILE";
    }
    Error::Config { reason }
}

/// Makes a client. A machine without root certificates can speak to an endpoint without TLS; but a client is not made without them, unless
/// it is told to trust none.
fn build<T>(endpoint: Option<&str>, build: impl Fn(bool) -> object_store::Result<T>) -> Result<T, Error> {
    let plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
    match build(false).map_err(|error| config(&error)) {
        Err(error) if plain && error.to_string().contains(NO_ROOTS) => build(true).map_err(|error| config(&error)),
        built => built,
    }
}

/// One attempt per request: repeating is done above.
fn no_retries() -> RetryConfig {
    RetryConfig { backoff: BackoffConfig::default(), max_retries: 0, retry_timeout: Duration::ZERO }
}

/// The settings of the client that all backends share.
fn client_settings(options: &Options) -> Vec<(ClientConfigKey, String)> {
    let millis = |time: Duration| format!("{}ms", time.as_millis().max(1));
    let mut settings = vec![
        (ClientConfigKey::Timeout, millis(options.timing.attempt)),
        (ClientConfigKey::ConnectTimeout, millis(options.timing.connect)),
        (ClientConfigKey::UserAgent, concat!("tailwater/", env!("CARGO_PKG_VERSION")).to_owned()),
    ];
    if let Some(allow) = options.allow_http {
        settings.push((ClientConfigKey::AllowHttp, allow.to_string()));
    }
    settings
}

/// Refuses an endpoint that the client would refuse at every request.
fn check_endpoint(endpoint: Option<&str>, allow_http: Option<&str>) -> Result<(), Error> {
    let Some(endpoint) = endpoint else { return Ok(()) };
    let reason = if endpoint.starts_with("http://") {
        if allow_http.is_some_and(|allowed| matches!(allowed, "true" | "1")) {
            return Ok(());
        }
        "is without TLS; if that is meant, allow_http has to say so (or AWS_ALLOW_HTTP, GOOGLE_ALLOW_HTTP, AZURE_ALLOW_HTTP)"
    } else if endpoint.starts_with("https://") {
        return Ok(());
    } else {
        "has to begin with https:// or http://"
    };
    Err(Error::Config { reason: format!("the endpoint {endpoint} {reason}") })
}

fn s3(place: &Place, options: &Options) -> Result<Opened, Error> {
    let mut builder = AmazonS3Builder::from_env()
        .with_url(&place.root)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_disable_bulk_delete(true)
        .with_retry(no_retries());
    for (key, value) in client_settings(options) {
        builder = builder.with_config(AmazonS3ConfigKey::Client(key), value);
    }
    let settings = [
        (AmazonS3ConfigKey::S3Endpoint, options.endpoint.clone()),
        (AmazonS3ConfigKey::Region, options.region.clone()),
        (AmazonS3ConfigKey::AccessKeyId, options.access_key_id.clone()),
        (AmazonS3ConfigKey::SecretAccessKey, options.secret_access_key.as_ref().map(|secret| secret.0.clone())),
        (AmazonS3ConfigKey::VirtualHostedStyleRequest, options.path_style.map(|path| (!path).to_string())),
    ];
    for (key, value) in settings {
        if let Some(value) = value {
            builder = builder.with_config(key, value);
        }
    }
    let setting = |key| builder.get_config_value(&key);
    let endpoint = setting(AmazonS3ConfigKey::S3Endpoint).or_else(|| setting(AmazonS3ConfigKey::Endpoint));
    let allow_http = setting(AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp));
    check_endpoint(endpoint.as_deref(), allow_http.as_deref())?;
    let store = Arc::new(build(endpoint.as_deref(), |without_roots| {
        let roots = AmazonS3ConfigKey::Client(ClientConfigKey::NoSystemCertificates);
        let builder = builder.clone();
        if without_roots { builder.with_config(roots, "true").build() } else { builder.build() }
    })?);
    Ok(Opened { parts: Some(Arc::clone(&store) as _), store, folder: None })
}

fn google(place: &Place, options: &Options) -> Result<Opened, Error> {
    let mut builder = GoogleCloudStorageBuilder::from_env().with_url(&place.root).with_retry(no_retries());
    for (key, value) in client_settings(options) {
        builder = builder.with_config(GoogleConfigKey::Client(key), value);
    }
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_base_url(endpoint);
    }
    let endpoint = builder.get_config_value(&GoogleConfigKey::BaseUrl);
    let allow_http = builder.get_config_value(&GoogleConfigKey::Client(ClientConfigKey::AllowHttp));
    check_endpoint(endpoint.as_deref(), allow_http.as_deref())?;
    let store = Arc::new(build(endpoint.as_deref(), |without_roots| {
        let roots = GoogleConfigKey::Client(ClientConfigKey::NoSystemCertificates);
        let builder = builder.clone();
        if without_roots { builder.with_config(roots, "true").build() } else { builder.build() }
    })?);
    Ok(Opened { parts: Some(Arc::clone(&store) as _), store, folder: None })
}

fn azure(place: &Place, options: &Options) -> Result<Opened, Error> {
    let mut builder = MicrosoftAzureBuilder::from_env().with_url(&place.root).with_retry(no_retries());
    for (key, value) in client_settings(options) {
        builder = builder.with_config(AzureConfigKey::Client(key), value);
    }
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    let endpoint = builder.get_config_value(&AzureConfigKey::Endpoint);
    let allow_http = builder.get_config_value(&AzureConfigKey::Client(ClientConfigKey::AllowHttp));
    check_endpoint(endpoint.as_deref(), allow_http.as_deref())?;
    let store = Arc::new(build(endpoint.as_deref(), |without_roots| {
        let roots = AzureConfigKey::Client(ClientConfigKey::NoSystemCertificates);
        let builder = builder.clone();
        if without_roots { builder.with_config(roots, "true").build() } else { builder.build() }
    })?);
    Ok(Opened { parts: Some(Arc::clone(&store) as _), store, folder: None })
}
