//! A disk that can be full.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small file system of its own, mounted in the test's directory.
pub(crate) struct Disk {
    mount_point: PathBuf,
}

impl Disk {
    /// Mounts one of so many MiB; an error where the test may not.
    pub(crate) fn mount(at: &Path, mebibytes: u32) -> io::Result<Self> {
        fs::create_dir_all(at)?;
        let size = format!("size={mebibytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output()?;
        if mounted.status.success() {
            return Ok(Self { mount_point: at.to_owned() });
        }
        Err(io::Error::other(String::from_utf8_lossy(&mounted.stderr).into_owned()))
    }

    /// Leaves no space.
    pub(crate) fn fill(&self) {
        let mut filler = File::create(self.filler()).expect("a file");
        for step in [1 << 20, 4096] {
            let zeros = vec![0; step];
            let full = (0..).find_map(|_| filler.write_all(&zeros).err()).expect("an error");
            assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        }
    }

    /// There is space again.
    pub(crate) fn free(&self) {
        fs::remove_file(self.filler()).expect("it was full");
    }

    fn filler(&self) -> PathBuf {
        self.mount_point.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: the bridge may outlive it by a moment.
        let _ = Command::new("umount").arg("-l").arg(&self.mount_point).status();
    }
}
