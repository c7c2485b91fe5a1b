use tailwater_model::{DeletionMode, StreamRetention};

use super::*;

fn load(text: &str) -> Config {
    Config::parse(text, "c.yaml").unwrap().config
}

fn error(text: &str) -> String {
    Config::parse(text, "c.yaml").unwrap_err().to_string()
}

#[test]
fn an_empty_file_is_the_defaults() {
    for text in ["", "\n# nothing\n", "{}", "server:\n", "limits_config: {}\n"] {
        assert_eq!(load(text), Config::default(), "{text:?}");
    }
}

#[test]
fn a_loki_file_works_and_says_what_has_no_effect() {
    let text = r#"
auth_enabled: false
server:
  http_listen_port: 3200
  grpc_listen_port: 9096
common:
  instance_addr: 127.0.0.1
  ring: {kvstore: {store: inmemory}}
schema_config:
  configs:
    - from: 2020-10-24
      store: tsdb
limits_config:
  ingestion_rate_mb: 16
  per_stream_rate_limit: 5MB
  max_line_size: 512KB
  reject_old_samples_max_age: 2w
  max_query_length: 30d1h
  retention_period: 744h
  query_timeout: 5m
ruler:
  alertmanager_url: http://localhost:9093
"#;
    let loaded = Config::parse(text, "loki.yaml").unwrap();
    let config = loaded.config;
    assert_eq!(config.auth_enabled, Some(false));
    assert_eq!(config.server.http_listen_port, 3200);
    assert_eq!(config.limits.ingestion_rate_mb, 16.0);
    assert_eq!(config.limits.per_stream_rate_limit, 5 << 20);
    assert_eq!(config.limits.max_line_size, 512 << 10);
    assert_eq!(config.limits.reject_old_samples_max_age, Duration::from_secs(14 * 86_400));
    assert_eq!(config.limits.max_query_length, Duration::from_secs(721 * 3600));
    assert_eq!(config.limits.query_timeout, Duration::from_secs(300));
    let places: Vec<_> = loaded.warnings.iter().map(|w| w.split(": ").take(2).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        places,
        [
            "loki.yaml:8:10 common.ring.kvstore",
            "loki.yaml:9:1 schema_config",
            "loki.yaml:21:1 ruler",
            "loki.yaml:7:18 common.instance_addr",
            "loki.yaml:19:21 limits_config.retention_period",
            "loki.yaml:5:21 server.grpc_listen_port",
        ]
    );
}

#[test]
fn unknown_keys_are_named_with_their_place_and_the_nearest_known_one() {
    assert_eq!(
        error("server:\n  http_listen_prot: 1\n"),
        r#"c.yaml:2:3: unknown key "server.http_listen_prot"; the nearest known key is "server.http_listen_port""#
    );
    assert_eq!(error("auth: true\n"), r#"c.yaml:1:1: unknown key "auth""#);
    assert_eq!(
        error("ingestion_rate_mb: 3\n"),
        r#"c.yaml:1:1: unknown key "ingestion_rate_mb"; the nearest known key is "limits_config.ingestion_rate_mb""#
    );
    assert_eq!(
        error("overrides:\n  t1:\n    max_line_sise: 1KB\n"),
        r#"c.yaml:3:5: unknown key "overrides.t1.max_line_sise"; the nearest known key is "max_line_size""#
    );
}

#[test]
fn bad_values_say_what_is_wrong_and_what_is_allowed() {
    let cases = [
        ("server: {http_listen_port: 70000}", "0 to 65535"),
        ("server: {http_listen_port: abc}", r#""abc" is out of range or not a number"#),
        ("server: {log_level: loud}", "debug, info, warn, error"),
        ("server: 5", "server"),
        ("auth_enabled: perhaps", "true or false"),
        ("limits_config: {max_line_size: big}", "256KB"),
        ("limits_config: {query_timeout: 0s}", "more than 0s"),
        ("limits_config: {query_timeout: fast}", r#""fast" is not a duration"#),
        ("ingester: {log_memory_mb: 0}", "1 and more"),
        ("target: distributor", "allowed: all, ingester, querier"),
        ("common: {replication_factor: 0}", "1 to 9"),
        ("common: {replication_facto: 3}", r#"nearest known key is "common.replication_factor""#),
        ("common: {replication_factor: 3}", "memberlist.join_members (--join)"),
        ("common: {replication_factor: 3}\ningester: {wal: {enabled: false}}", "copies of the write-ahead log"),
        ("target: querier\ningester: {wal: {enabled: false}}", "a querier reads lines from blocks"),
        ("memberlist: {cluster_label: ''}", "a name for the cluster"),
        ("memberlist: {bind_addr: [a, b]}", "one address"),
        ("memberlist: {join_members: [host]}", "HOST:PORT"),
        ("memberlist: {join_members: ['host:0']}", "HOST:PORT"),
        ("memberlist: {join_membrs: [a]}", r#"nearest known key is "memberlist.join_members""#),
        ("cluster: {gossip_interval: 1ms}", "10ms to 1m"),
        ("cluster: {http_advertise_url: host}", "http://HOST:PORT"),
        ("cluster: {grpc_advertise_addr: host}", "HOST:PORT"),
        ("cluster: {secret: x, secret_file: y}", "cluster.secret as well"),
        ("cluster: {tls: {cert_file: x}}", "cluster.tls.key_file; set both"),
        ("cluster: {tls: {key_file: x}}", "cluster.tls.cert_file; set both"),
        ("cluster: {tls: {server_name: x}}", "only with cluster.tls.ca_file"),
        ("target: ingester\ncluster: {tls: {ca_file: x}}", "set server.grpc_tls_config.cert_file"),
        ("target: ingester\nserver: {grpc_tls_config: {cert_file: x, key_file: y}}", "set cluster.tls.ca_file"),
        ("server: {http_tls_config: {cert_file: x}}", "server.http_tls_config.key_file; set both"),
        ("server: {http_tls_config: {key_file: x}}", "server.http_tls_config.cert_file; set both"),
        ("server: {http_tls_config: {cert_file: x, key_file: y, client_ca_file: z}}", "RequireAndVerifyClientCert"),
        (
            "server: {http_tls_config: {cert_file: x, key_file: y, client_auth_type: RequireAndVerifyClientCert}}",
            "set server.http_tls_config.client_ca_file",
        ),
        (
            "server: {grpc_tls_config: {client_ca_file: z, client_auth_type: VerifyClientCertIfGiven}}",
            "set server.grpc_tls_config.cert_file",
        ),
        ("server: {http_tls_config: {client_auth_type: RequireAnyClientCert}}", "RequireAndVerifyClientCert"),
        ("ingester: {replication_timeout: 0s}", "more than 0s"),
        ("querier: {resume_secret: '********'}", "put the secret itself"),
        ("data_dir: ''", "allowed: a folder"),
        ("ingester: {max_block_age: 0s}", "more than 0s"),
        ("ingester: {target_block_mb: 0}", "1 to 4096"),
        ("ingester: {target_block_mb: -1}", "0 to 4294967295"),
        ("ingester: {wal: {sync: sometimes}}", "os, interval, always"),
        ("ingester: {wal: {sync_interval: 0s}}", "ingester.wal.sync: always"),
        ("ingester: {wal: {sync_interval: -1s}}", "a duration"),
        ("ingester: {wal: {segment_mb: 2000}}", "1 to 1024"),
        ("ingester: {wal: {max_mb: 639}}", "640 and more"),
        ("ingester: {wal: {max_mb: 100, keep_mb: 0, segment_mb: 1}}", "130 and more"),
        ("ingester: {wal: {enabled: false, flush_on_shutdown: true}}", "leave one of them out"),
        ("ingester: {wal: {dir: data/x}}\nstorage: {url: data/x}", "a folder of its own"),
        ("storage: {url: ftp://x}", "s3://BUCKET/PREFIX"),
        ("storage: {url: 's3://'}", "s3://BUCKET/PREFIX"),
        ("storage: {url: 'file://folder'}", "file:///FOLDER"),
        ("storage: {max_bytes: -5}", "a size"),
        ("storage: {request_timeout: 0s}", "more than 0s"),
        ("storage: {s3: {region: x}}", "set storage.url: s3://BUCKET/PREFIX"),
        ("storage: {url: 's3://b', s3: {access_key_id: x}}", "storage.s3.secret_access_key; set both"),
        ("storage: {url: 's3://b', s3: {secret_access_key: x}}", "storage.s3.access_key_id; set both"),
        ("storage: {url: 's3://b', s3: {endpoint: 'minio:9000'}}", "http://HOST:PORT"),
        ("storage: {url: 's3://b', s3: {endpoint: 'http://m:9', allow_http: false}}", "storage.s3.allow_http: true"),
        ("storage: {s3: {secret_access_key: '********'}}", "put the secret itself"),
        ("compactor: {compaction_interval: 0s}", "more than 0s"),
        ("compactor: {retention_enabld: true}", r#"nearest known key is "compactor.retention_enabled""#),
        ("limits_config: {deletion_mode: yes}", "disabled, filter-only, filter-and-delete"),
        ("limits_config: {retention_stream: 1d}", "a list of {selector, priority, period}"),
        ("overrides: {t1: {retention_stream: [{selector: '{', period: 2d}]}}", "retention_stream: rule 1: selector"),
        ("no_auth_tenant: a/b", "unsupported character '/'"),
        ("overrides: {t1: {max_line_size: x}}", "max_line_size"),
        ("overrides: {t1: {query_timeout: 0s}}", "more than 0s"),
        ("overrides: {'a/b': {}}", "unsupported character"),
        ("overrides: [1]", "a list"),
        ("[1, 2]", "found a list where settings are expected"),
        ("just text", "found a single value where settings are expected"),
    ];
    for (text, wanted) in cases {
        let error = error(text);
        assert!(error.starts_with("c.yaml"), "{text}: {error}");
        assert!(error.contains(wanted), "{text}: {error}");
    }
    assert!(error("a: [1\nb: 2").contains("not YAML"), "{}", error("a: [1\nb: 2"));
    assert_eq!(error("server:\n  http_listen_port: x\n").split(": ").next(), Some("c.yaml:2:21"));
}

#[test]
fn the_environment_beats_the_file_and_flags_beat_both() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("t.yaml");
    std::fs::write(&file, "server: {http_listen_port: 1, log_level: warn}\nauth_enabled: true\n").unwrap();
    let environment = [
        ("TAILWATER_SERVER_HTTP_LISTEN_PORT".to_owned(), "2".to_owned()),
        ("TAILWATER_SERVER_LOG_LEVEL".to_owned(), "error".to_owned()),
        ("TAILWATER_LIMITS_CONFIG_MAX_LINE_SIZE".to_owned(), "1KB".to_owned()),
        ("TAILWATER_NONSENSE".to_owned(), "1".to_owned()),
        ("HOME".to_owned(), "/".to_owned()),
    ];
    let flags = [("server.http_listen_port".to_owned(), "3".to_owned())];
    let loaded = Config::load(Some(&file), environment, &flags).unwrap();
    assert_eq!(loaded.config.server.http_listen_port, 3);
    assert_eq!(loaded.config.server.log_level, "error");
    assert_eq!(loaded.config.auth_enabled, Some(true));
    assert_eq!(loaded.config.limits.max_line_size, 1024);
    assert_eq!(loaded.warnings, ["TAILWATER_NONSENSE: names no setting and has no effect"]);

    let bad = [("TAILWATER_SERVER_HTTP_LISTEN_PORT".to_owned(), "x".to_owned())];
    let error = Config::load(None, bad, &[]).unwrap_err();
    assert_eq!(error.at, "TAILWATER_SERVER_HTTP_LISTEN_PORT");
    let error = Config::load(Some(&dir.path().join("none.yaml")), [], &[]).unwrap_err();
    assert!(error.to_string().contains("cannot be read"), "{error}");
}

#[test]
fn overrides_start_from_the_common_limits_wherever_these_stand() {
    let config = load(
        "overrides:\n  t1:\n    max_line_size: 1KB\n  t.2: {ingestion_rate_mb: 9}\nlimits_config:\n  max_query_series: 7\n\
         ingester: {max_chunk_age: 4h}\n",
    );
    let limits = config.tenant_limits();
    let of = |tenant: &str| limits.limits(&TenantId::parse(tenant).unwrap());
    assert_eq!((of("t1").max_line_size, of("t1").max_query_series), (1024, 7));
    assert_eq!((of("t.2").ingestion_rate_mb, of("t.2").max_line_size), (9.0, 256 << 10));
    assert_eq!(of("other").max_query_series, 7);
    assert_eq!(of("t1").out_of_order_window, Duration::from_secs(7200));
}

#[test]
#[cfg(target_os = "linux")]
fn a_file_without_an_end_is_refused() {
    let error = super::read(std::path::Path::new("/dev/zero")).unwrap_err();
    assert_eq!(error, "is too long; a configuration has at most 16777216 bytes");
}

#[test]
fn printing_and_reading_give_the_same_configuration() {
    let config = load(
        "auth_enabled: true\nserver: {http_listen_port: 0}\nlimits_config: {max_line_size: 1KB, query_timeout: 90s}\n\
         overrides: {t.1: {max_query_series: 3}}\n",
    );
    assert_eq!(load(&config.to_yaml(Mode::All)), config);
    assert_eq!(load(&config.to_yaml(Mode::Diff)), config);
    assert_eq!(load(&config.to_yaml(Mode::Defaults)), Config::default());
    let diff = config.to_yaml(Mode::Diff);
    assert!(diff.contains("auth_enabled: true") && diff.contains("max_line_size"), "{diff}");
    assert!(!diff.contains("max_query_lookback"), "{diff}");
    assert_eq!(Config::default().to_yaml(Mode::Diff), "{}\n");
}

#[test]
fn rules_of_retention_are_read_checked_and_shown() {
    let text = r#"
compactor: {retention_enabled: true, retention_delete_delay: 0s, delete_request_cancel_period: 0s}
limits_config:
  retention_period: 744h
  retention_stream:
    - {selector: '{namespace="dev"}', priority: 1, period: 24h}
    - selector: '{app=~"a|b", env!="prod"}'
      period: 2w
  deletion_mode: filter-only
overrides:
  t1: {retention_stream: [], retention_period: 0s, deletion_mode: disabled}
"#;
    let loaded = Config::parse(text, "c.yaml").unwrap();
    assert_eq!(loaded.warnings, [""; 0]);
    let days = |n: u64| Duration::from_secs(n * 86_400);
    let limits = &loaded.config.limits;
    assert_eq!((limits.retention_period, limits.deletion_mode), (days(31), DeletionMode::FilterOnly));
    let rule = |selector: &str, priority, period| StreamRetention { selector: selector.to_owned(), priority, period };
    assert_eq!(
        limits.retention_stream,
        [rule(r#"{namespace="dev"}"#, 1, days(1)), rule(r#"{app=~"a|b", env!="prod"}"#, 0, days(14))]
    );
    let own = &loaded.config.overrides[&TenantId::parse("t1").unwrap()];
    assert_eq!((own.retention_period, own.retention_stream.len()), (Duration::ZERO, 0));
    assert_eq!(own.deletion_mode, DeletionMode::Disabled);
    assert_eq!(load(&loaded.config.to_yaml(Mode::All)), loaded.config);

    for (rules, wanted) in [
        ("[1]", "rule 1: found a single value"),
        ("[{period: 2d}]", "rule 1: it has no selector"),
        ("[{selector: '{a=\"b\"}'}]", "rule 1: it has no period"),
        ("[{selector: '{a=\"b\"}', period: 2d}, {selector: '{a=}', period: 2d}]", "rule 2: selector: \"{a=}\" is no"),
        ("[{selector: '{}', period: 2d}]", "rule 1: selector"),
        ("[{selector: '{a=\"b\"} |= \"x\"', period: 2d}]", "rule 1: selector"),
        ("[{selector: '{a=~\"(\"}', period: 2d}]", "rule 1: selector"),
        ("[{selector: '{a=\"b\"}', period: 23h}]", "rule 1: period: it is too short; allowed: 24h and more"),
        ("[{selector: '{a=\"b\"}', period: 2d, priority: high}]", "rule 1: priority"),
        ("[{selector: '{a=\"b\"}', period: 2d, prio: 1}]", "unknown key \"prio\"; allowed: selector, priority, period"),
    ] {
        let error = error(&format!("limits_config:\n  retention_stream: {rules}\n"));
        assert!(error.starts_with("c.yaml:2:21: limits_config.retention_stream: "), "{error}");
        assert!(error.contains(wanted), "{rules}: {error}");
    }
}

#[test]
fn what_is_on_disk_lies_in_the_data_folder_unless_told_otherwise() {
    let places = |text: &str| {
        let config = load(text);
        (config.wal_dir().display().to_string(), config.storage_url())
    };
    assert_eq!(places(""), ("./data/wal".to_owned(), "./data/store".to_owned()));
    assert_eq!(places("data_dir: /d"), ("/d/wal".to_owned(), "/d/store".to_owned()));
    let own = "data_dir: /d\ningester: {wal: {dir: /fast}}\nstorage: {url: 's3://bucket/logs'}\n";
    assert_eq!(places(own), ("/fast".to_owned(), "s3://bucket/logs".to_owned()));
    let flags = [("data_dir".to_owned(), "/flag".to_owned())];
    let loaded = Config::load(None, [("TAILWATER_DATA_DIR".to_owned(), "/env".to_owned())], &flags).unwrap();
    assert_eq!(loaded.config.data_dir, PathBuf::from("/flag"));
}

#[test]
fn secrets_are_read_and_not_shown() {
    let text = "storage:\n  url: s3://bucket\n  s3: {endpoint: 'http://127.0.0.1:9000', allow_http: true, access_key_id: me}\n";
    let environment = [("TAILWATER_STORAGE_S3_SECRET_ACCESS_KEY".to_owned(), "sesame".to_owned())];
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("t.yaml");
    std::fs::write(&file, text).unwrap();
    let config = Config::load(Some(&file), environment, &[]).unwrap().config;
    assert_eq!(config.storage.s3.secret_access_key.reveal(), "sesame");
    let shown = format!("{}{}{config:?}", config.to_yaml(Mode::All), config.to_yaml(Mode::Diff));
    assert!(!shown.contains("sesame") && shown.contains("********"), "{shown}");
    let error = error("storage: {url: 's3://me:sesame@bucket/x'}");
    assert!(error.contains("storage.s3.access_key_id") && !error.contains("sesame"), "{error}");
    let bad = [("TAILWATER_STORAGE_S3_ACCESS_KEY_ID".to_owned(), "x".to_owned())];
    let error = Config::load(None, bad, &[]).unwrap_err();
    assert_eq!(error.at, "TAILWATER_STORAGE_S3_ACCESS_KEY_ID");
}

#[test]
fn settings_that_another_one_makes_idle_are_told() {
    let warnings = |text: &str| Config::parse(text, "c.yaml").unwrap().warnings;
    assert_eq!(
        warnings("data_dir: /d\ningester:\n  target_block_mb: 8\n  wal:\n    enabled: false\n    keep_mb: 1\n"),
        [
            "c.yaml:1:11: data_dir: has no effect while ingester.wal.enabled is false: lines are in memory only",
            "c.yaml:3:20: ingester.target_block_mb: has no effect while ingester.wal.enabled is false: lines are in memory only",
            "c.yaml:6:14: ingester.wal.keep_mb: has no effect while ingester.wal.enabled is false: lines are in memory only",
        ]
    );
    assert_eq!(
        warnings("overrides:\n  t1:\n    retention_period: 30d\n"),
        ["c.yaml:3:5: retention_period: has no effect while compactor.retention_enabled is false"]
    );
    assert_eq!(warnings("compactor: {retention_enabled: true}\nlimits_config: {retention_period: 30d}\n"), [""; 0]);
    let foreign = warnings("compactor: {working_directory: /x}\ningester: {wal: {replay_memory_ceiling: 1GB}}\n");
    assert_eq!(foreign.len(), 2, "{foreign:?}");
}

#[test]
fn a_cluster_is_what_is_told_of_others() {
    let clustered = |text: &str| load(text).is_clustered();
    assert!(!clustered(""));
    assert!(!clustered("memberlist: {bind_port: 1, cluster_label: x}\nserver: {grpc_listen_port: 1}"));
    assert!(clustered("memberlist: {join_members: ['loki-memberlist:7946']}"));
    assert!(clustered("memberlist: {bind_addr: [0.0.0.0]}"));
    assert!(clustered("target: querier"));
    assert!(clustered("target: ingester"));
}

#[test]
fn the_settings_of_a_cluster_are_read_where_loki_has_them() {
    let text = "
target: ingester
storage: {url: 's3://b'}
server:
  grpc_listen_address: 0.0.0.0
  grpc_listen_port: 9097
  http_tls_config: {cert_file: /c, key_file: /k, client_ca_file: /a, client_auth_type: RequireAndVerifyClientCert}
  grpc_tls_config: {cert_file: /gc, key_file: /gk}
common:
  replication_factor: 3
  ring: {instance_addr: 10.0.0.7, instance_availability_zone: b}
memberlist:
  cluster_label: prod
  bind_addr: ['::']
  bind_port: 7947
  join_members: [a:1, 'dns.name:2']
  advertise_addr: 10.0.0.8
  advertise_port: 17
  node_name: one
cluster:
  secret: sesame
  gossip_interval: 1s
  http_advertise_url: https://x:1
  grpc_advertise_addr: x:2
  tls: {ca_file: /ca, cert_file: /cc, key_file: /ck, server_name: tailwater}
ingester: {replication_timeout: 7s, orphan_after: 3m}
querier: {allow_partial: false, resume_secret: hush}
";
    let loaded = Config::parse(text, "c.yaml").unwrap();
    assert_eq!(loaded.warnings, [""; 0]);
    let config = loaded.config;
    assert_eq!((config.target, config.target.ingests()), (Target::Ingester, true));
    assert_eq!((config.server.grpc_listen_address.as_str(), config.server.grpc_listen_port), ("0.0.0.0", 9097));
    assert_eq!(config.server.http_tls.client_auth_type, ClientAuth::RequireAndVerifyClientCert);
    assert!(config.server.grpc_tls.is_on() && config.cluster.tls.is_on());
    let common = &config.common;
    assert_eq!((common.replication_factor, common.instance_addr.as_str()), (3, "10.0.0.7"));
    assert_eq!(common.instance_availability_zone, "b");
    let members = &config.memberlist;
    assert_eq!((members.cluster_label.as_str(), members.bind_port, members.advertise_port), ("prod", 7947, 17));
    assert_eq!(
        (&*members.bind_addr, &*members.join_members),
        (&["::".to_owned()][..], &["a:1".to_owned(), "dns.name:2".to_owned()][..])
    );
    assert_eq!((members.advertise_addr.as_str(), members.node_name.as_str()), ("10.0.0.8", "one"));
    assert_eq!((config.cluster.secret.reveal(), config.querier.resume_secret.reveal()), ("sesame", "hush"));
    assert_eq!(config.cluster.gossip_interval, Duration::from_secs(1));
    assert_eq!(config.ingester.orphan_after, Duration::from_secs(180));
    assert!(!config.querier.allow_partial);
    let shown = config.to_yaml(Mode::All);
    assert!(!shown.contains("sesame") && !shown.contains("hush"), "{shown}");
}

#[test]
fn a_folder_of_one_machine_is_told_to_a_cluster() {
    let warnings = |text: &str| Config::parse(text, "c.yaml").unwrap().warnings;
    let told = warnings("target: ingester\n");
    assert!(told.len() == 1 && told[0].starts_with("defaults: storage.url: blocks are in a folder"), "{told:?}");
    let told = warnings("target: querier\nstorage: {url: /shared}\ningester: {log_memory_mb: 7}\n");
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("target is querier: it keeps no log"), "{told:?}");
    assert!(told[1].starts_with("c.yaml:2:16: storage.url: blocks are in a folder"), "{told:?}");
    let told = warnings("memberlist: {node_name: x}\n");
    assert!(told.len() == 1 && told[0].contains("has no effect while this process is alone"), "{told:?}");
}
