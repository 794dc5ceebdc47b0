//! Drains on this machine's disk, for a door that starts, or goes on, without its store.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{MAX_ORDERS, NodeDoc};

/// The file's name inside `door.state_dir`.
const NAME: &str = "drains.json";
/// A larger file is none of ours.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// One order as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::registry) struct Kept {
    pub(super) doc: NodeDoc,
    /// The store does not have it yet.
    pub(super) unsynced: bool,
}

/// Where orders are kept between two lives of this door.
#[derive(Debug, Clone)]
pub(in crate::registry) struct StateFile {
    path: PathBuf,
}

impl StateFile {
    pub(in crate::registry) fn new(state_dir: &Path) -> Self {
        Self { path: state_dir.join(NAME) }
    }

    /// What the last life of this door kept; nothing, with a line in the log, where it cannot be read.
    pub(in crate::registry) fn load(&self) -> Vec<Kept> {
        let kept = match self.read() {
            Ok(kept) => kept,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "the drains kept on disk cannot be read");
                return Vec::new();
            }
        };
        kept.into_iter().take(MAX_ORDERS).collect()
    }

    fn read(&self) -> io::Result<Vec<Kept>> {
        if fs::metadata(&self.path)?.len() > MAX_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(serde_json::from_slice(&fs::read(&self.path)?)?)
    }

    /// Keeps these, and only these, from now on. A reader finds the old file or the new one, never half of one.
    pub(in crate::registry) fn store(&self, kept: &[Kept]) -> io::Result<()> {
        if let Some(dir) = self.path.parent() {
            fs::create_dir_all(dir)?;
        }
        let fresh = self.path.with_extension("json.new");
        let file = fs::File::create(&fresh)?;
        serde_json::to_writer(&file, kept)?;
        file.sync_all()?;
        fs::rename(&fresh, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::drain::{DrainOrder, DrainWish};

    #[test]
    fn what_was_kept_is_there_in_the_next_life_and_rubbish_is_not() {
        let dir = std::env::temp_dir().join(format!("forebay-state-{}-{:x}", std::process::id(), fastrand::u64(..)));
        let file = StateFile::new(&dir);
        assert_eq!(file.load(), []);
        let order = DrainOrder::of(None, &DrainWish::default(), 1_767_225_600_000).unwrap();
        let doc = NodeDoc {
            node: "edge-1".parse().unwrap(),
            revision: 3,
            changed_ms: 7,
            order: Some(order),
            moved: 1,
            failed: 0,
        };
        let kept = [Kept { doc, unsynced: true }];
        file.store(&kept).unwrap();
        assert_eq!(StateFile::new(&dir).load(), kept);
        fs::write(dir.join(NAME), "[{]").unwrap();
        assert_eq!(file.load(), []);
        file.store(&[]).unwrap();
        assert_eq!(file.load(), []);
        fs::remove_dir_all(dir).unwrap();
    }
}
