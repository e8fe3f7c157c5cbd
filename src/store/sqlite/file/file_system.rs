//! The file system of the store. SQLite needs a file system on which POSIX locks, shared memory maps and syncs work, and
//! the bridge one on which its lock excludes all other processes.

use std::path::Path;

use rustix::fs::StatFs;

use crate::store::Error;

/// How well a file system carries the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Suitability {
    Suitable,
    /// It can be on another machine, or on this one behind a layer that does not tell.
    Unknown(&'static str),
    Unsuitable(&'static str),
}

/// By the number that `statfs` returns for each file system; they are constants of Linux (`linux/magic.h`).
///
/// A clustered file system whose locks hold between machines, such as Lustre or GPFS, counts as suitable.
const fn suitability(magic: u32) -> Suitability {
    match magic {
        // EFS is NFS.
        0x6969 => Suitability::Unsuitable("NFS"),
        0x517B | 0xFF53_4D42 | 0xFE53_4D42 => Suitability::Unsuitable("SMB"),
        0x5346_414F | 0x6B41_4653 => Suitability::Unsuitable("AFS"),
        0x7375_7245 => Suitability::Unsuitable("Coda"),
        0x0102_1997 => Suitability::Unknown("9p"),
        0x6573_5546 => Suitability::Unknown("FUSE"),
        0x00C3_6400 => Suitability::Unknown("Ceph"),
        _ => Suitability::Suitable,
    }
}

/// Refuses a remote file system, and warns about one that may be remote. One that cannot be asked is accepted.
pub(super) fn check(path: &Path, found: rustix::io::Result<StatFs>) -> Result<(), Error> {
    let Ok(found) = found else { return Ok(()) };
    // The type of the field differs between machines, and the number has 32 bits on all of them.
    refuse(path, suitability(found.f_type as u32))
}

fn refuse(path: &Path, suitability: Suitability) -> Result<(), Error> {
    let path = path.display();
    match suitability {
        Suitability::Suitable => Ok(()),
        Suitability::Unknown(file_system) => {
            tracing::warn!(
                store = %path,
                file_system,
                "the store may be on another machine; if so, move it to a local disk or block storage"
            );
            Ok(())
        }
        Suitability::Unsuitable(file_system) => Err(Error::Unusable(format!(
            "the store {path} is on {file_system}, where SQLite's locks, shared memory and syncs cannot be relied on: \
             events could be lost, or the file be damaged; set `store.sqlite.path` to a file on a local disk or on block \
             storage, such as an EBS volume"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_file_systems_are_refused_with_the_reason_and_the_fix() {
        for (magic, name) in [(0x6969, "NFS"), (0xFE53_4D42, "SMB"), (0xFF53_4D42, "SMB"), (0x517B, "SMB")] {
            let error = refuse(Path::new("data/bridge.db"), suitability(magic)).unwrap_err().to_string();
            assert!(error.contains(&format!("the store data/bridge.db is on {name}")), "{error}");
            assert!(error.contains("`store.sqlite.path`"), "{error}");
        }
    }

    #[test]
    fn local_file_systems_are_accepted() {
        // ext4, XFS, Btrfs, tmpfs, overlayfs, ZFS.
        for magic in [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994, 0x794C_7630, 0x2FC1_2FC1] {
            assert_eq!(suitability(magic), Suitability::Suitable, "{magic:#x}");
        }
        check(Path::new("."), rustix::fs::statfs("/dev/shm")).unwrap();
    }
}
