//! The architecture, asserted over the source: imports go down only, and house rules that no lint knows.

#![expect(clippy::unwrap_used, reason = "a source tree that cannot be read fails its test")]

use std::fs;
use std::path::{Path, PathBuf};

/// From the bottom up; a module may import those before it and itself.
const LAYERS: [&str; 10] =
    ["domain", "policy", "crypto", "audit", "store", "vault", "rpc", "telemetry", "config", "cli"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
}

fn all_sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    sources(Path::new("src"), &mut found);
    assert!(found.len() > 50, "the scan has lost the source tree");
    found.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

fn layer_of(path: &Path) -> Option<usize> {
    let first = path.strip_prefix("src").unwrap().components().next().unwrap();
    let name = Path::new(first.as_os_str()).file_stem().unwrap().to_str().unwrap().to_owned();
    LAYERS.iter().position(|layer| *layer == name)
}

/// Every `crate::<module>` that the text names, with its line.
fn imports(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for rest in line.split("crate::").skip(1) {
            let name: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            if !name.is_empty() {
                found.push((number + 1, name));
            }
        }
    }
    found
}

fn upward(path: &Path, text: &str) -> Vec<String> {
    let Some(own) = layer_of(path) else { return Vec::new() };
    let allowed = |name: &str| LAYERS.iter().position(|layer| *layer == name).is_none_or(|layer| layer <= own);
    let bad = imports(text).into_iter().filter(|(_, name)| !allowed(name));
    bad.map(|(line, name)| format!("{}:{line} imports {name}", path.display())).collect()
}

#[test]
fn imports_go_down_only() {
    let bad: Vec<_> = all_sources().iter().flat_map(|(path, text)| upward(path, text)).collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

#[test]
fn an_upward_import_is_found() {
    let planted = "use crate::domain::id::TenantId;\nuse crate::vault::Vault;\n";
    assert_eq!(upward(Path::new("src/store/rows.rs"), planted), ["src/store/rows.rs:2 imports vault"]);
}

#[test]
fn sql_is_spoken_in_the_store_alone() {
    for (path, text) in all_sources() {
        if !path.to_str().unwrap().starts_with("src/store") {
            assert!(!text.contains("rusqlite"), "{} speaks to the database", path.display());
        }
    }
}

/// What verifies an export must not repeat a mistake of what wrote it.
#[test]
fn the_offline_verifier_shares_no_code_with_the_vault() {
    let verifier = Path::new("src/cli/audit");
    let own: Vec<_> =
        all_sources().into_iter().filter(|(path, _)| path.starts_with(verifier.join("offline"))).collect();
    let root = verifier.join("offline.rs");
    let own = own.into_iter().chain([(root.clone(), fs::read_to_string(root).unwrap())]);
    assert_eq!(own.map(|(path, text)| borrowed(&path, &text)).inspect(|found| assert_eq!(*found, [""; 0])).count(), 6);
    let planted = "use crate::audit::tree::leaf_hash;\nuse super::super::Args;\n";
    assert_eq!(borrowed(Path::new("offline/x.rs"), planted).len(), 2);
}

/// What a file of the verifier takes from outside it.
fn borrowed(path: &Path, text: &str) -> Vec<String> {
    let climbs = if path.ends_with("offline.rs") { "super::" } else { "super::super" };
    let bad = text.lines().filter(|line| line.contains("crate::") || line.contains(climbs));
    bad.map(|line| format!("{}: {line}", path.display())).collect()
}

#[test]
fn lints_are_expected_never_allowed_and_nothing_is_left_to_do() {
    for (path, text) in all_sources() {
        for word in ["#[allow(", "#![allow(", "todo!(", "unimplemented!(", "FIXME", "XXX"] {
            assert!(!text.contains(word), "{} says {word}", path.display());
        }
    }
}

#[test]
fn memory_is_touched_unsafely_in_one_module_alone() {
    for (path, text) in all_sources() {
        let unsafe_code = text.lines().any(|line| !line.trim_start().starts_with("//") && line.contains("unsafe"));
        assert_eq!(unsafe_code, path == Path::new("src/crypto/locked.rs"), "{}", path.display());
    }
}

#[test]
fn every_unsafe_block_says_why_it_is_sound() {
    let text = fs::read_to_string("src/crypto/locked.rs").unwrap();
    let lines: Vec<_> = text.lines().collect();
    for (number, line) in lines.iter().enumerate() {
        if line.contains("unsafe {") || line.starts_with("unsafe impl") {
            let mut above = lines[..number].iter().rev().take_while(|line| line.trim_start().starts_with("//"));
            assert!(above.any(|line| line.contains("SAFETY:")), "line {}", number + 1);
        }
    }
}

#[test]
fn every_file_opens_with_its_purpose() {
    for (path, text) in all_sources() {
        // A file of tests belongs to the module beside it.
        assert!(path.ends_with("tests.rs") || text.starts_with("//!"), "{} has no module doc", path.display());
    }
}
