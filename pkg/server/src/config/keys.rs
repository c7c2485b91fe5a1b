//! Every setting that has a meaning here: its place in the file (Loki's, where Loki has it), its unit, its field.

use serde_json::Value;
use tailwater_model::Limits;

use super::Config;
use super::retention::Rules;
use super::storage::Secret;
use super::tree::Node;
use super::units::{Choice, Flag, Folder, Mebibytes, OptionalFlag, Size, Text, Texts, Time, Unit, Whole};

/// A setting of `T`.
pub(super) struct Key<T> {
    /// Where it stands, levels separated by dots.
    pub(super) path: &'static str,
    /// Its value, as the file would have it.
    pub(super) get: fn(&T) -> Value,
    /// Reads it from the file.
    pub(super) set: fn(&mut T, &Node) -> Result<(), String>,
}

macro_rules! keys {
    ($of:ty; $( $path:literal => $($field:ident).+ : $unit:ty ),* $(,)?) => {
        &[$( Key {
            path: $path,
            get: |c: &$of| <$unit as Unit>::show(&c.$($field).+),
            set: |c: &mut $of, node: &Node| <$unit as Unit>::read(node).map(|value| c.$($field).+ = value),
        } ),*]
    };
}

/// Everything but limits.
pub(super) const CONFIG_KEYS: &[Key<Config>] = keys! { Config;
    "target" => target: Choice<_>,
    "auth_enabled" => auth_enabled: OptionalFlag,
    "no_auth_tenant" => no_auth_tenant: Text,
    "data_dir" => data_dir: Folder,
    "server.http_listen_address" => server.http_listen_address: Text,
    "server.http_listen_port" => server.http_listen_port: Whole<u16>,
    "server.http_tls_config.cert_file" => server.http_tls.cert_file: Folder,
    "server.http_tls_config.key_file" => server.http_tls.key_file: Folder,
    "server.http_tls_config.client_ca_file" => server.http_tls.client_ca_file: Folder,
    "server.http_tls_config.client_auth_type" => server.http_tls.client_auth_type: Choice<_>,
    "server.grpc_listen_address" => server.grpc_listen_address: Text,
    "server.grpc_listen_port" => server.grpc_listen_port: Whole<u16>,
    "server.grpc_tls_config.cert_file" => server.grpc_tls.cert_file: Folder,
    "server.grpc_tls_config.key_file" => server.grpc_tls.key_file: Folder,
    "server.grpc_tls_config.client_ca_file" => server.grpc_tls.client_ca_file: Folder,
    "server.grpc_tls_config.client_auth_type" => server.grpc_tls.client_auth_type: Choice<_>,
    "server.http_listen_conn_limit" => server.http_listen_conn_limit: Whole<usize>,
    "server.http_server_read_timeout" => server.http_server_read_timeout: Time,
    "server.http_server_write_timeout" => server.http_server_write_timeout: Time,
    "server.http_server_idle_timeout" => server.http_server_idle_timeout: Time,
    "server.graceful_shutdown_timeout" => server.graceful_shutdown_timeout: Time,
    "server.log_level" => server.log_level: Text,
    "server.log_format" => server.log_format: Text,
    "common.replication_factor" => common.replication_factor: Whole<usize>,
    "common.instance_addr" => common.instance_addr: Text,
    "common.instance_availability_zone" => common.instance_availability_zone: Text,
    "common.ring.instance_addr" => common.instance_addr: Text,
    "common.ring.instance_availability_zone" => common.instance_availability_zone: Text,
    "memberlist.cluster_label" => memberlist.cluster_label: Text,
    "memberlist.bind_addr" => memberlist.bind_addr: Texts,
    "memberlist.bind_port" => memberlist.bind_port: Whole<u16>,
    "memberlist.join_members" => memberlist.join_members: Texts,
    "memberlist.advertise_addr" => memberlist.advertise_addr: Text,
    "memberlist.advertise_port" => memberlist.advertise_port: Whole<u16>,
    "memberlist.node_name" => memberlist.node_name: Text,
    "cluster.secret" => cluster.secret: Secret,
    "cluster.secret_file" => cluster.secret_file: Folder,
    "cluster.gossip_interval" => cluster.gossip_interval: Time,
    "cluster.http_advertise_url" => cluster.http_advertise_url: Text,
    "cluster.grpc_advertise_addr" => cluster.grpc_advertise_addr: Text,
    "cluster.tls.ca_file" => cluster.tls.ca_file: Folder,
    "cluster.tls.cert_file" => cluster.tls.cert_file: Folder,
    "cluster.tls.key_file" => cluster.tls.key_file: Folder,
    "cluster.tls.server_name" => cluster.tls.server_name: Text,
    "distributor.max_recv_msg_size" => distributor.max_recv_msg_size: Size<usize>,
    "distributor.max_decompressed_size" => distributor.max_decompressed_size: Size<usize>,
    "distributor.otlp_config.default_resource_attributes_as_index_labels" =>
        distributor.otlp_resource_attributes_as_index_labels: Texts,
    "ingester.log_memory_mb" => ingester.log_memory_mb: Whole<u32>,
    "ingester.max_chunk_age" => ingester.max_chunk_age: Time,
    "ingester.max_block_age" => ingester.max_block_age: Time,
    "ingester.target_block_mb" => ingester.target_block_mb: Whole<u32>,
    "ingester.wal.enabled" => ingester.wal.enabled: Flag,
    "ingester.wal.dir" => ingester.wal.dir: Folder,
    "ingester.wal.sync" => ingester.wal.sync: Choice<_>,
    "ingester.wal.sync_interval" => ingester.wal.sync_interval: Time,
    "ingester.wal.segment_mb" => ingester.wal.segment_mb: Whole<u32>,
    "ingester.wal.keep_mb" => ingester.wal.keep_mb: Whole<u32>,
    "ingester.wal.max_mb" => ingester.wal.max_mb: Whole<u32>,
    "ingester.wal.flush_on_shutdown" => ingester.wal.flush_on_shutdown: Flag,
    "ingester.replication_timeout" => ingester.replication_timeout: Time,
    "ingester.copies_max_mb" => ingester.copies_max_mb: Whole<u32>,
    "ingester.orphan_after" => ingester.orphan_after: Time,
    "storage.url" => storage.url: Text,
    "storage.max_bytes" => storage.max_bytes: Size<u64>,
    "storage.cache_mb" => storage.cache_mb: Whole<u32>,
    "storage.request_timeout" => storage.request_timeout: Time,
    "storage.s3.endpoint" => storage.s3.endpoint: Text,
    "storage.s3.region" => storage.s3.region: Text,
    "storage.s3.force_path_style" => storage.s3.force_path_style: OptionalFlag,
    "storage.s3.allow_http" => storage.s3.allow_http: OptionalFlag,
    "storage.s3.access_key_id" => storage.s3.access_key_id: Text,
    "storage.s3.secret_access_key" => storage.s3.secret_access_key: Secret,
    "compactor.retention_enabled" => compactor.retention_enabled: Flag,
    "compactor.compaction_interval" => compactor.compaction_interval: Time,
    "compactor.retention_delete_delay" => compactor.retention_delete_delay: Time,
    "compactor.delete_request_cancel_period" => compactor.delete_request_cancel_period: Time,
    "querier.tail_max_duration" => querier.tail_max_duration: Time,
    "querier.feed_ring_mb" => querier.feed_ring_mb: Whole<u32>,
    "querier.feed_merge_mb" => querier.feed_merge_mb: Whole<u32>,
    "querier.query_memory_mb" => querier.query_memory_mb: Whole<u32>,
    "querier.multi_tenant_queries_enabled" => querier.multi_tenant_queries_enabled: Flag,
    "querier.allow_partial" => querier.allow_partial: Flag,
    "querier.resume_secret" => querier.resume_secret: Secret,
    "frontend.max_body_size" => frontend.max_body_size: Size<usize>,
    "frontend.max_outstanding_per_tenant" => frontend.max_outstanding_per_tenant: Whole<usize>,
    "frontend.compress_responses" => frontend.compress_responses: Flag,
};

/// `limits_config`, and what `overrides` may set per tenant.
pub(super) const LIMIT_KEYS: &[Key<Limits>] = keys! { Limits;
    "ingestion_rate_mb" => ingestion_rate_mb: Mebibytes,
    "ingestion_burst_size_mb" => ingestion_burst_size_mb: Mebibytes,
    "max_line_size" => max_line_size: Size<usize>,
    "max_line_size_truncate" => max_line_size_truncate: Flag,
    "max_label_name_length" => max_label_name_length: Whole<usize>,
    "max_label_value_length" => max_label_value_length: Whole<usize>,
    "max_label_names_per_series" => max_label_names_per_series: Whole<usize>,
    "max_global_streams_per_user" => max_global_streams_per_user: Whole<usize>,
    "per_stream_rate_limit" => per_stream_rate_limit: Size<u64>,
    "per_stream_rate_limit_burst" => per_stream_rate_limit_burst: Size<u64>,
    "reject_old_samples" => reject_old_samples: Flag,
    "reject_old_samples_max_age" => reject_old_samples_max_age: Time,
    "creation_grace_period" => creation_grace_period: Time,
    "allow_structured_metadata" => allow_structured_metadata: Flag,
    "max_structured_metadata_size" => max_structured_metadata_size: Size<usize>,
    "max_structured_metadata_entries_count" => max_structured_metadata_entries_count: Whole<usize>,
    "discover_service_name" => discover_service_name: Texts,
    "discover_log_levels" => discover_log_levels: Flag,
    "increment_duplicate_timestamp" => increment_duplicate_timestamp: Flag,
    "max_entries_limit_per_query" => max_entries_limit_per_query: Whole<u32>,
    "max_query_series" => max_query_series: Whole<usize>,
    "max_query_length" => max_query_length: Time,
    "max_query_lookback" => max_query_lookback: Time,
    "max_query_range" => max_query_range: Time,
    "max_query_bytes_read" => max_query_bytes_read: Size<u64>,
    "max_query_parallelism" => max_query_parallelism: Whole<usize>,
    "query_timeout" => query_timeout: Time,
    "max_streams_matchers_per_query" => max_streams_matchers_per_query: Whole<usize>,
    "max_concurrent_tail_requests" => max_concurrent_tail_requests: Whole<u32>,
    "volume_enabled" => volume_enabled: Flag,
    "volume_max_series" => volume_max_series: Whole<usize>,
    "retention_period" => retention_period: Time,
    "retention_stream" => retention_stream: Rules,
    "deletion_mode" => deletion_mode: Choice<_>,
};
