//! Hears of changes to the configuration's file, however they are made: written in place, renamed over it, or swapped
//! behind a link, as Kubernetes does with a directory of it.

use std::{
    future::pending,
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::{sync::mpsc, time::timeout};

/// A change counts once nothing more has happened for so long: editors write in several steps.
const QUIET: Duration = Duration::from_millis(200);
/// However busy the directory is, a change waits no longer.
const LONGEST: Duration = Duration::from_secs(2);

/// Watches one file.
pub(super) struct FileWatch {
    file: PathBuf,
    /// As it was read last.
    text: Option<String>,
    /// Something happened in the directory; one note is as good as many.
    happened: mpsc::Receiver<()>,
    /// Ends with this. Failed: the system has no more watches, and only SIGHUP reloads.
    watcher: notify::Result<RecommendedWatcher>,
}

impl FileWatch {
    /// Begins; the file as it is now is the one that is known.
    pub(super) fn new(file: &Path) -> Self {
        let (note, happened) = mpsc::channel(1);
        let watcher = watcher(file, note);
        Self { file: file.to_owned(), text: read(file), happened, watcher }
    }

    /// Says so if nothing will be heard: once there is a log.
    pub(super) fn tell_trouble(&self) {
        if let Err(error) = &self.watcher {
            tracing::warn!(%error, "changes of the configuration cannot be watched; SIGHUP still reloads it");
        }
    }

    /// Waits until the file has another content. Cancel safe.
    pub(super) async fn changed(&mut self) {
        loop {
            if self.happened.recv().await.is_none() {
                return pending().await;
            }
            let quiet = async { while timeout(QUIET, self.happened.recv()).await.is_ok_and(|note| note.is_some()) {} };
            // Busy or not, it is looked at now.
            let _ = timeout(LONGEST, quiet).await;
            // A file that is gone for the moment is not a change.
            if let Some(text) = read(&self.file)
                && self.text.as_ref() != Some(&text)
            {
                self.text = Some(text);
                return;
            }
        }
    }

    /// The file is read for another reason: what it says now is known.
    pub(super) fn known(&mut self) {
        self.text = read(&self.file).or_else(|| self.text.take());
    }
}

fn watcher(file: &Path, note: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        // To look at the file is no change; this process does so itself.
        if event.is_ok_and(|event| !matches!(event.kind, EventKind::Access(_))) {
            // One that waits already says the same.
            let _ = note.try_send(());
        }
    })?;
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    watcher.watch(directory, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

fn read(file: &Path) -> Option<String> {
    std::fs::read_to_string(file).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("forebay-watch-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    async fn hears(watch: &mut FileWatch) -> bool {
        timeout(Duration::from_secs(10), watch.changed()).await.is_ok()
    }

    #[tokio::test]
    async fn a_file_that_is_written_renamed_over_or_swapped_behind_a_link_is_a_change() {
        let dir = Dir::new("ways");
        let path = |name: &str| dir.0.join(name);
        std::fs::write(path("a.toml"), "one").unwrap();
        let mut watch = FileWatch::new(&path("a.toml"));
        std::fs::write(path("a.toml"), "two").unwrap();
        assert!(hears(&mut watch).await, "written in place");
        std::fs::write(path("new"), "three").unwrap();
        std::fs::rename(path("new"), path("a.toml")).unwrap();
        assert!(hears(&mut watch).await, "renamed over");

        std::fs::write(path("v1"), "four").unwrap();
        std::fs::write(path("v2"), "five").unwrap();
        std::os::unix::fs::symlink("v1", path("link.toml")).unwrap();
        let mut watch = FileWatch::new(&path("link.toml"));
        std::os::unix::fs::symlink("v2", path("tmp")).unwrap();
        std::fs::rename(path("tmp"), path("link.toml")).unwrap();
        assert!(hears(&mut watch).await, "swapped behind a link");
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_content_and_other_files_are_no_change() {
        let dir = Dir::new("same");
        let path = |name: &str| dir.0.join(name);
        std::fs::write(path("a.toml"), "one").unwrap();
        let mut watch = FileWatch::new(&path("a.toml"));
        std::fs::write(path("a.toml"), "one").unwrap();
        std::fs::write(path("b.toml"), "two").unwrap();
        assert!(!hears(&mut watch).await);
        std::fs::write(path("a.toml"), "two").unwrap();
        watch.known();
        assert!(!hears(&mut watch).await, "it was read for another reason");
    }
}
