//! A table whose entries keep their index: what maps and lists of the relay point into.

/// Entries by index; a freed index is used again.
#[derive(Debug)]
pub(super) struct Slab<T> {
    cells: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub(super) fn new() -> Self {
        Self { cells: Vec::new(), free: Vec::new() }
    }

    /// Entries that are there.
    pub(super) fn len(&self) -> usize {
        self.cells.len() - self.free.len()
    }

    /// Every index that may hold an entry is below this.
    pub(super) fn end(&self) -> u32 {
        u32::try_from(self.cells.len()).expect("the table's bound is far below 2^32")
    }

    pub(super) fn insert(&mut self, value: T) -> u32 {
        if let Some(index) = self.free.pop() {
            self.cells[index as usize] = Some(value);
            return index;
        }
        let index = self.end();
        self.cells.push(Some(value));
        index
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<T> {
        let value = self.cells.get_mut(index as usize)?.take()?;
        self.free.push(index);
        Some(value)
    }

    pub(super) fn get(&self, index: u32) -> Option<&T> {
        self.cells.get(index as usize)?.as_ref()
    }
}

/// An index that the relay's own tables hold always has an entry: whoever removes the entry removes the index.
impl<T> std::ops::Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, index: u32) -> &T {
        self.cells[index as usize].as_ref().expect("the tables point only at entries that are there")
    }
}

impl<T> std::ops::IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, index: u32) -> &mut T {
        self.cells[index as usize].as_mut().expect("the tables point only at entries that are there")
    }
}
