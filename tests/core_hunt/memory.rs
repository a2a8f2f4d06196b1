//! What root sees of a process: its memory, mapping by mapping, and the core that gdb writes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use strongroom::crypto::hunt::{Found, Hunter};

const PIECE: usize = 1 << 20;

/// What was found, and in what.
#[derive(Default, Debug)]
pub struct Hunt {
    /// Bytes looked at.
    pub read: usize,
    /// Bytes that are mapped and that even root cannot read.
    pub refused: usize,
    /// By the name of the mapping; those that a core leaves out are marked so.
    pub found: BTreeMap<String, BTreeSet<Found>>,
    /// Whether something was seen that is surely there: else nothing proves that the hunt saw anything.
    pub saw: bool,
}

impl Hunt {
    fn look(&mut self, hunter: &Hunter, surely: &[u8], place: &str, bytes: &[u8]) {
        self.read += bytes.len();
        self.saw |= bytes.windows(surely.len()).any(|window| window == surely);
        let found = hunter.find(bytes);
        if !found.is_empty() {
            self.found.entry(place.to_owned()).or_default().extend(found);
        }
    }
}

/// Marks a mapping that a core leaves out.
pub const LEFT_OUT: &str = "left out of cores: ";

/// Everything that is mapped and can be read, a core's contents among it.
pub fn hunt_memory(pid: u32, hunter: &Hunter, surely: &[u8]) -> Hunt {
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut hunt = Hunt::default();
    for mapping in mappings(&fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap()) {
        let mut bytes = Vec::new();
        while bytes.len() < mapping.length {
            let at = bytes.len();
            bytes.resize(mapping.length.min(at + PIECE), 0);
            if memory.read_exact_at(&mut bytes[at..], mapping.start + at as u64).is_err() {
                bytes.truncate(at);
                break;
            }
        }
        hunt.refused += mapping.length - bytes.len();
        hunt.look(hunter, surely, &mapping.name, &bytes);
    }
    hunt
}

struct Mapping {
    start: u64,
    length: usize,
    name: String,
}

/// The readable ones.
fn mappings(smaps: &str) -> Vec<Mapping> {
    let mut found: Vec<Mapping> = Vec::new();
    let mut readable = false;
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap();
        if let Some((start, end)) = first.split_once('-') {
            let [start, end] = [start, end].map(|digits| u64::from_str_radix(digits, 16).unwrap());
            readable = words.next().unwrap().starts_with('r');
            let name = words.nth(3).unwrap_or("anonymous").to_owned();
            if readable {
                found.push(Mapping { start, length: usize::try_from(end - start).unwrap(), name });
            }
        } else if first == "VmFlags:" && readable && words.any(|flag| flag == "dd") {
            let mapping = found.last_mut().unwrap();
            mapping.name = format!("{LEFT_OUT}{}", mapping.name);
        }
    }
    assert!(found.len() > 10, "no process has so few mappings");
    found
}

/// A core as root takes it of a process that lives. `None`: there is no gdb here, or it may not.
pub fn hunt_core(pid: u32, folder: &Path, hunter: &Hunter, surely: &[u8]) -> Option<Hunt> {
    let output = Command::new("gcore").arg("-o").arg(folder.join("core")).arg(pid.to_string()).output().ok()?;
    let path = folder.join(format!("core.{pid}"));
    if !output.status.success() || !path.exists() {
        println!("skipped: gcore took no core: {}", String::from_utf8_lossy(&output.stderr));
        return None;
    }
    let bytes = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let mut hunt = Hunt::default();
    hunt.look(hunter, surely, "core", &bytes);
    Some(hunt)
}
