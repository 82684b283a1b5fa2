//! Where configurations and sockets are: a folder that goes with the program, however that ends.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process;
use std::process::Command;
use std::process::Stdio;
use std::thread;

use tokio::runtime::Builder;
use tokio::signal::ctrl_c;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Not below `target`, whose path may be too long for a socket, and closed to user postfix.
    pub(crate) fn new() -> Result<Self, String> {
        let path = std::env::temp_dir().join(format!("postward-load.{}", process::id()));
        fs::create_dir_all(&path).map_err(|error| format!("cannot make {}: {error}", path.display()))?;
        let folder = Self(path);
        folder.watch_for_signals()?;
        Ok(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// On Ctrl-C, nothing is left behind. The servers are killed by the kernel, since this is their parent.
    fn watch_for_signals(&self) -> Result<(), String> {
        let failed = |error| format!("cannot watch for signals: {error}");
        let path = self.0.clone();
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let entered = runtime.enter();
        let mut terminated = signal(SignalKind::terminate()).map_err(failed)?;
        drop(entered);
        thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! { _ = ctrl_c() => {}, _ = terminated.recv() => {} }
            });
            clean_up(&path);
            process::exit(130);
        });
        Ok(())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        clean_up(&self.0);
    }
}

/// Stops what MTAs still run in there, then removes all.
fn clean_up(path: &Path) {
    for (mta, folder) in [("postfix", "p"), ("sendmail", "s")] {
        let instances = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
        let prefix = format!("{folder}-");
        let named = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix));
        for instance in instances.filter(named) {
            let _ = script(mta).arg("stop").arg(instance).stdin(Stdio::null()).status();
        }
    }
    let _ = fs::remove_dir_all(path);
}

/// What starts and stops private MTAs.
pub(crate) fn script(mta: &str) -> Command {
    Command::new(format!("{}/tests/mta/{mta}-instance", env!("CARGO_MANIFEST_DIR")))
}
