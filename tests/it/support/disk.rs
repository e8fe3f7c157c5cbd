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
    /// Mounts a tmpfs of `mebibytes` MiB; returns an error if the test has no permission to mount.
    pub(crate) fn mount(at: &Path, mebibytes: u32) -> io::Result<Self> {
        fs::create_dir_all(at)?;
        let size = format!("size={mebibytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output()?;
        if mounted.status.success() {
            return Ok(Self { mount_point: at.to_owned() });
        }
        Err(io::Error::other(String::from_utf8_lossy(&mounted.stderr).into_owned()))
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
