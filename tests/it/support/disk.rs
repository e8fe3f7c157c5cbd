//! A file system that a test can fill.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small tmpfs, mounted in the test's directory.
pub(crate) struct Disk {
    mount_point: PathBuf,
}

impl Disk {
    /// Mounts a tmpfs of `mebibytes` MiB. `None` if mounting is not permitted, so that the test is skipped;
    /// in CI that is a failure.
    pub(crate) fn mount(at: &Path, mebibytes: u32) -> Option<Self> {
        fs::create_dir_all(at).expect("a directory");
        let size = format!("size={mebibytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output();
        let mounted = mounted.expect("the command mount");
        if mounted.status.success() {
            return Some(Self { mount_point: at.to_owned() });
        }
        let error = String::from_utf8_lossy(&mounted.stderr);
        assert!(
            std::env::var_os("CI").is_none(),
            "cannot mount a file system, and CI must not skip: {error}"
        );
        eprintln!("skipped, cannot mount a file system: {error}");
        None
    }

    /// Uses up all free space.
    pub(crate) fn fill(&self) {
        let mut filler = File::create(self.filler()).expect("a file");
        for step in [1 << 20, 4096] {
            let zeros = vec![0; step];
            let full = (0..).find_map(|_| filler.write_all(&zeros).err()).expect("an error");
            assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        }
    }

    /// Releases the space that [`Disk::fill`] used up.
    pub(crate) fn free(&self) {
        fs::remove_file(self.filler()).expect("a filler file");
    }

    fn filler(&self) -> PathBuf {
        self.mount_point.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazy unmount: the bridge may still have files open.
        let _ = Command::new("umount").arg("-l").arg(&self.mount_point).status();
    }
}
