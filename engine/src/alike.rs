//! Texts that resemble each other, in a sixth of the space: each is held as what tells it from a sample, which is made of texts like it.
//!
//! LZ4 with a dictionary: a text of some kilobytes is packed or read in a few microseconds.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use lz4_flex::block::{compress_prepend_size_with_dict, decompress_size_prepended_with_dict};

/// Bytes of a sample: room for a few texts.
const ROOM: usize = 4 << 10;
/// Texts that take more than a third of their space are not like the sample.
const PART: usize = 3;
/// How often another sample is made: texts that are like nothing must not make one each.
const SAMPLES: u8 = 16;

/// What the texts to come are likely to resemble: the last ones that were like none before.
#[derive(Default)]
pub(crate) struct Sample {
    bytes: Option<Arc<Box<[u8]>>>,
    made: u8,
}

/// A text, packed. Cheap to clone only if it is short. Never printed: it may be of a Secret.
#[derive(Clone)]
pub(crate) struct Alike {
    /// What it is like. `None`: like nothing, so that it is held as it is.
    sample: Option<Arc<Box<[u8]>>>,
    bytes: Box<[u8]>,
}

impl Sample {
    /// Packs a text. `may_show`: others may be held by what tells them from this one, which then stays in memory when it is no longer needed itself:
    /// never of what is secret.
    pub(crate) fn pack(&mut self, text: &[u8], may_show: bool) -> Alike {
        let mut packed = self.like_the_sample(text);
        let is_like = packed.as_ref().is_some_and(|packed| packed.len() <= text.len() / PART);
        if !is_like && may_show && self.made < SAMPLES {
            self.learn(text);
            packed = self.like_the_sample(text);
        }
        let packed = packed.filter(|packed| packed.len() < text.len());
        packed.unwrap_or_else(|| Alike { sample: None, bytes: text.into() })
    }

    /// Its end is most like the texts to come.
    fn learn(&mut self, text: &[u8]) {
        let text = &text[..text.len().min(ROOM)];
        let before = self.bytes.as_deref().map_or(&[][..], |bytes| &bytes[..]);
        let before = &before[before.len().saturating_sub(ROOM - text.len())..];
        self.bytes = Some(Arc::new([before, text].concat().into_boxed_slice()));
        self.made += 1;
    }

    fn like_the_sample(&self, text: &[u8]) -> Option<Alike> {
        let sample = self.bytes.as_ref()?;
        let bytes = compress_prepend_size_with_dict(text, sample).into_boxed_slice();
        Some(Alike { sample: Some(Arc::clone(sample)), bytes })
    }
}

impl Alike {
    /// Bytes that it takes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The text. `None`: it cannot be read, which its own packing rules out.
    pub(crate) fn text(&self) -> Option<Cow<'_, [u8]>> {
        match &self.sample {
            Some(sample) => decompress_size_prepended_with_dict(&self.bytes, sample).ok().map(Cow::Owned),
            None => Some(Cow::Borrowed(&self.bytes)),
        }
    }
}

impl fmt::Debug for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sample({} bytes)", self.bytes.as_ref().map_or(0, |bytes| bytes.len()))
    }
}

impl fmt::Debug for Alike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Alike({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(name: &str) -> String {
        format!(
            r#"{{"metadata":{{"creationTimestamp":"2026-12-01T15:09:42Z","labels":{{"app.kubernetes.io/managed-by":"us"}},"name":"{name}"}}}}"#
        )
    }

    #[test]
    fn a_text_like_the_others_takes_little_space_and_reads_as_it_was() {
        let mut sample = Sample::default();
        for number in 0..100 {
            let text = text(&format!("team-{number}"));
            let packed = sample.pack(text.as_bytes(), true);
            assert!(packed.len() <= 30, "{packed:?}");
            assert_eq!(packed.text().unwrap(), text.as_bytes());
        }
        assert_eq!(sample.made, 1);
    }

    #[test]
    fn when_texts_change_the_sample_follows_and_former_ones_can_still_be_read() {
        let mut sample = Sample::default();
        let former = sample.pack(text("former").as_bytes(), true);
        let status = |n: u32| {
            format!(
                r#"{{"status":{{"readyReplicas":{n},"conditions":[{{"type":"Available","reason":"MinimumReplicasAvailable"}}]}}}}"#
            )
        };
        sample.pack(status(1).as_bytes(), true);
        assert!(sample.pack(status(2).as_bytes(), true).len() <= 20);
        assert!(sample.pack(text("another").as_bytes(), true).len() <= 30, "nor are former ones forgotten");
        assert_eq!(former.text().unwrap(), text("former").as_bytes());
    }

    #[test]
    fn what_is_secret_never_becomes_a_sample() {
        let mut sample = Sample::default();
        let secret = sample.pack(b"password", false);
        assert_eq!((secret.text().unwrap().as_ref(), sample.made), (&b"password"[..], 0));
        assert!(sample.bytes.is_none());
    }

    #[test]
    fn texts_like_nothing_make_few_samples_and_take_no_more_than_themselves() {
        let (mut sample, mut state) = (Sample::default(), 1_u64);
        for _ in 0..1_000 {
            let noise: Vec<u8> = std::iter::repeat_with(|| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                state.to_be_bytes()[0]
            })
            .take(500)
            .collect();
            let packed = sample.pack(&noise, true);
            assert!(packed.len() <= noise.len());
            assert_eq!(packed.text().unwrap(), noise);
        }
        assert_eq!(sample.made, SAMPLES);
        assert!(sample.bytes.unwrap().len() <= ROOM);
    }

    proptest! {
        #[test]
        fn any_texts_read_as_they_were(texts: Vec<(Vec<u8>, bool)>) {
            let mut sample = Sample::default();
            let pack = |(text, may_show): &(Vec<u8>, bool)| sample.pack(text, *may_show);
            let packed: Vec<_> = texts.iter().map(pack).collect();
            for ((text, _), packed) in texts.iter().zip(packed) {
                prop_assert_eq!(packed.text().unwrap(), &text[..]);
            }
        }
    }
}
