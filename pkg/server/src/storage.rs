//! What survives a restart, put together: the ingester on its write-ahead log, the object store, the catalog of blocks.
//!
//! A process that keeps no log has no ingester: it reads blocks, and writes none.
//!
//! The store need not answer for the server to start: what is pushed goes into the log, and queries that need blocks say that they
//! cannot be had. A log that cannot be opened, or a configuration that cannot work, is an error.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tailwater_ingester::{Copies, CopiesConfig, Ingester, PagerConfig, Replication};
use tailwater_model::{Clock, TenantLimits};
use tailwater_store::catalog::{Catalog, Refresh};
use tailwater_store::deletes::Deletes;
use tailwater_store::history::History;
use tailwater_store::housekeeping::{Housekeeping, Settings};
use tailwater_store::objects::{self, Objects};
use tailwater_store::wal::{self, SyncPolicy};
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::cluster::care::{Care, Orphans};
use crate::config::WalSync;
use crate::{Config, Error};

/// How old the catalog may be that a process knows, where others change it as well. What must be newer asks for that.
const CATALOG_AGE: Duration = Duration::from_secs(5);

/// How long the process waits for the pager and housekeeping to end the step they are at when it goes down.
const STOP: Duration = Duration::from_secs(10);

/// How long the server is not ready because copies are being opened. Once it is, others believe that it has no other logs than it says.
const COPIES: Duration = Duration::from_secs(60);

/// The parts that keep lines.
pub(crate) struct Storage {
    /// None where no log is kept.
    pub(crate) ingester: Option<Arc<Ingester>>,
    /// Blocks; none where lines are in memory only.
    pub(crate) history: Option<History>,
    /// None where lines are in memory only, or where nothing is deleted on request.
    pub(crate) deletes: Option<Arc<Deletes>>,
    /// Copies of others' logs; none where none are kept.
    pub(crate) copies: Option<Copies>,
    /// None where lines are in memory only.
    kept: Option<Kept>,
}

/// What puts lines into blocks, and looks after these.
struct Kept {
    catalog: Arc<Catalog>,
    pager: PagerConfig,
    /// None where no blocks are made: it is done by those who make them.
    housekeeping: Option<Arc<Housekeeping>>,
}

impl Storage {
    /// Opens the write-ahead log and the store.
    ///
    /// # Errors
    /// The log cannot be opened, the url of the store cannot work.
    pub(crate) async fn open(
        config: &Config,
        limits: &Arc<dyn TenantLimits>,
        clock: &Arc<dyn Clock>,
        care: &Arc<Care>,
    ) -> Result<Self, Error> {
        let mebibytes = |n: u32| u64::from(n) << 20;
        let ingester = if config.target.ingests() { Some(open_log(config, limits, clock).await?) } else { None };
        if !config.ingester.wal.enabled {
            return Ok(Self { ingester, history: None, deletes: None, copies: None, kept: None });
        }
        let objects = if config.target.ingests() || !config.is_storage_local() {
            Objects::open(&config.storage_url(), &options(config))?
        } else {
            // A folder has one process that writes to it, and that is the ingester.
            Objects::open_read_only(&config.storage_url(), &options(config))?
        };
        if ingester.is_some() {
            tracing::info!(wal = %config.wal_dir().display(), store = objects.url(), "lines are kept");
        } else {
            tracing::info!(store = objects.url(), "lines are read");
        }
        let refresh = if config.is_clustered() { Refresh::Shared { max_age: CATALOG_AGE } } else { Refresh::Exclusive };
        let catalog = Arc::new(Catalog::new(objects.clone(), refresh));
        let cancel_period = config.compactor.delete_request_cancel_period;
        let requests = Arc::new(Deletes::new(objects, Arc::clone(clock), cancel_period));
        let deletes = config.compactor.retention_enabled.then(|| Arc::clone(&requests));
        let cache_bytes = usize::try_from(mebibytes(config.storage.cache_mb)).unwrap_or(usize::MAX);
        let history = History::new(Arc::clone(&catalog), deletes.clone(), cache_bytes, Handle::current());
        if let Some(ingester) = &ingester {
            ingester.attach(history.clone());
        }
        let pager = PagerConfig {
            target_block_bytes: mebibytes(config.ingester.target_block_mb),
            max_block_age: config.ingester.max_block_age,
            ..PagerConfig::default()
        };
        let settings = Settings {
            interval: config.compactor.compaction_interval,
            delete_delay: config.compactor.retention_delete_delay,
            max_bytes: config.storage.max_bytes,
            retention: config.compactor.retention_enabled,
            ..Settings::default()
        };
        let housekeeping = ingester.as_ref().map(|ingester| {
            let (of_log, of_all) = (Arc::clone(ingester), Arc::clone(care));
            let (limits, clock) = (Arc::clone(limits), Arc::clone(clock));
            if !config.is_clustered() {
                let settled = Arc::new(move || of_log.in_blocks_until());
                return Arc::new(Housekeeping::new(Arc::clone(&catalog), requests, limits, settled, settings, clock));
            }
            let settled = Arc::new(move || of_all.settled().min(of_log.in_blocks_until()));
            let care = Arc::clone(care);
            let leads = Arc::new(move || care.leads());
            Arc::new(Housekeeping::led(Arc::clone(&catalog), requests, limits, settled, leads, settings, clock))
        });
        let copies = match &ingester {
            Some(_) if config.common.replication_factor > 1 => {
                let max_bytes = mebibytes(config.ingester.copies_max_mb);
                let settings = CopiesConfig::of(&log_config(config), max_bytes)?;
                let folder = Copies::folder(&config.data_dir);
                let copies = Copies::open(folder, settings, Arc::clone(limits), Arc::clone(clock))?;
                copies.attach(history.clone());
                Some(copies)
            }
            _ => None,
        };
        let kept = Kept { catalog, pager, housekeeping };
        Ok(Self { ingester, history: Some(history), deletes, copies, kept: Some(kept) })
    }

    /// Adds the metrics of what looks after blocks.
    pub(crate) fn register_metrics(&self, registry: &mut Registry) {
        match (&self.ingester, &self.history) {
            (Some(ingester), _) => ingester.register_metrics(registry),
            (None, Some(history)) => history.register(registry),
            (None, None) => {}
        }
        if let Some(copies) = &self.copies {
            copies.register_metrics(registry);
        }
        if let Some(kept) = &self.kept {
            if let Some(housekeeping) = &kept.housekeeping {
                housekeeping.register_metrics(registry);
            }
            kept.catalog.register(registry);
            kept.catalog.objects().register(registry);
        }
    }

    /// Where blocks are.
    pub(crate) fn objects(&self) -> Option<&Objects> {
        self.kept.as_ref().map(|kept| kept.catalog.objects())
    }

    /// Copies, and what becomes of them when the owners of their logs are gone for `after`.
    pub(crate) fn orphans(&self, after: Duration) -> Option<Orphans> {
        let (copies, kept) = self.copies.clone().zip(self.kept.as_ref())?;
        Some(Orphans { copies, catalog: Arc::clone(&kept.catalog), pager: kept.pager, after })
    }

    /// Takes back what the log holds, and begins to put lines into blocks; the ingester is ready then, and `ready` is called. Not waited for:
    /// until it is done the server says that it is starting.
    pub(crate) fn recover(&self, ready: impl FnOnce() + Send + 'static) {
        let Some(Kept { catalog, pager, housekeeping }) = &self.kept else { return ready() };
        let (ingester, catalog, pager) = (self.ingester.clone(), Arc::clone(catalog), *pager);
        let (housekeeping, copies) = (housekeeping.clone(), self.copies.clone());
        tokio::spawn(async move {
            // First: once the own log is back it takes pushes.
            if let Some(copies) = copies
                && tokio::time::timeout(COPIES, copies.opened()).await.is_err()
            {
                tracing::warn!("the server becomes ready although not all copies of others' logs are back yet");
            }
            if let Some(ingester) = ingester {
                let recovering = Arc::clone(&ingester);
                match tokio::task::spawn_blocking(move || recovering.recover()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        return tracing::error!(%error, "the write-ahead log cannot be read, so the server does not become ready");
                    }
                    Err(error) => return tracing::error!(%error, "the recovery ended early"),
                }
                ingester.start_pager(Arc::clone(&catalog), pager);
            }
            ready();
            match catalog.load().await {
                Ok(found) => {
                    let (tenants, days) = (found.tenants, found.days);
                    tracing::info!(tenants, days, "read the catalog of blocks");
                    for error in found.corrupt {
                        tracing::error!(%error, "a part of the catalog is lost, answers are partial");
                    }
                }
                Err(error) => tracing::warn!(%error, "the store cannot be reached yet"),
            }
            if let Some(housekeeping) = housekeeping {
                housekeeping.start();
            }
        });
    }

    /// Puts everything into blocks that was accepted by now. Nothing to do where lines are in memory only, or where no log is kept.
    ///
    /// # Errors
    /// Why it could not be done. Nothing is lost.
    pub(crate) async fn flush(&self) -> Result<(), String> {
        let Some((ingester, _)) = self.ingester.as_ref().zip(self.kept.as_ref()) else { return Ok(()) };
        if ingester.recovering().is_some() {
            return Err("the server is starting".to_owned());
        }
        ingester.flush().await.map_err(|error| error.to_string())
    }

    /// Ends the log in good order, once nothing is pushed any more. `flush`: put everything into blocks first, as far as that can be done
    /// by then.
    pub(crate) async fn close(&self, flush: Option<Instant>) {
        let Some((ingester, kept)) = self.ingester.as_ref().zip(self.kept.as_ref()) else { return };
        if let Some(until) = flush {
            let late = |_elapsed| Err("there was no more time".to_owned());
            let flushed = tokio::time::timeout_at(until, self.flush()).await.unwrap_or_else(late);
            if let Err(error) = flushed {
                tracing::warn!(error, "not everything could be put into blocks; it stays in the write-ahead log");
            }
        }
        let stop = async {
            ingester.stop_pager().await;
            if let Some(housekeeping) = &kept.housekeeping {
                housekeeping.stop().await;
            }
        };
        let _timeout = tokio::time::timeout(STOP, stop).await;
        if ingester.recovering().is_some() {
            return;
        }
        let (ingester, copies) = (Arc::clone(ingester), self.copies.clone());
        let end = move || {
            if let Some(copies) = copies {
                copies.close();
            }
            ingester.end()
        };
        match tokio::task::spawn_blocking(end).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the write-ahead log was not closed in good order"),
            Err(error) => tracing::warn!(%error, "the write-ahead log was not closed in good order"),
        }
    }
}

/// Opens the arrival log, on disk unless that is off.
async fn open_log(
    config: &Config,
    limits: &Arc<dyn TenantLimits>,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<Ingester>, Error> {
    let settings = log_config(config);
    let (limits, clock) = (Arc::clone(limits), Arc::clone(clock));
    let opened = tokio::task::spawn_blocking(move || Ingester::open(settings, limits, clock)).await;
    Ok(opened.map_err(|error| Error::Storage(error.to_string()))??)
}

fn log_config(config: &Config) -> tailwater_ingester::Config {
    let log_memory_bytes = usize::try_from(u64::from(config.ingester.log_memory_mb) << 20).unwrap_or(usize::MAX);
    let replication =
        Replication { quorum: config.common.replication_factor / 2, timeout: config.ingester.replication_timeout };
    let wal = config.ingester.wal.enabled.then(|| wal(config));
    // A log without copies has nobody who could have what it lacks.
    let copies = (config.common.replication_factor > 1).then(|| Copies::folder(&config.data_dir));
    tailwater_ingester::Config { log_memory_bytes, wal, replication, copies }
}

/// Opens the store of a configuration for reading, also beside a server that uses it.
///
/// # Errors
/// The url cannot work, or there is no such folder.
pub fn open_storage_read_only(config: &Config) -> Result<Objects, Error> {
    Ok(Objects::open_read_only(&config.storage_url(), &options(config))?)
}

fn wal(config: &Config) -> wal::Config {
    let settings = &config.ingester.wal;
    let mebibytes = |n: u32| u64::from(n) << 20;
    wal::Config {
        dir: config.wal_dir(),
        sync: match settings.sync {
            WalSync::Os => SyncPolicy::Os,
            WalSync::Interval => SyncPolicy::Interval(settings.sync_interval),
            WalSync::Always => SyncPolicy::Always,
        },
        segment_bytes: mebibytes(settings.segment_mb),
        keep_bytes: mebibytes(settings.keep_mb),
        max_bytes: mebibytes(settings.max_mb),
    }
}

fn options(config: &Config) -> objects::Options {
    let s3 = &config.storage.s3;
    let set = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let defaults = objects::Options::default();
    objects::Options {
        endpoint: set(&s3.endpoint),
        region: set(&s3.region),
        access_key_id: set(&s3.access_key_id),
        secret_access_key: set(s3.secret_access_key.reveal()).map(objects::Secret),
        allow_http: s3.allow_http,
        path_style: s3.force_path_style,
        timing: objects::Timing { attempt: config.storage.request_timeout, ..defaults.timing },
        concurrency: defaults.concurrency,
    }
}
