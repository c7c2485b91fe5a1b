//! TLS: certificates from PEM files, read again when they change, for the listeners and for calls to other members.
//!
//! Invariants:
//! * Files are looked at every [`LOOK_EVERY`] and when the operator asks. A connection keeps what it began with.
//! * What cannot be used is told and changes nothing: what was in force stays in force.

#[cfg(test)]
mod served_tests;
#[cfg(test)]
pub(crate) mod testing;

use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::{Mutex, RwLock};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::config::{ClientAuth, ClientTlsConfig, ServerTlsConfig};

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What a listener agrees to speak.
pub(crate) const HTTP: &[u8] = b"http/1.1";

/// See [`HTTP`].
pub(crate) const GRPC: &[u8] = b"h2";

/// Why certificates cannot be used. It names the file.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {what}")]
pub(crate) struct Unusable {
    file: String,
    what: String,
}

impl Unusable {
    pub(crate) fn new(file: &Path, what: impl fmt::Display) -> Self {
        Self { file: file.display().to_string(), what: what.to_string() }
    }
}

/// What a listener needs.
///
/// # Errors
/// A file cannot be read or is not what it should be, or the key is that of another certificate.
pub(crate) fn server(files: &ServerTlsConfig, protocol: &[u8]) -> Result<Arc<ServerConfig>, Unusable> {
    let (chain, key) = identity(&files.cert_file, &files.key_file)?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| Unusable::new(&files.cert_file, error))?;
    let builder = match files.client_auth_type {
        ClientAuth::NoClientCert => builder.with_no_client_auth(),
        asked => {
            let roots = Arc::new(roots(&files.client_ca_file)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
            let verifier =
                if asked == ClientAuth::VerifyClientCertIfGiven { verifier.allow_unauthenticated() } else { verifier };
            let verifier = verifier.build().map_err(|error| Unusable::new(&files.client_ca_file, error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let made = builder.with_single_cert(chain, key).map_err(|error| Unusable::new(&files.cert_file, error));
    let mut config = made?;
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Arc::new(config))
}

/// What calls to other members need.
///
/// # Errors
/// As [`server`].
pub(crate) fn client(files: &ClientTlsConfig, protocol: &[u8]) -> Result<Arc<ClientConfig>, Unusable> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| Unusable::new(&files.ca_file, error))?
        .with_root_certificates(roots(&files.ca_file)?);
    let mut config = if files.cert_file.as_os_str().is_empty() {
        builder.with_no_client_auth()
    } else {
        let (chain, key) = identity(&files.cert_file, &files.key_file)?;
        builder.with_client_auth_cert(chain, key).map_err(|error| Unusable::new(&files.cert_file, error))?
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Arc::new(config))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn identity(cert: &Path, key: &Path) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Unusable> {
    let chain = certificates(cert)?;
    let key = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| Unusable::new(key, error))?;
    Ok((chain, key))
}

fn roots(file: &Path) -> Result<RootCertStore, Unusable> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| Unusable::new(file, error))?;
    }
    Ok(roots)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let text = read(file)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let all = all.map_err(|error| Unusable::new(file, error))?;
    if all.is_empty() { Err(Unusable::new(file, "there is no certificate in it")) } else { Ok(all) }
}

fn read(file: &Path) -> Result<Vec<u8>, Unusable> {
    std::fs::read(file).map_err(|error| Unusable::new(file, error))
}

/// What was made of files, and is made again when they change.
pub(crate) struct Renewed<T> {
    what: &'static str,
    files: Vec<PathBuf>,
    make: Box<dyn Fn() -> Result<Arc<T>, Unusable> + Send + Sync>,
    now: RwLock<Arc<T>>,
    /// What the files looked like when they were read last.
    looked: Mutex<Vec<Option<Look>>>,
}

/// What tells a file from the one that was in its place before.
type Look = (SystemTime, u64, u64);

impl<T: Send + Sync + 'static> Renewed<T> {
    /// Reads the files. `what` is what they are for, in the log.
    ///
    /// # Errors
    /// They cannot be used.
    fn new(
        what: &'static str,
        files: Vec<PathBuf>,
        make: impl Fn() -> Result<Arc<T>, Unusable> + Send + Sync + 'static,
    ) -> Result<Arc<Self>, Unusable> {
        let looked = looks(&files);
        let now = RwLock::new(make()?);
        Ok(Arc::new(Self { what, files, make: Box::new(make), now, looked: Mutex::new(looked) }))
    }

    /// What is in force.
    pub(crate) fn now(&self) -> Arc<T> {
        Arc::clone(&self.now.read())
    }
}

/// Something that can be renewed.
trait Renew: Send + Sync {
    /// Reads the files again, if they have changed or `anyway`. Blocks.
    fn renew(&self, anyway: bool);
}

impl<T: Send + Sync + 'static> Renew for Renewed<T> {
    fn renew(&self, anyway: bool) {
        let mut looked = self.looked.lock();
        let looks = looks(&self.files);
        if *looked == looks && !anyway {
            return;
        }
        *looked = looks;
        match (self.make)() {
            Ok(made) => {
                *self.now.write() = made;
                tracing::info!(of = self.what, "certificates were read again");
            }
            Err(error) => {
                tracing::error!(of = self.what, %error, "new certificates cannot be used; the old ones stay in force");
            }
        }
    }
}

fn looks(files: &[PathBuf]) -> Vec<Option<Look>> {
    let look = |meta: Metadata| Some((meta.modified().ok()?, meta.len(), meta.ino()));
    files.iter().map(|file| std::fs::metadata(file).ok().and_then(look)).collect()
}

/// A listener's certificates.
///
/// # Errors
/// As [`server`].
pub(crate) fn listener(
    what: &'static str,
    files: &ServerTlsConfig,
    protocol: &'static [u8],
) -> Result<Option<Arc<Renewed<ServerConfig>>>, Unusable> {
    if !files.is_on() {
        return Ok(None);
    }
    let watched = named([&files.cert_file, &files.key_file, &files.client_ca_file]);
    let files = files.clone();
    Renewed::new(what, watched, move || server(&files, protocol)).map(Some)
}

/// The certificates of calls to other members.
///
/// # Errors
/// As [`client`].
pub(crate) fn caller(
    what: &'static str,
    files: &ClientTlsConfig,
    protocol: &'static [u8],
) -> Result<Option<Arc<Renewed<ClientConfig>>>, Unusable> {
    if !files.is_on() {
        return Ok(None);
    }
    let watched = named([&files.ca_file, &files.cert_file, &files.key_file]);
    let files = files.clone();
    Renewed::new(what, watched, move || client(&files, protocol)).map(Some)
}

fn named<const N: usize>(files: [&PathBuf; N]) -> Vec<PathBuf> {
    files.into_iter().filter(|file| !file.as_os_str().is_empty()).cloned().collect()
}

/// All certificates of a process. Cheap to clone.
#[derive(Clone, Default)]
pub struct Certificates(Arc<Mutex<Vec<Arc<dyn Renew>>>>);

impl Certificates {
    pub(crate) fn add<T: Send + Sync + 'static>(&self, renewed: Option<&Arc<Renewed<T>>>) {
        self.0.lock().extend(renewed.map(|renewed| Arc::clone(renewed) as Arc<dyn Renew>));
    }

    /// Reads the files again, whether they look changed or not. What becomes of it is told in the log.
    pub async fn reload(&self) {
        self.renew(true).await;
    }

    async fn renew(&self, anyway: bool) {
        let all = self.0.lock().clone();
        let renewing = tokio::task::spawn_blocking(move || all.iter().for_each(|one| one.renew(anyway)));
        if let Err(error) = renewing.await {
            tracing::error!(%error, "certificates could not be looked at");
        }
    }

    /// Looks at the files for as long as the future is held.
    pub(crate) async fn watch(&self) {
        if self.0.lock().is_empty() {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            self.renew(false).await;
        }
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Authority;
    use super::*;

    fn written(authority: &Authority, dir: &Path) -> ServerTlsConfig {
        let (cert_file, key_file, _) = authority.write(dir);
        ServerTlsConfig { cert_file, key_file, ..ServerTlsConfig::default() }
    }

    #[test]
    fn what_cannot_be_used_is_told_with_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let good = written(&authority, dir.path());
        assert!(server(&good, HTTP).is_ok());
        let fails = |files: &ServerTlsConfig| server(files, HTTP).unwrap_err().to_string();
        let text = fails(&ServerTlsConfig { cert_file: dir.path().join("none"), ..good.clone() });
        assert!(text.contains("none: ") && text.contains("No such file"), "{text}");
        let text = fails(&ServerTlsConfig { cert_file: good.key_file.clone(), ..good.clone() });
        assert!(text.ends_with("there is no certificate in it"), "{text}");
        let elsewhere = tempfile::tempdir().unwrap();
        let other = written(&Authority::new(), elsewhere.path());
        let text = fails(&ServerTlsConfig { key_file: other.key_file, ..good.clone() });
        assert!(text.starts_with(&good.cert_file.display().to_string()), "{text}");
    }

    #[tokio::test]
    async fn changed_files_come_into_force_and_broken_ones_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let files = written(&Authority::new(), dir.path());
        let renewed = listener("HTTP", &files, HTTP).unwrap().unwrap();
        let certificates = Certificates::default();
        certificates.add(Some(&renewed));
        let first = renewed.now();
        certificates.renew(false).await;
        assert!(Arc::ptr_eq(&first, &renewed.now()), "nothing has changed");

        std::fs::write(&files.cert_file, "broken").unwrap();
        certificates.renew(false).await;
        assert!(Arc::ptr_eq(&first, &renewed.now()), "what is broken changes nothing");

        written(&Authority::new(), dir.path());
        certificates.renew(false).await;
        let second = renewed.now();
        assert!(!Arc::ptr_eq(&first, &second));
        certificates.reload().await;
        assert!(!Arc::ptr_eq(&second, &renewed.now()), "the operator asked");
    }
}
