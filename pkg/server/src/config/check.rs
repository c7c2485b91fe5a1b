//! What settings must be beyond their units: each for itself, and together.
//!
//! Invariants: an error says what is wrong and what to do. Settings are checked together once all are known, whatever their order.

use std::time::Duration;

use tailwater_model::{Limits, TenantId};

use super::{Config, Target, cluster};

/// Largest `ingester.wal.segment_mb`.
const MAX_SEGMENT_MB: u32 = 1024;
/// Largest `ingester.target_block_mb`: a block is made in memory.
const MAX_BLOCK_MB: u32 = 4096;

/// What a setting must be for itself.
pub(super) fn alone(config: &Config, path: &str) -> Result<(), String> {
    let one_of = |value: &str, allowed: &[&str]| {
        if allowed.contains(&value) {
            Ok(())
        } else {
            Err(format!("{value:?} is not known; allowed: {}", allowed.join(", ")))
        }
    };
    let not_zero =
        |zero: bool, what: &str| if zero { Err(format!("0 is too little; allowed: {what}")) } else { Ok(()) };
    let some_time = |time: Duration| not_zero(time.is_zero(), "more than 0s");
    let within = |value: u32, most: u32| {
        if (1..=most).contains(&value) { Ok(()) } else { Err(format!("{value} is out of range; allowed: 1 to {most}")) }
    };
    let (server, ingester, storage) = (&config.server, &config.ingester, &config.storage);
    match path {
        "no_auth_tenant" => TenantId::parse(&config.no_auth_tenant).map(drop).map_err(|e| e.to_string()),
        "data_dir" if config.data_dir.as_os_str().is_empty() => Err("it is empty; allowed: a folder".to_owned()),
        "server.log_level" => one_of(&server.log_level, &["debug", "info", "warn", "error"]),
        "server.log_format" => one_of(&server.log_format, &["logfmt", "json"]),
        "server.http_server_read_timeout" => some_time(server.http_server_read_timeout),
        "server.http_server_write_timeout" => some_time(server.http_server_write_timeout),
        "server.http_server_idle_timeout" => some_time(server.http_server_idle_timeout),
        "ingester.log_memory_mb" => not_zero(ingester.log_memory_mb == 0, "1 and more"),
        "ingester.max_block_age" => some_time(ingester.max_block_age),
        "ingester.target_block_mb" => within(ingester.target_block_mb, MAX_BLOCK_MB),
        "ingester.wal.sync_interval" if ingester.wal.sync_interval.is_zero() => {
            Err("0 is too little; allowed: more than 0s; for a sync before every answer set ingester.wal.sync: always"
                .to_owned())
        }
        "ingester.wal.segment_mb" => within(ingester.wal.segment_mb, MAX_SEGMENT_MB),
        "querier.feed_ring_mb" => not_zero(config.querier.feed_ring_mb == 0, "1 and more"),
        "querier.feed_merge_mb" => not_zero(config.querier.feed_merge_mb == 0, "1 and more"),
        "querier.query_memory_mb" => not_zero(config.querier.query_memory_mb == 0, "1 and more"),
        "querier.tail_max_duration" => some_time(config.querier.tail_max_duration),
        "storage.url" => storage.check_url(),
        "storage.request_timeout" => some_time(storage.request_timeout),
        "storage.s3.endpoint" => {
            let endpoint = storage.s3.endpoint.as_str();
            if endpoint.is_empty() || endpoint.starts_with("https://") || endpoint.starts_with("http://") {
                Ok(())
            } else {
                Err(format!("{endpoint:?} is no address of a service; allowed: https://HOST or http://HOST:PORT"))
            }
        }
        "compactor.compaction_interval" => some_time(config.compactor.compaction_interval),
        _ => match path.strip_prefix("limits_config.") {
            Some(name) => limit(&config.limits, name),
            None => cluster::alone(config, path),
        },
    }
}

/// What a limit must be.
pub(super) fn limit(limits: &Limits, name: &str) -> Result<(), String> {
    if name == "query_timeout" && limits.query_timeout.is_zero() {
        return Err("0 is too little; allowed: more than 0s".to_owned());
    }
    Ok(())
}

/// What settings must be together. The error names the setting that is to blame.
pub(super) fn together(config: &Config) -> Result<(), (&'static str, String)> {
    let (ingester, wal, s3) = (&config.ingester, &config.ingester.wal, &config.storage.s3);
    if !wal.enabled && wal.flush_on_shutdown {
        let what = "without ingester.wal.enabled there are no blocks, so lines would be lost all the same; leave one of them out";
        return Err(("ingester.wal.flush_on_shutdown", what.to_owned()));
    }
    cluster::together(config)?;
    let least = u64::from(wal.keep_mb.max(ingester.target_block_mb)) + 2 * u64::from(wal.segment_mb);
    if wal.max_mb > 0 && u64::from(wal.max_mb) < least {
        let what = format!(
            "{} is too little: the log would be full before a block is made of it; it has to hold ingester.wal.keep_mb ({}) or \
             ingester.target_block_mb ({}), whichever is more, and two segments ({} each); allowed: 0 (as much as the disk holds), \
             {least} and more",
            wal.max_mb, wal.keep_mb, ingester.target_block_mb, wal.segment_mb
        );
        return Err(("ingester.wal.max_mb", what));
    }
    let storage = config.storage_url();
    if storage.strip_prefix("file://").unwrap_or(&storage) == config.wal_dir().to_string_lossy() {
        return Err(("ingester.wal.dir", "it is the folder of storage.url; give each a folder of its own".to_owned()));
    }
    let of_s3 = [
        ("storage.s3.endpoint", !s3.endpoint.is_empty()),
        ("storage.s3.region", !s3.region.is_empty()),
        ("storage.s3.force_path_style", s3.force_path_style.is_some()),
        ("storage.s3.allow_http", s3.allow_http.is_some()),
        ("storage.s3.access_key_id", !s3.access_key_id.is_empty()),
        ("storage.s3.secret_access_key", !s3.secret_access_key.is_empty()),
    ];
    if !config.storage.url.starts_with("s3://")
        && let Some((path, _)) = of_s3.into_iter().find(|(_, set)| *set)
    {
        let what = "storage.url names no bucket of S3; set storage.url: s3://BUCKET/PREFIX, or leave this out";
        return Err((path, what.to_owned()));
    }
    match (s3.access_key_id.is_empty(), s3.secret_access_key.is_empty()) {
        (false, true) => {
            let what = "it has no storage.s3.secret_access_key; set both, or neither and AWS_* in the environment";
            return Err(("storage.s3.access_key_id", what.to_owned()));
        }
        (true, false) => {
            let what = "it has no storage.s3.access_key_id; set both, or neither and AWS_* in the environment";
            return Err(("storage.s3.secret_access_key", what.to_owned()));
        }
        _ => {}
    }
    if s3.endpoint.starts_with("http://") && s3.allow_http == Some(false) {
        let what = "it is without TLS; if that is meant set storage.s3.allow_http: true, otherwise use https://";
        return Err(("storage.s3.endpoint", what.to_owned()));
    }
    Ok(())
}

/// Why a setting that was set has no effect.
pub(super) fn idle(config: &Config, path: &str) -> Option<&'static str> {
    let of_disk = path == "data_dir"
        || path.starts_with("storage.")
        || path.starts_with("compactor.")
        || (path.starts_with("ingester.wal.") && path != "ingester.wal.enabled")
        || matches!(path, "ingester.max_block_age" | "ingester.target_block_mb");
    if cluster::is_of_cluster(path) && !config.is_clustered() {
        return Some(
            "this process is alone: a cluster is on with memberlist.join_members, memberlist.bind_addr or a target",
        );
    }
    if !config.ingester.wal.enabled && of_disk {
        return Some("ingester.wal.enabled is false: lines are in memory only");
    }
    let of_log = path.starts_with("ingester.wal.") || path.starts_with("ingester.log_");
    if of_log && config.target == Target::Querier {
        return Some("target is querier: it keeps no log");
    }
    let of_retention = matches!(path, "limits_config.retention_period" | "limits_config.retention_stream");
    (of_retention && !config.compactor.retention_enabled).then_some("compactor.retention_enabled is false")
}
