//! The objects of the catalog as JSON: `manifest.json` of a tenant's day, `tenant.json` of a tenant. docs/formats/catalog.md describes them.
//!
//! Invariants: what is read is what this version writes, or it is refused: a process that does not know a field would drop it when it writes
//! the object again. No block is listed twice; every block lies within its day.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tailwater_model::{LogId, TenantId, Timestamp};
use ulid::Ulid;

use super::{Day, names};
use crate::block::{self, Summary};

/// The version of both formats.
pub const VERSION: u32 = 1;

/// Batches of an arrival log: all those from `first` to `last` that have lines of the block's tenant and day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Covered {
    /// The log.
    #[serde(with = "text")]
    pub log: LogId,
    /// Number of the first batch.
    pub first: u64,
    /// Number of the last batch.
    pub last: u64,
}

/// What is known of a block without reading it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockMeta {
    /// Unique.
    #[serde(with = "text")]
    pub id: Ulid,
    /// The day that all its entries lie in.
    pub day: Day,
    /// The earliest timestamp, in nanoseconds.
    pub min: i64,
    /// The latest timestamp.
    pub max: i64,
    /// Entries.
    pub lines: u64,
    /// Bytes of lines and structured metadata.
    pub raw_bytes: u64,
    /// Bytes of the object.
    pub bytes: u64,
    /// Streams.
    pub streams: u64,
    /// 0: cut from the log; n: merged from blocks of which the highest was n - 1.
    pub level: u8,
    /// When it was made, in nanoseconds.
    pub created: i64,
    /// Where its entries come from.
    pub logs: Vec<Covered>,
}

impl BlockMeta {
    /// A block that was built now, under a name of its own.
    #[must_use]
    pub fn new(day: Day, built: &Summary, level: u8, created: Timestamp) -> Self {
        let covered = |of: &block::Covered| Covered { log: of.log, first: of.first, last: of.last };
        Self {
            id: Ulid::generate(),
            day,
            min: built.min,
            max: built.max,
            lines: built.lines,
            raw_bytes: built.raw_bytes,
            bytes: built.bytes,
            streams: built.streams.into(),
            level,
            created: created.nanos(),
            logs: built.logs.iter().map(covered).collect(),
        }
    }

    /// Its object.
    #[must_use]
    pub fn path(&self, tenant: &TenantId) -> String {
        names::block_path(tenant, self.day, self.min, self.max, self.id)
    }

    /// Whether an entry may lie in `[start, end]`, in nanoseconds.
    #[must_use]
    pub fn overlaps(&self, start: i64, end: i64) -> bool {
        self.min <= end && self.max >= start
    }

    /// What is wrong with it.
    pub(super) fn fault(&self, day: Day) -> Option<String> {
        let range = day.range();
        let fits = self.day == day && self.min <= self.max && range.contains(&self.min) && range.contains(&self.max);
        (!fits)
            .then(|| format!("block {} ({}, {} to {}) does not lie in the day", self.id, self.day, self.min, self.max))
    }
}

/// A block that is listed no more, but whose object is still there for searches that found it before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Removed {
    /// The block.
    #[serde(with = "text")]
    pub id: Ulid,
    /// Its earliest timestamp.
    pub min: i64,
    /// Its latest timestamp.
    pub max: i64,
    /// When it was removed, in nanoseconds.
    pub at: i64,
}

impl Removed {
    /// Its object.
    #[must_use]
    pub fn path(&self, tenant: &TenantId, day: Day) -> String {
        names::block_path(tenant, day, self.min, self.max, self.id)
    }
}

/// The blocks of a tenant's day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Of each log, the last batch whose lines of this day are in blocks, or were: lines up to it must not be brought in again.
    pub covered: BTreeMap<LogId, u64>,
    /// In the order in which they were added.
    pub blocks: Vec<Arc<BlockMeta>>,
    /// Blocks that are not, but whose objects are still to be deleted.
    pub removed: Vec<Removed>,
}

impl Manifest {
    /// Whether it lists a block, or has listed it and the object is still to be deleted.
    #[must_use]
    pub fn knows(&self, id: Ulid) -> bool {
        self.blocks.iter().any(|block| block.id == id) || self.removed.iter().any(|block| block.id == id)
    }
}

/// The days that a tenant has blocks in, or has had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Days(pub BTreeSet<Day>);

/// Whose object it is: checked when it is read. Two tenants that differ in case alone share a folder where file names have no case.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner<'a> {
    pub(super) tenant: &'a TenantId,
    /// Of a manifest.
    pub(super) day: Option<Day>,
}

/// An object of the catalog.
pub(super) trait Document: Default + Send + Sync + 'static {
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with it.
    fn parse(bytes: &[u8], owner: Owner<'_>) -> Result<Self, Fault>;

    /// Writes it. `change`: makes it differ from all that were there before.
    fn to_bytes(&self, owner: Owner<'_>, change: Ulid) -> Bytes;

    /// How much of the cache it takes, in blocks.
    fn weight(&self) -> usize;
}

/// What is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is damaged.
    Damaged(String),
    /// It is another version's, or another tenant's. It must not be replaced.
    Foreign(String),
}

impl Fault {
    pub(super) fn into_text(self) -> String {
        match self {
            Self::Damaged(text) | Self::Foreign(text) => text,
        }
    }
}

#[derive(Deserialize)]
struct AnyVersion {
    version: u32,
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Fault> {
    let damaged = |error: serde_json::Error| Fault::Damaged(error.to_string());
    let AnyVersion { version } = serde_json::from_slice(bytes).map_err(damaged)?;
    if version != VERSION {
        return Err(Fault::Foreign(format!("it is of version {version}, this process knows {VERSION}")));
    }
    serde_json::from_slice(bytes).map_err(damaged)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestJson {
    version: u32,
    tenant: String,
    day: Day,
    #[serde(with = "text")]
    change: Ulid,
    covered: BTreeMap<String, u64>,
    #[serde(serialize_with = "serialize_shared", deserialize_with = "deserialize_shared")]
    blocks: Vec<Arc<BlockMeta>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    removed: Vec<Removed>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DaysJson {
    version: u32,
    tenant: String,
    #[serde(with = "text")]
    change: Ulid,
    days: BTreeSet<Day>,
}

fn check_tenant(found: &str, owner: Owner<'_>) -> Result<(), Fault> {
    if found != owner.tenant.as_str() {
        return Err(Fault::Foreign(format!("it is of tenant {found}")));
    }
    Ok(())
}

impl Document for Manifest {
    fn parse(bytes: &[u8], owner: Owner<'_>) -> Result<Self, Fault> {
        let json: ManifestJson = read(bytes)?;
        check_tenant(&json.tenant, owner)?;
        let day = owner.day.unwrap_or(json.day);
        if json.day != day {
            return Err(Fault::Foreign(format!("it is of {}", json.day)));
        }
        if let Some(fault) = json.blocks.iter().find_map(|block| block.fault(day)) {
            return Err(Fault::Damaged(fault));
        }
        let mut seen = HashSet::with_capacity(json.blocks.len());
        if let Some(twice) = json.blocks.iter().find(|block| !seen.insert(block.id)) {
            return Err(Fault::Damaged(format!("block {} is listed twice", twice.id)));
        }
        let covered = json.covered.into_iter().map(|(log, seq)| match log.parse() {
            Ok(log) => Ok((log, seq)),
            Err(_) => Err(Fault::Damaged(format!("'{log}' is no log id"))),
        });
        Ok(Self { covered: covered.collect::<Result<_, _>>()?, blocks: json.blocks, removed: json.removed })
    }

    fn to_bytes(&self, owner: Owner<'_>, change: Ulid) -> Bytes {
        let json = ManifestJson {
            version: VERSION,
            tenant: owner.tenant.to_string(),
            day: owner.day.unwrap_or(Day::MIN),
            change,
            covered: self.covered.iter().map(|(log, seq)| (log.to_string(), *seq)).collect(),
            blocks: self.blocks.clone(),
            removed: self.removed.clone(),
        };
        Bytes::from(serde_json::to_vec(&json).expect("plain data with text keys is always JSON"))
    }

    fn weight(&self) -> usize {
        1 + self.blocks.len() + self.removed.len() / 4
    }
}

impl Document for Days {
    fn parse(bytes: &[u8], owner: Owner<'_>) -> Result<Self, Fault> {
        let json: DaysJson = read(bytes)?;
        check_tenant(&json.tenant, owner)?;
        Ok(Self(json.days))
    }

    fn to_bytes(&self, owner: Owner<'_>, change: Ulid) -> Bytes {
        let tenant = owner.tenant.to_string();
        let json = DaysJson { version: VERSION, tenant, change, days: self.0.clone() };
        Bytes::from(serde_json::to_vec(&json).expect("plain data is always JSON"))
    }

    fn weight(&self) -> usize {
        1 + self.0.len() / 16
    }
}

/// Ids as their text.
mod text {
    use super::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<T: std::fmt::Display, S: Serializer>(id: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: super::Id,
        D: Deserializer<'de>,
    {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        T::of_text(&text).ok_or_else(|| serde::de::Error::custom(format!("'{text}' is no id")))
    }
}

/// What is an id.
trait Id: Sized {
    fn of_text(text: &str) -> Option<Self>;
}

impl Id for Ulid {
    fn of_text(text: &str) -> Option<Self> {
        Self::from_string(text).ok()
    }
}

impl Id for LogId {
    fn of_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

fn serialize_shared<S: Serializer>(blocks: &[Arc<BlockMeta>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(blocks.iter().map(Arc::as_ref))
}

fn deserialize_shared<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Arc<BlockMeta>>, D::Error> {
    Ok(Vec::<BlockMeta>::deserialize(deserializer)?.into_iter().map(Arc::new).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn block(id: u128, day: Day) -> BlockMeta {
        BlockMeta {
            id: Ulid(id),
            day,
            min: *day.range().start(),
            max: *day.range().end(),
            lines: 3,
            raw_bytes: 300,
            bytes: 100,
            streams: 2,
            level: 0,
            created: 7,
            logs: vec![Covered { log: LogId::from_u128(5), first: 1, last: 9 }],
        }
    }

    fn tenant() -> TenantId {
        TenantId::parse("t").unwrap()
    }

    #[test]
    fn a_manifest_is_the_documented_json() {
        let (tenant, day) = (tenant(), Day::of(-1));
        let owner = Owner { tenant: &tenant, day: Some(day) };
        let manifest = Manifest {
            covered: BTreeMap::from([(LogId::from_u128(5), 9)]),
            blocks: vec![Arc::new(block(1, day))],
            removed: Vec::new(),
        };
        let bytes = manifest.to_bytes(owner, Ulid(2));
        let text = std::str::from_utf8(&bytes).unwrap();
        assert_eq!(
            text,
            r#"{"version":1,"tenant":"t","day":"1969-12-31","change":"00000000000000000000000002","covered":{"00000000000000000000000005":9},"blocks":[{"id":"00000000000000000000000001","day":"1969-12-31","min":-86400000000000,"max":-1,"lines":3,"raw_bytes":300,"bytes":100,"streams":2,"level":0,"created":7,"logs":[{"log":"00000000000000000000000005","first":1,"last":9}]}]}"#
        );
        assert_eq!(Manifest::parse(&bytes, owner).unwrap(), manifest);

        let fault = |from: &str, to: &str| {
            assert!(text.contains(from), "{from}");
            Manifest::parse(text.replace(from, to).as_bytes(), owner).unwrap_err()
        };
        assert!(matches!(fault(r#""version":1"#, r#""version":2,"more":3"#), Fault::Foreign(_)));
        assert!(matches!(fault(r#""tenant":"t""#, r#""tenant":"T""#), Fault::Foreign(_)));
        assert!(matches!(fault(r#""day":"1969-12-31","change"#, r#""day":"1970-01-01","change"#), Fault::Foreign(_)));
        for (from, to) in [
            (r#""level":0"#, r#""level":0,"colour":1"#),
            (r#""level":0"#, r#""level":300"#),
            (r#""max":-1"#, r#""max":0"#),
            (r#""min":-86400000000000"#, r#""min":1"#),
            (r#"00005":9}"#, r#"0000":9}"#),
            ("[{", "{["),
            (r#"{"version""#, r#"{"covered""#),
        ] {
            assert!(matches!(fault(from, to), Fault::Damaged(_)), "{from}");
        }
        for at in 0..text.len() {
            assert!(Manifest::parse(&bytes[..at], owner).is_err());
        }
        let twice = Manifest { blocks: [&manifest.blocks[..], &manifest.blocks[..]].concat(), ..manifest };
        assert!(matches!(Manifest::parse(&twice.to_bytes(owner, Ulid(2)), owner), Err(Fault::Damaged(_))));
    }

    #[test]
    fn days_are_the_documented_json() {
        let tenant = tenant();
        let owner = Owner { tenant: &tenant, day: None };
        let days = Days(BTreeSet::from([Day::of(0), Day::of(-1)]));
        let bytes = days.to_bytes(owner, Ulid(2));
        assert_eq!(
            bytes,
            r#"{"version":1,"tenant":"t","change":"00000000000000000000000002","days":["1969-12-31","1970-01-01"]}"#
        );
        assert_eq!(Days::parse(&bytes, owner).unwrap(), days);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, text in r#"[\[\]{}":,0-9a-z]{0,80}"#) {
            let tenant = tenant();
            let owner = Owner { tenant: &tenant, day: Some(Day::of(0)) };
            prop_assert!(Manifest::parse(&bytes, owner).is_err());
            prop_assert!(Manifest::parse(text.as_bytes(), owner).is_err());
            prop_assert!(Days::parse(text.as_bytes(), owner).is_err());
        }
    }
}
