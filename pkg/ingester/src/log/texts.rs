//! Streams by the texts of their labels, for those who read payloads: a bounded cache, so that what is read again and again is not parsed
//! again and again.

use std::collections::HashMap;
use std::sync::Arc;

use tailwater_store::Stream;

use crate::validate::accepted_labels;

/// Most texts. (Few in tests.)
const MAX_TEXTS: usize = if cfg!(test) { 4 } else { 1 << 16 };

/// Most bytes of texts.
const MAX_BYTES: usize = 16 << 20;

/// Longest text that is worth a place, in bytes.
const MAX_TEXT_BYTES: usize = 64 << 10;

/// Something per owner, text and service name. Emptied when it is full.
#[derive(Debug)]
pub(crate) struct Texts<T> {
    known: HashMap<Box<[u8]>, T>,
    bytes: usize,
    key: Vec<u8>,
}

impl<T> Default for Texts<T> {
    fn default() -> Self {
        Self { known: HashMap::new(), bytes: 0, key: Vec::new() }
    }
}

impl<T: Clone> Texts<T> {
    /// What is known of a text with that service name; `make` makes it if it is not.
    pub(crate) fn get<E>(
        &mut self,
        owner: &str,
        text: &[u8],
        service_name: Option<&str>,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        self.key.clear();
        // A byte that is in no text.
        self.key.extend_from_slice(owner.as_bytes());
        self.key.push(0xff);
        if let Some(service_name) = service_name {
            self.key.extend_from_slice(service_name.as_bytes());
            self.key.push(0xff);
        }
        self.key.extend_from_slice(text);
        if let Some(known) = self.known.get(self.key.as_slice()) {
            return Ok(known.clone());
        }
        let made = make()?;
        if self.key.len() <= MAX_TEXT_BYTES {
            if self.known.len() >= MAX_TEXTS || self.bytes + self.key.len() > MAX_BYTES {
                self.known.clear();
                self.bytes = 0;
            }
            self.bytes += self.key.len();
            self.known.insert(self.key.as_slice().into(), made.clone());
        }
        Ok(made)
    }
}

impl Texts<Arc<Stream>> {
    /// The stream of a text.
    pub(super) fn stream(
        &mut self,
        text: &[u8],
        service_name: Option<&str>,
    ) -> Result<Arc<Stream>, tailwater_wire::Error> {
        self.get("", text, service_name, || {
            accepted_labels(text, service_name).map(|labels| Arc::new(Stream::new(labels)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_told_apart_and_forgotten() {
        let mut texts = Texts::default();
        let a = texts.stream(br#"{a="1"}"#, None).unwrap();
        assert!(Arc::ptr_eq(&a, &texts.stream(br#"{a="1"}"#, None).unwrap()));
        let with = texts.stream(br#"{a="1"}"#, Some("s")).unwrap();
        assert_eq!(with.labels.to_string(), r#"{a="1", service_name="s"}"#);
        assert!(texts.stream(b"{", None).is_err());
        for i in 0..MAX_TEXTS {
            texts.stream(format!("{{b=\"{i}\"}}").as_bytes(), None).unwrap();
        }
        assert!(texts.known.len() <= MAX_TEXTS);
        assert!(!Arc::ptr_eq(&a, &texts.stream(br#"{a="1"}"#, None).unwrap()));
    }
}
