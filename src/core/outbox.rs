//! What one host's share of the store is to become, and what it is as far as we know.
//!
//! Two things wait here to be written: what is to be *so* (a dirty set by container, in which a newer document replaces an older one) and what has
//! *happened* (stream entries, a ring that drops its oldest). A batch is built against `stored`, which already counts all batches built before:
//! they are applied one at a time and repeated unchanged until they ran, or until the host's lease is lost and all is begun anew.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::model::{ContainerId, Document, EngineIndex};
use crate::store::{Audit, Gone, Happening, HostBatch, Notice, Put};

/// The most stream entries of one engine that wait for the store.
const RING: usize = 10_000;

/// Keys of so many containers are renewed by one transaction: two short commands each, 240 kB in all.
const TOUCHES: usize = 1000;

/// The most stream entries in one transaction.
pub const HAPPENINGS: usize = 256;

/// What one transaction may hold, all hosts together; a host's share is taken off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// Containers.
    pub containers: usize,
    /// Bytes of documents and entries.
    pub bytes: usize,
}

/// What the store holds of a container, as far as we know.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct Stored {
    /// Of the document; `None` when it is not known, so that any document is news.
    digest: Option<u64>,
    /// The document's, where that is known.
    shape: u64,
    name: Option<Arc<str>>,
    image: Option<Arc<str>>,
    running: bool,
    /// It may stand in the sets of its image.
    imaged: bool,
}

/// What is to become of a container.
#[derive(Debug)]
struct Dirty {
    /// `None`: it is to go.
    document: Option<Arc<Document>>,
    revision: u64,
    order: u64,
}

/// One host's outbox.
#[derive(Debug)]
pub struct Outbox {
    host: EngineIndex,
    stored: HashMap<ContainerId, Stored>,
    names: HashMap<Arc<str>, ContainerId>,
    /// How many containers of the host the store has under an image.
    images: HashMap<Arc<str>, usize>,
    /// How many of them run.
    running: usize,
    /// Containers in `dirty` in the order in which they got there; an entry whose order is not the dirty one's is stale.
    queue: VecDeque<(u64, ContainerId)>,
    dirty: HashMap<ContainerId, Dirty>,
    orders: u64,
    bytes: usize,
    names_left: Vec<Arc<str>>,
    /// Containers whose name another one was said to have: one of the two answers is out of date.
    robbed: Vec<ContainerId>,
    touches: VecDeque<ContainerId>,
    reassert: VecDeque<(ContainerId, Arc<str>)>,
    happened: VecDeque<Happening>,
    /// Changes that are in the store, but not yet the entries that tell of them.
    settling: Vec<(ContainerId, u64)>,
    dropped: u64,
    /// The host's fields as the store has them.
    fields: BTreeMap<&'static str, String>,
    /// Fields that the store has beside them.
    foreign_fields: Vec<String>,
    notices: VecDeque<Notice>,
    /// Until the first report is done no container has a notice of its own.
    silent: bool,
    closing: Option<Closing>,
    renew_shared: bool,
    forget: bool,
    /// The transaction that removes the host was built.
    forgotten: bool,
}

/// The end of a resync: written when all is written that was dirty when it was called for.
#[derive(Debug)]
struct Closing {
    order: u64,
    stamp: bool,
}

/// What is to be done with a container, or why not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// It will be written.
    Later,
    /// The store has it so already.
    Already,
}

impl Outbox {
    /// Nothing is known of what the store holds.
    pub fn new(host: EngineIndex) -> Self {
        Outbox {
            host,
            stored: HashMap::new(),
            names: HashMap::new(),
            images: HashMap::new(),
            running: 0,
            queue: VecDeque::new(),
            dirty: HashMap::new(),
            orders: 0,
            bytes: 0,
            names_left: Vec::new(),
            robbed: Vec::new(),
            touches: VecDeque::new(),
            reassert: VecDeque::new(),
            happened: VecDeque::new(),
            settling: Vec::new(),
            dropped: 0,
            fields: BTreeMap::new(),
            foreign_fields: Vec::new(),
            notices: VecDeque::new(),
            silent: true,
            closing: None,
            renew_shared: true,
            forget: false,
            forgotten: false,
        }
    }

    /// The lease is ours: this is what the store holds. Documents are not compared, so each of them is news.
    pub fn adopt(&mut self, audit: &Audit) {
        self.stored.clear();
        self.names.clear();
        self.images.clear();
        self.running = 0;
        self.fields.clear();
        self.foreign_fields.clear();
        self.touches.clear();
        self.reassert.clear();
        self.names_left.clear();
        self.closing = None;
        self.silent = true;
        self.renew_shared = true;
        self.forget = false;
        self.forgotten = false;
        for (id, image) in audit.manifest.pairs() {
            self.stored.entry(id.into()).or_default().image = Some(image.into());
        }
        for id in audit.stopped.iter() {
            self.stored.entry(id.into()).or_default();
        }
        for id in audit.running.iter() {
            self.stored.entry(id.into()).or_default().running = true;
        }
        // What is not known to be stopped may be in the sets of its image, even when it is missing elsewhere.
        let stopped: HashSet<&str> = audit.stopped.iter().collect();
        for (id, stored) in &mut self.stored {
            stored.imaged = stored.running || !stopped.contains(id.as_str());
            if let (true, Some(image)) = (stored.imaged, &stored.image) {
                *self.images.entry(image.clone()).or_default() += 1;
            }
            self.running += usize::from(stored.running);
        }
        for (name, id) in audit.names.pairs() {
            let id = ContainerId::from(id);
            match self.stored.get_mut(&id) {
                Some(stored) if stored.name.is_none() => {
                    let name: Arc<str> = name.into();
                    stored.name = Some(name.clone());
                    self.names.insert(name, id);
                }
                _ => self.names_left.push(name.into()),
            }
        }
    }

    /// The lease is not ours any more: what the store holds is not known, and nobody waits for what was not written.
    pub fn lose(&mut self) {
        for stored in self.stored.values_mut() {
            stored.digest = None;
        }
        self.touches.clear();
        self.reassert.clear();
        self.closing = None;
    }

    /// Somebody else writes this host: what waits here is theirs to say.
    pub fn discard(&mut self) {
        *self = Outbox::new(self.host);
    }

    /// This is so: the container's document, or `None` when it is not to be reported (any more).
    pub fn want(
        &mut self,
        id: &ContainerId,
        document: Option<Arc<Document>>,
        revision: u64,
    ) -> Wanted {
        let already = match (&document, self.stored.get(id)) {
            (Some(document), Some(stored)) => stored.digest == Some(document.digest),
            (None, None) => true,
            _ => false,
        };
        if already {
            if let Some(old) = self.dirty.remove(id) {
                self.bytes -= old.document.map_or(0, |document| document.size());
            }
            return Wanted::Already;
        }
        self.bytes += document.as_ref().map_or(0, |document| document.size());
        let order = match self.dirty.get(id) {
            Some(old) => old.order,
            None => {
                self.orders += 1;
                self.queue.push_back((self.orders, id.clone()));
                self.orders
            }
        };
        let old = self.dirty.insert(
            id.clone(),
            Dirty {
                document,
                revision,
                order,
            },
        );
        self.bytes -= old
            .and_then(|old| old.document)
            .map_or(0, |document| document.size());
        Wanted::Later
    }

    /// This is what it was, by its document's digest. `None`: neither the store nor what waits for it has that document.
    pub fn want_same(&mut self, id: &ContainerId, digest: u64, revision: u64) -> Option<Wanted> {
        let has = |document: &Arc<Document>| document.digest == digest;
        match (self.dirty.get_mut(id), self.stored.get(id)) {
            (Some(dirty), _) => {
                dirty.document.as_ref().filter(|document| has(document))?;
                dirty.revision = revision;
                Some(Wanted::Later)
            }
            (None, Some(stored)) if stored.digest == Some(digest) => Some(Wanted::Already),
            (None, _) => None,
        }
    }

    /// A container's change is in the store already. Does an entry wait yet that tells of it? Then it counts as written with that.
    pub fn settles_later(&mut self, id: &ContainerId, revision: u64) -> bool {
        let waits = !self.happened.is_empty();
        if waits {
            self.settling.push((id.clone(), revision));
        }
        waits
    }

    /// Containers that lost their names to others by the last transaction and were not written by it: they have to be looked at again.
    pub fn robbed(&mut self) -> Vec<ContainerId> {
        let mut robbed = std::mem::take(&mut self.robbed);
        robbed.retain(|id| match self.stored.get_mut(id) {
            Some(stored)
                if stored.name.as_ref().and_then(|name| self.names.get(name)) != Some(id) =>
            {
                stored.digest = None;
                true
            }
            _ => false,
        });
        robbed
    }

    /// How many containers the store holds, as far as we know.
    pub fn len(&self) -> usize {
        self.stored.len()
    }

    /// The store holds none.
    pub fn is_empty(&self) -> bool {
        self.stored.is_empty()
    }

    /// The containers that the store holds as far as we know, and those that it is to hold.
    pub fn known(&self) -> impl Iterator<Item = &ContainerId> {
        let coming = self
            .dirty
            .iter()
            .filter(|(id, dirty)| dirty.document.is_some() && !self.stored.contains_key(*id));
        self.stored.keys().chain(coming.map(|(id, _)| id))
    }

    /// The containers that wait to be written or to go.
    pub fn waiting(&self) -> impl Iterator<Item = &ContainerId> {
        self.dirty.keys()
    }

    /// Bytes of documents that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// This happened.
    pub fn happened(&mut self, happening: Happening) {
        if self.happened.len() == RING {
            self.happened.pop_front();
            self.dropped += 1;
        }
        self.happened.push_back(happening);
    }

    /// These had been taken into a batch that did not run and never will.
    pub fn put_back(&mut self, happened: Vec<Happening>) {
        for happening in happened.into_iter().rev() {
            if self.happened.len() < RING {
                self.happened.push_front(happening);
            } else {
                self.dropped += 1;
            }
        }
    }

    /// Say this with the next transaction. An engine that went and came back before anybody could be told of it was never away.
    pub fn notify(&mut self, notice: Notice) {
        match (self.notices.back(), &notice) {
            (Some(Notice::HostDown), Notice::HostUp) | (Some(Notice::HostUp), Notice::HostDown) => {
                self.notices.pop_back();
            }
            _ => self.notices.push_back(notice),
        }
    }

    /// Compares what the store says with what it should say, and puts right what can be put right here. Returns the containers whose documents
    /// have to be written again, and whether anything at all differed.
    pub fn compare(&mut self, audit: &Audit) -> (Vec<ContainerId>, usize) {
        let running: HashSet<&str> = audit.running.iter().collect();
        let stopped: HashSet<&str> = audit.stopped.iter().collect();
        let manifest: HashMap<&str, &str> = audit.manifest.pairs().collect();
        let mut differences = 0;
        let mut again = Vec::new();
        for (id, stored) in &mut self.stored {
            let right = running.contains(id.as_str()) == stored.running
                && stopped.contains(id.as_str()) != stored.running
                && manifest.get(id.as_str()).copied() == stored.image.as_deref()
                && stored
                    .name
                    .as_ref()
                    .is_none_or(|name| self.names.get(name) == Some(id));
            if !right {
                stored.digest = None;
                again.push(id.clone());
            }
        }
        for (id, digest, ours) in &audit.documents {
            if let Some(stored) = self.stored.get_mut(id)
                && stored.digest.is_some()
                && (stored.digest != *digest || !ours)
            {
                stored.digest = None;
                again.push(id.clone());
            }
        }
        let foreign: BTreeSet<&str> = running
            .iter()
            .chain(&stopped)
            .chain(manifest.keys())
            .copied()
            .filter(|id| !self.stored.contains_key(*id))
            .collect();
        for id in foreign {
            differences += 1;
            let image = manifest.get(id).map(|image| Arc::from(*image));
            let stored = Stored {
                image,
                running: running.contains(id),
                imaged: !stopped.contains(id),
                ..Stored::default()
            };
            self.count(&stored);
            let id = ContainerId::from(id);
            self.stored.insert(id.clone(), stored);
            if !self.dirty.contains_key(&id) {
                self.want(&id, None, 0);
            }
        }
        let mut named: HashSet<&str> = HashSet::new();
        for (name, id) in audit.names.pairs() {
            match self.names.get(name) {
                Some(ours) if ours.as_str() == id => {
                    named.insert(name);
                }
                Some(_) => {}
                None => {
                    differences += 1;
                    self.names_left.push(name.into());
                }
            }
        }
        for (name, id) in &self.names {
            if !named.contains(&**name)
                && let Some(stored) = self.stored.get_mut(id)
            {
                stored.digest = None;
                again.push(id.clone());
            }
        }
        again.sort();
        again.dedup();
        differences += self.compare_fields(audit);
        (again.clone(), differences + again.len())
    }

    /// The same while the engine is away; is there anything to say again? Fields that are too many may be what only the engine can tell.
    pub fn compare_away(&mut self, audit: &Audit) -> bool {
        let (_, differences) = self.compare(audit);
        differences > self.foreign_fields.len()
    }

    /// Compares the host's hash: what differs is written again, what is too much removed, with the end of the resync. Returns how many fields that are.
    fn compare_fields(&mut self, audit: &Audit) -> usize {
        let right = |name: &str, value: &String| audit.fields.get(name) == Some(value);
        let foreign = |name: &&String| !self.fields.contains_key(name.as_str());
        self.foreign_fields = audit.fields.keys().filter(foreign).cloned().collect();
        let before = self.fields.len();
        if audit.listed {
            self.fields.retain(|name, value| right(name, value));
        } else {
            self.fields.clear();
            self.renew_shared = true;
        }
        before - self.fields.len() + self.foreign_fields.len()
    }

    /// The store had no key for this container: its document is news again.
    pub fn missing(&mut self, id: &ContainerId) {
        if let Some(stored) = self.stored.get_mut(id) {
            stored.digest = None;
        }
    }

    /// Renews the keys of all containers, with `renew_shared` those of shared sets and their members as well, and ends the resync with
    /// `refresh_containers`. `stamp` is false when the engine could not be asked. What the first report has written needs no renewal if the host was taken
    /// `lately`.
    pub fn close(&mut self, stamp: bool, renew_shared: bool, lately: bool) {
        let first = stamp && self.silent && lately;
        let old = |stored: &Stored| !first || stored.digest.is_none();
        self.touches = self
            .stored
            .iter()
            .filter(|(id, stored)| old(stored) && !self.dirty.contains_key(*id))
            .map(|(id, _)| id.clone())
            .collect();
        self.reassert = self
            .stored
            .iter()
            .filter(|(_, stored)| renew_shared && stored.running && old(stored))
            .filter_map(|(id, stored)| Some((id.clone(), stored.image.clone()?)))
            .collect();
        self.renew_shared |= renew_shared;
        self.closing = Some(Closing {
            order: self.orders,
            stamp,
        });
    }

    /// A resync's end waits to be written.
    pub fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Removes everything of the host, and the host.
    pub fn forget(&mut self) {
        let mut ids: Vec<ContainerId> = self.known().cloned().collect();
        ids.sort_unstable();
        for id in ids {
            self.want(&id, None, 0);
        }
        self.touches.clear();
        self.reassert.clear();
        self.closing = None;
        self.silent = true;
        self.forget = true;
    }

    /// The host is back: it stays, if there is time yet to stop its removal.
    pub fn keep(&mut self) {
        self.forget &= self.forgotten;
    }

    /// The host's keys are to be removed, or were.
    pub fn is_forgotten(&self) -> bool {
        self.forget
    }

    /// How many containers the store has as running (when all batches built so far have run).
    pub fn running(&self) -> usize {
        self.running
    }

    /// Does anything wait to be written?
    pub fn is_idle(&self) -> bool {
        self.is_quiet() && self.happened.is_empty() && self.dropped == 0
    }

    /// The same, but for entries for the streams.
    fn is_quiet(&self) -> bool {
        self.dirty.is_empty()
            && self.notices.is_empty()
            && self.touches.is_empty()
            && self.names_left.is_empty()
            && self.closing.is_none()
            && !self.fields.is_empty()
    }

    /// How many entries for the streams wait, if nothing else does.
    pub fn entries(&self) -> Option<usize> {
        self.is_quiet().then_some(self.happened.len())
    }

    /// How many beginnings and ends of commands wait, if nothing else does.
    pub fn runs(&self) -> Option<usize> {
        let mut happened = self.happened.iter();
        let only = happened.all(|happening| matches!(happening, Happening::Run(_)));
        self.entries().filter(|_| only)
    }

    /// How many containers wait, if nothing else does and nobody is told of each of them: before the first report is done.
    pub fn gathers(&self) -> Option<usize> {
        let more = !self.happened.is_empty()
            || self.dropped > 0
            || !self.notices.is_empty()
            || self.closing.is_some()
            || self.forget
            || self.fields.is_empty();
        (self.silent && !more).then_some(self.dirty.len())
    }

    /// Builds the host's share of the next transaction, and takes what it needs off `room`. `fields` gives the host's present fields, the few that
    /// move with every batch or all of them (those that the store has already are left out); `settled` receives the revisions that the transaction makes true.
    pub fn take(
        &mut self,
        room: &mut Room,
        fields: impl FnOnce(&Outbox, bool) -> Vec<(&'static str, String)>,
        settled: &mut Vec<(EngineIndex, ContainerId, u64)>,
    ) -> Option<HostBatch> {
        let mut batch = HostBatch::new(self.host);
        self.take_containers(&mut batch, room, settled);
        self.take_happenings(&mut batch, room);
        let told = self.settling.drain(..);
        settled.extend(told.map(|(id, revision)| (self.host, id, revision)));
        let touches = TOUCHES.min(self.touches.len());
        if batch.puts.is_empty() {
            // Some may have left since the resync that wanted them renewed.
            let stored = &self.stored;
            let stays = |id: &ContainerId| stored.contains_key(id);
            batch
                .touches
                .extend(self.touches.drain(..touches).filter(stays));
            let shares = TOUCHES.min(self.reassert.len());
            let runs = |(id, image): &(ContainerId, Arc<str>)| {
                let stored = stored.get(id);
                stored.is_some_and(|stored| stored.running && stored.image.as_ref() == Some(image))
            };
            batch
                .reassert
                .extend(self.reassert.drain(..shares).filter(runs));
        }
        batch.notices.splice(0..0, self.notices.drain(..));
        let closing = match &self.closing {
            Some(closing) => {
                self.touches.is_empty()
                    && self.reassert.is_empty()
                    && self
                        .queue
                        .front()
                        .is_none_or(|(order, _)| *order > closing.order)
            }
            None => false,
        };
        if closing && let Some(closing) = self.closing.take() {
            batch.stamp = closing.stamp;
            batch.renew = true;
            batch.renew_shared = std::mem::take(&mut self.renew_shared);
            if closing.stamp {
                self.silent = false;
                batch.notices.push(Notice::RefreshContainers);
            }
        }
        if self.forget && self.dirty.is_empty() {
            batch.forget = true;
            self.forgotten = true;
            batch.notices.push(Notice::ExpiredHost);
            self.fields.clear();
        } else {
            let all = closing || self.fields.is_empty();
            batch.enlist = self.fields.is_empty();
            for (name, value) in fields(self, all) {
                if self.fields.get(name) != Some(&value) {
                    self.fields.insert(name, value.clone());
                    batch.fields.push((name, value));
                }
            }
            // Without the engine's word nobody knows them.
            if batch.stamp {
                batch.enlist = true;
                batch.fields_left = std::mem::take(&mut self.foreign_fields);
                let ours = &self.fields;
                batch
                    .fields_left
                    .retain(|name| !ours.contains_key(name.as_str()));
            }
        }
        let empty = batch == HostBatch::new(self.host);
        (!empty).then_some(batch)
    }

    fn take_containers(
        &mut self,
        batch: &mut HostBatch,
        room: &mut Room,
        settled: &mut Vec<(EngineIndex, ContainerId, u64)>,
    ) {
        let mut names_left: Vec<Arc<str>> = std::mem::take(&mut self.names_left);
        let mut images_left: Vec<Arc<str>> = Vec::new();
        while room.containers > 0 && room.bytes > 0 {
            let Some((order, id)) = self.queue.pop_front() else {
                break;
            };
            if self.dirty.get(&id).is_none_or(|dirty| dirty.order != order) {
                continue;
            }
            let Some(dirty) = self.dirty.remove(&id) else {
                continue;
            };
            let size = dirty
                .document
                .as_ref()
                .map_or(64, |document| document.size());
            self.bytes -= dirty
                .document
                .as_ref()
                .map_or(0, |document| document.size());
            room.containers -= 1;
            room.bytes = room.bytes.saturating_sub(size);
            let old = self.stored.remove(&id);
            let known = old.is_some();
            let old = old.unwrap_or_default();
            if let Some(name) = &old.name
                && self.names.get(name) == Some(&id)
            {
                self.names.remove(name);
                names_left.push(name.clone());
            }
            self.uncount(&old, &mut images_left);
            settled.push((self.host, id.clone(), dirty.revision));
            match dirty.document {
                None => {
                    batch.drops.push(Gone {
                        id: id.clone(),
                        image: old.image,
                    });
                    if !self.silent {
                        batch.notices.push(Notice::DeleteContainer(id));
                    }
                }
                Some(document) => {
                    if !self.silent {
                        batch.notices.push(match known {
                            true => Notice::UpdateContainer(id.clone()),
                            false => Notice::NewContainer(id.clone()),
                        });
                    }
                    batch.puts.push(self.put(id, document, old));
                }
            }
        }
        names_left.retain(|name| !self.names.contains_key(name));
        images_left.retain(|image| !self.images.contains_key(image));
        names_left.dedup();
        batch.names_left = names_left;
        batch.images_left = images_left;
    }

    fn put(&mut self, id: ContainerId, document: Arc<Document>, old: Stored) -> Put {
        let new = &document.summary;
        let other = match new.name.is_empty() {
            true => None,
            false => self.names.insert(new.name.clone(), id.clone()),
        };
        let stays = new.running && old.image.as_ref() == Some(&new.image);
        let stored = Stored {
            digest: Some(document.digest),
            shape: document.shape,
            name: Some(new.name.clone()).filter(|name| !name.is_empty()),
            image: Some(new.image.clone()),
            running: new.running,
            imaged: new.running,
        };
        // Where anything of it is in doubt its old document is not known.
        let known = old.digest.is_some();
        let shaped = known && old.shape == stored.shape;
        let place = |of: &Stored| (of.running, of.imaged, of.image.clone());
        let placed = known && place(&old) == place(&stored);
        let named = known && old.name == stored.name && other.is_none();
        self.robbed.extend(other);
        self.count(&stored);
        self.stored.insert(id.clone(), stored);
        Put {
            id,
            image_left: old.image.filter(|_| !stays),
            document,
            shaped,
            placed,
            named,
        }
    }

    fn count(&mut self, stored: &Stored) {
        self.running += usize::from(stored.running);
        if let (true, Some(image)) = (stored.imaged, &stored.image) {
            *self.images.entry(image.clone()).or_default() += 1;
        }
    }

    fn uncount(&mut self, stored: &Stored, left: &mut Vec<Arc<str>>) {
        self.running -= usize::from(stored.running);
        if let (true, Some(image)) = (stored.imaged, &stored.image)
            && let Some(count) = self.images.get_mut(image)
        {
            *count -= 1;
            if *count == 0 {
                self.images.remove(image);
                left.push(image.clone());
            }
        }
    }

    fn take_happenings(&mut self, batch: &mut HostBatch, room: &mut Room) {
        if self.dropped > 0 {
            batch.happened.push(Happening::Gap {
                dropped: std::mem::take(&mut self.dropped),
                reason: "the store was away for longer than they could wait".to_owned(),
            });
        }
        while batch.happened.len() < HAPPENINGS && room.bytes > 0 {
            let Some(happening) = self.happened.pop_front() else {
                break;
            };
            room.bytes = room.bytes.saturating_sub(256);
            batch.happened.push(happening);
        }
    }
}
