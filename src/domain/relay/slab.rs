//! A table whose entries keep their index: what maps and lists of the relay point into.

/// Entries of one chunk: the table grows by this much, and never moves or doubles what it holds.
const CHUNK: usize = 256;

/// Entries by index; a freed index is used again.
#[derive(Debug)]
pub(super) struct Slab<T> {
    chunks: Vec<Vec<Option<T>>>,
    free: Vec<u32>,
    end: u32,
}

impl<T> Slab<T> {
    pub(super) fn new() -> Self {
        Self { chunks: Vec::new(), free: Vec::new(), end: 0 }
    }

    /// Entries that are there.
    pub(super) fn len(&self) -> usize {
        self.end as usize - self.free.len()
    }

    /// Every index that may hold an entry is below this.
    pub(super) fn end(&self) -> u32 {
        self.end
    }

    pub(super) fn insert(&mut self, value: T) -> u32 {
        if let Some(index) = self.free.pop() {
            self.chunks[index as usize / CHUNK][index as usize % CHUNK] = Some(value);
            return index;
        }
        let index = self.end;
        if self.chunks.len() * CHUNK == index as usize {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        self.chunks[index as usize / CHUNK].push(Some(value));
        self.end += 1;
        index
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<T> {
        let value = self.chunks.get_mut(index as usize / CHUNK)?.get_mut(index as usize % CHUNK)?.take()?;
        self.free.push(index);
        Some(value)
    }

    pub(super) fn get(&self, index: u32) -> Option<&T> {
        self.chunks.get(index as usize / CHUNK)?.get(index as usize % CHUNK)?.as_ref()
    }
}

/// An index that the relay's own tables hold always has an entry: whoever removes the entry removes the index.
impl<T> std::ops::Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, index: u32) -> &T {
        self.get(index).expect("the tables point only at entries that are there")
    }
}

impl<T> std::ops::IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, index: u32) -> &mut T {
        let chunk = &mut self.chunks[index as usize / CHUNK];
        chunk[index as usize % CHUNK].as_mut().expect("the tables point only at entries that are there")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_keep_their_index_and_freed_ones_are_used_again() {
        let mut slab = Slab::new();
        let all: Vec<u32> = (0..1000).map(|n| slab.insert(n)).collect();
        assert!((0..1000).all(|n| slab[all[n]] == n));

        assert_eq!(slab.remove(all[300]), Some(300));
        assert_eq!(slab.remove(all[300]), None);
        assert_eq!((slab.get(all[300]), slab.len(), slab.end()), (None, 999, 1000));
        assert_eq!(slab.insert(7), all[300]);
        assert_eq!((slab[all[300]], slab[all[999]]), (7, 999));
    }
}
