//! The last documents of containers, for the commands that run for them: kept only where there are such.
//!
//! A container that is watched has its own beside it. Of those that are watched no more the latest are remembered, for jobs that wait and for what
//! follows an end. All are kept packed: most of what Docker says of one container it says of the next as well.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use lz4_flex::block::{compress_with_dict, decompress_with_dict};

use super::Engine;
use crate::model::{ContainerId, Document};

/// So many containers are remembered that are watched no more,
const REMEMBERED: usize = 1024;

/// and so many bytes of their documents.
const BYTES: usize = 8 << 20;

/// What the last inspect that found a container said of it.
#[derive(Clone, Debug)]
pub(super) struct Last {
    json: Packed,
    /// Of the document.
    digest: u64,
    /// The change of the container after which it was asked for.
    asked: u64,
    /// Since then there was no such container.
    gone: bool,
}

impl Last {
    /// There is no such container any more.
    pub(super) fn outlived(&mut self) {
        self.gone = true;
    }
}

/// A text, as an LZ4 block that continues its model.
#[derive(Clone, Debug)]
struct Packed {
    block: Box<[u8]>,
    /// The text's length.
    len: usize,
    model: Arc<str>,
}

impl Packed {
    fn new(text: &str, model: &Arc<str>) -> Self {
        Packed {
            block: compress_with_dict(text.as_bytes(), model.as_bytes()).into(),
            len: text.len(),
            model: model.clone(),
        }
    }

    /// The text.
    fn text(&self) -> Option<String> {
        let bytes = decompress_with_dict(&self.block, self.len, self.model.as_bytes());
        String::from_utf8(bytes.ok()?).ok()
    }
}

/// Containers that are watched no more, the first to be forgotten first.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    /// In the order in which they came, each with its number.
    order: VecDeque<(u64, ContainerId)>,
    documents: HashMap<ContainerId, (u64, Last)>,
    bytes: usize,
    next: u64,
}

impl Remembered {
    pub(super) fn keep(&mut self, id: &ContainerId, last: Last) {
        self.take(id);
        self.next += 1;
        self.bytes += last.json.block.len();
        self.order.push_back((self.next, id.clone()));
        self.documents.insert(id.clone(), (self.next, last));
        while self.documents.len() > REMEMBERED || self.bytes > BYTES {
            let Some((number, oldest)) = self.order.pop_front() else {
                break;
            };
            if self.has(number, &oldest) {
                self.take(&oldest);
            }
        }
        // Some were taken out, and stand here still.
        if self.order.len() > 2 * REMEMBERED {
            let mut order = std::mem::take(&mut self.order);
            order.retain(|(number, id)| self.has(*number, id));
            self.order = order;
        }
    }

    fn has(&self, number: u64, id: &ContainerId) -> bool {
        let kept = self.documents.get(id);
        kept.is_some_and(|(kept, _)| *kept == number)
    }

    pub(super) fn take(&mut self, id: &ContainerId) -> Option<Last> {
        let (_, last) = self.documents.remove(id)?;
        self.bytes -= last.json.block.len();
        Some(last)
    }
}

impl Engine {
    /// The JSON of a container's last document, and whether the container is gone since. Of one that is not, only what was asked for after this
    /// change of it.
    pub fn document(&self, id: &str, revision: u64) -> Option<(String, bool)> {
        let id = ContainerId::from(id);
        let watched = self.containers.get(&id);
        let last = watched
            .and_then(|container| container.last.as_ref())
            .or_else(|| self.remembered.documents.get(&id).map(|(_, last)| last))?;
        let fits = last.gone || last.asked >= revision;
        fits.then(|| Some((last.json.text()?, last.gone))).flatten()
    }

    /// An inspect found a container as it was.
    pub(super) fn keep_same(&mut self, id: &ContainerId, asked: u64) {
        if let Some(last) = &mut self.container(id).last {
            last.asked = asked;
            last.gone = false;
        }
    }

    /// An inspect found a container so.
    pub(super) fn keep_document(&mut self, id: &ContainerId, asked: u64, document: &Document) {
        if !self.rules.documents {
            return;
        }
        let model = self.model.get_or_insert_with(|| document.json.clone());
        let model = model.clone();
        let container = self.container(id);
        let last = container.last.take();
        let json = match last.filter(|last| last.digest == document.digest) {
            Some(last) => last.json,
            None => Packed::new(&document.json, &model),
        };
        container.last = Some(Last {
            json,
            digest: document.digest,
            asked,
            gone: false,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(bytes: usize) -> Last {
        let json = Packed {
            block: vec![0; bytes].into(),
            len: 0,
            model: "".into(),
        };
        Last {
            json,
            digest: 0,
            asked: 1,
            gone: true,
        }
    }

    #[test]
    fn a_text_comes_out_as_it_went_in_and_is_small_beside_one_like_it() {
        let text = |n: usize| {
            let part = |i| format!(r#""Name{i}":"{}","#, i * (7 + n % 3));
            (0..300).map(part).collect::<String>()
        };
        for model in ["", &text(1), &"m".repeat(200_000)] {
            let model = model.into();
            for text in ["", "a", "ä\0", &text(2), &"x".repeat(200_000)] {
                let packed = Packed::new(text, &model);
                assert_eq!(packed.text().as_deref(), Some(text));
            }
        }
        let packed = Packed::new(&text(4), &text(1).into());
        assert!(packed.block.len() * 20 < packed.len, "{packed:?}");
        let broken = Packed { len: 1, ..packed };
        assert_eq!(broken.text(), None);
    }

    #[test]
    fn what_real_engines_say_of_containers_is_packed_to_less_than_a_fifth() {
        for version in ["20.10.24", "26.1.5", "28.5.2"] {
            let folder = format!("{}/fixtures/docker/{version}", env!("CARGO_MANIFEST_DIR"));
            let read = |name: &str| {
                let text = std::fs::read_to_string(format!("{folder}/inspect-{name}.json"));
                Arc::<str>::from(text.expect("it was recorded"))
            };
            let model = read("web");
            let (mut packed, mut plain) = (0, 0);
            for name in ["exited", "healthy", "networked", "paused", "ports"] {
                let text = read(name);
                packed += Packed::new(&text, &model).block.len();
                plain += text.len();
            }
            assert!(packed * 5 < plain, "{version}: {packed} of {plain}");
        }
    }

    fn id(number: usize) -> ContainerId {
        ContainerId::from(format!("c{number}").as_str())
    }

    #[test]
    fn only_the_latest_are_remembered() {
        let mut remembered = Remembered::default();
        for number in 0..3 * REMEMBERED {
            remembered.keep(&id(number), last(100));
        }
        assert_eq!(remembered.documents.len(), REMEMBERED);
        assert_eq!(remembered.bytes, 100 * REMEMBERED);
        assert!(remembered.take(&id(2 * REMEMBERED - 1)).is_none());
        assert!(remembered.take(&id(2 * REMEMBERED)).is_some());
        // One comes and goes all the time.
        for _ in 0..10 * REMEMBERED {
            remembered.keep(&id(0), last(100));
            assert!(remembered.take(&id(0)).is_some());
        }
        assert!(remembered.order.len() <= 2 * REMEMBERED);
        remembered.keep(&id(0), last(BYTES));
        assert_eq!(remembered.documents.len(), 1);
        remembered.keep(&id(1), last(1));
        assert_eq!((remembered.documents.len(), remembered.bytes), (1, 1));
    }
}
