//! The compact table under the record cache. Moka costs about 300 bytes per entry before key and value, which the budget
//! of a million records does not have; here a record costs its fields, its name and two small indexes.
//!
//! When the table is full, a new stream takes the place of one that was not used since the hand last passed it (the
//! clock algorithm): such a stream is read again when somebody asks for it.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
};

use super::store::DocId;
use crate::domain::{cache_policy::Entry, ids::StreamKey};

/// Entries by stream, and by document for those that know theirs.
#[derive(Debug)]
pub(super) struct Table {
    /// A keyed hash of the name → slot. Two names with one 64-bit hash share a slot, and the later one has it.
    by_name: HashMap<u64, u32>,
    by_doc: HashMap<DocId, u32>,
    slots: Vec<Slot>,
    capacity: usize,
    hand: usize,
}

#[derive(Debug)]
struct Slot {
    /// `app/stream`
    name: Box<str>,
    hash: u64,
    doc: Option<DocId>,
    entry: Entry,
    /// Asked for since the hand last passed.
    used: bool,
    /// Changes may have been missed: to be read again as soon as the store can.
    doubted: bool,
}

/// An entry, and whether changes of it may have been missed.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) entry: Entry,
    pub(super) doubted: bool,
}

/// Names one stream in every table.
#[derive(Debug, Clone)]
pub(super) struct Name {
    text: Box<str>,
    hash: u64,
}

impl Name {
    pub(super) fn new(key: &StreamKey, seed: &RandomState) -> Self {
        let text = key.to_string().into_boxed_str();
        Self { hash: seed.hash_one(&*text), text }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }
}

impl Table {
    /// A table of at most `capacity` entries (at least one).
    pub(super) fn new(capacity: usize) -> Self {
        let capacity = capacity.clamp(1, u32::MAX as usize);
        Self { by_name: HashMap::new(), by_doc: HashMap::new(), slots: Vec::new(), capacity, hand: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn get(&mut self, name: &Name) -> Option<Held> {
        let at = self.find(name)?;
        let slot = &mut self.slots[at];
        slot.used = true;
        Some(Held { entry: slot.entry.clone(), doubted: slot.doubted })
    }

    /// Sets the entry of a stream to what `change` makes of the one that is there. `doc` replaces what was known of its
    /// document, if there is one; an answer of the store (`settles`) ends all doubt.
    pub(super) fn put(
        &mut self,
        name: Name,
        doc: Option<DocId>,
        settles: bool,
        change: impl FnOnce(Option<&Entry>) -> Entry,
    ) -> Entry {
        let Some(at) = self.find(&name) else {
            let entry = change(None);
            let slot = Slot { name: name.text, hash: name.hash, doc, entry, used: true, doubted: !settles };
            return self.add(slot);
        };
        let slot = &mut self.slots[at];
        slot.entry = change(Some(&slot.entry));
        slot.used = true;
        slot.doubted &= !settles;
        let (entry, known) = (slot.entry.clone(), slot.doc);
        if doc.is_some() && doc != known {
            self.slots[at].doc = doc;
            self.forget_doc(known, at);
            self.learn_doc(doc, at);
        }
        entry
    }

    /// Changes the entry whose document this is; gives its name (`app/stream`). Counts as an answer of the store.
    pub(super) fn change_doc(&mut self, doc: DocId, change: impl FnOnce(&Entry) -> Entry) -> Option<Box<str>> {
        let at = *self.by_doc.get(&doc)? as usize;
        let slot = &mut self.slots[at];
        slot.entry = change(&slot.entry);
        Some(slot.name.clone())
    }

    /// Whether this stream has an entry.
    pub(super) fn holds(&self, name: &Name) -> bool {
        self.find(name).is_some()
    }

    /// Doubts every entry whose name starts so.
    pub(super) fn doubt(&mut self, prefix: &str) {
        for slot in self.slots.iter_mut().filter(|slot| slot.name.starts_with(prefix)) {
            slot.doubted = true;
        }
    }

    fn find(&self, name: &Name) -> Option<usize> {
        let at = *self.by_name.get(&name.hash)? as usize;
        (self.slots[at].name == name.text).then_some(at)
    }

    fn add(&mut self, slot: Slot) -> Entry {
        let (entry, doc, hash) = (slot.entry.clone(), slot.doc, slot.hash);
        // A namesake by hash is the one to go: one index entry cannot point at two slots.
        let at = match self.by_name.get(&hash) {
            Some(&namesake) => self.replace(namesake as usize, slot),
            None if self.slots.len() < self.capacity => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
            None => {
                let victim = self.victim();
                self.replace(victim, slot)
            }
        };
        self.by_name.insert(hash, index(at));
        self.learn_doc(doc, at);
        entry
    }

    fn replace(&mut self, at: usize, slot: Slot) -> usize {
        let gone = std::mem::replace(&mut self.slots[at], slot);
        self.by_name.remove(&gone.hash);
        self.forget_doc(gone.doc, at);
        at
    }

    /// The next slot that was not used since the hand last passed it; every slot is passed at most once.
    fn victim(&mut self) -> usize {
        for _ in 0..self.slots.len() {
            let at = self.hand;
            self.hand = (self.hand + 1) % self.slots.len();
            if !std::mem::take(&mut self.slots[at].used) {
                return at;
            }
        }
        self.hand
    }

    fn learn_doc(&mut self, doc: Option<DocId>, at: usize) {
        if let Some(doc) = doc {
            self.by_doc.insert(doc, index(at));
        }
    }

    fn forget_doc(&mut self, doc: Option<DocId>, at: usize) {
        if let Some(doc) = doc
            && self.by_doc.get(&doc) == Some(&index(at))
        {
            self.by_doc.remove(&doc);
        }
    }
}

fn index(at: usize) -> u32 {
    u32::try_from(at).expect("the capacity fits 32 bits")
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::domain::cache_policy::CachePolicy;

    fn names(count: usize) -> Vec<Name> {
        let seed = RandomState::new();
        let key = |n| StreamKey { app: "LiveApp".parse().unwrap(), stream: format!("s{n}").parse().unwrap() };
        (0..count).map(|n| Name::new(&key(n), &seed)).collect()
    }

    fn missing(before: Option<&Entry>) -> Entry {
        CachePolicy::default().read(before, None, Instant::now(), 0)
    }

    #[test]
    fn a_full_table_gives_the_place_of_a_stream_that_nobody_used() {
        let mut table = Table::new(3);
        let names = names(4);
        for (n, name) in names[..3].iter().enumerate() {
            table.put(name.clone(), Some(DocId([u8::try_from(n).unwrap(); 12])), true, missing);
        }
        for slot in &mut table.slots {
            slot.used = false;
        }
        table.get(&names[0]);
        table.put(names[3].clone(), Some(DocId([9; 12])), true, missing);

        assert_eq!(table.len(), 3);
        assert!(table.holds(&names[0]) && table.holds(&names[3]));
        assert!(!table.holds(&names[1]), "the first one that was not used since");
        assert_eq!(table.change_doc(DocId([1; 12]), Entry::clone), None, "its document is forgotten with it");
        assert!(table.change_doc(DocId([9; 12]), Entry::clone).is_some());
    }

    #[test]
    fn a_full_table_in_which_all_are_used_still_takes_a_new_stream() {
        let mut table = Table::new(2);
        for name in names(50) {
            table.put(name.clone(), None, true, missing);
            assert!(table.holds(&name) && table.len() <= 2);
        }
        assert_eq!((table.by_name.len(), table.by_doc.len()), (2, 0));
    }

    #[test]
    fn a_recreated_document_replaces_the_old_one() {
        let (mut table, name) = (Table::new(2), names(1).remove(0));
        table.put(name.clone(), Some(DocId([1; 12])), true, missing);
        table.put(name.clone(), Some(DocId([2; 12])), true, missing);
        assert_eq!(table.change_doc(DocId([1; 12]), Entry::clone), None);
        assert_eq!(table.change_doc(DocId([2; 12]), Entry::clone).as_deref(), Some("LiveApp/s0"));
    }

    #[test]
    fn doubt_ends_with_the_next_answer_of_the_store() {
        let (mut table, name) = (Table::new(2), names(1).remove(0));
        table.put(name.clone(), None, true, missing);
        table.doubt("LiveApp/");
        assert!(table.get(&name).unwrap().doubted);
        table.put(name.clone(), None, false, missing);
        assert!(table.get(&name).unwrap().doubted, "a hint is no answer of the store");
        table.put(name.clone(), None, true, missing);
        assert!(!table.get(&name).unwrap().doubted);
    }
}
