//! One process holds a store. INVARIANT: while a `ProcessLock` lives, no other process has one for the same path; the
//! kernel drops it with the process, however that ends.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::StoreError;

pub(super) struct ProcessLock {
    _file: File,
}

impl ProcessLock {
    pub(super) fn take(path: &Path) -> Result<Self, StoreError> {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path)
            .map_err(|source| StoreError::io("opening the store's lock file", source))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| StoreError::Refused("another process holds this store".to_owned()))?;
        Ok(Self { _file: file })
    }
}
