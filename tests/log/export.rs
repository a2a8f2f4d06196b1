//! Exports and their offline verifier.

use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use strongroom::audit::entry::{Action, Entry, RefusalCode};
use strongroom::cli::audit::{code_names, verify_bytes};
use strongroom::crypto::entropy::SeededEntropy;
use strongroom::domain::caller::Role;
use strongroom::domain::time::HOUR;
use strongroom::domain::vocabulary::{Class, Field, Outcome, Purpose};
use strongroom::rpc::proto::{ExportRequest, RejectRequest};
use tonic::Code;

use super::{Dice, append, approve, export_of, exported, full, head, people, seed};
use crate::common::House;

/// A log of two sections and some, its export, and its key.
fn told(entries: u64) -> (House, String, String) {
    let house = House::new();
    append(&house, 0..entries);
    let export = export_of(&house, 0);
    let (_, key) = head(&house);
    (house, export, key)
}

fn flaw(export: &str, key: &str) -> (Option<u64>, String) {
    let (_, entry, what) = verify_bytes(export.as_bytes(), key, "", None).unwrap_err();
    (entry, what)
}

/// The export's lines with their newlines, and where the line of an entry is.
fn lines(export: &str) -> Vec<&str> {
    export.split_inclusive('\n').collect()
}

fn line_of(export: &str, entry: u64) -> usize {
    let start = format!("{{\"entry\":{entry},");
    lines(export).iter().position(|line| line.starts_with(&start)).unwrap()
}

#[test]
fn an_export_verifies_with_the_public_key_alone_and_shows_no_other_tenants_entry() {
    let (_house, export, key) = told(600);
    let shown = verify_bytes(export.as_bytes(), &key, "", None).unwrap();
    assert_eq!(shown, lines(&export).iter().filter(|line| line.starts_with("{\"entry\"")).count() as u64);
    assert!(shown > 400 && !export.contains("rival"));
    let other = House::new();
    let (_, other) = head(&other);
    assert_eq!(flaw(&export, &other).1, "the checkpoint is not signed by this key");
}

fn mutated(export: &[u8], dice: &Dice) -> Vec<u8> {
    let mut bytes = export.to_vec();
    let at = dice.below(bytes.len());
    let lines = || -> Vec<Vec<u8>> { export.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect() };
    let two = |lines: &[Vec<u8>]| (dice.below(lines.len()), dice.below(lines.len()));
    match dice.below(10) {
        0 | 1 => bytes[at] ^= 1 << dice.below(8),
        2 => bytes[at] = u8::try_from(dice.below(256)).unwrap(),
        3 => bytes.insert(at, u8::try_from(dice.below(256)).unwrap()),
        4 => drop(bytes.remove(at)),
        5 => bytes.truncate(at),
        6 => bytes.swap(at, dice.below(export.len())),
        7 => {
            let mut lines = lines();
            let (one, other) = two(&lines);
            lines.swap(one, other);
            bytes = lines.concat();
        }
        8 => {
            let mut lines = lines();
            let (from, to) = two(&lines);
            lines.insert(to, lines[from].clone());
            bytes = lines.concat();
        }
        _ => {
            let mut lines = lines();
            lines.remove(two(&lines).0);
            bytes = lines.concat();
        }
    }
    bytes
}

#[test]
fn every_one_of_10_000_random_mutations_of_the_raw_bytes_is_found() {
    let (_house, export, key) = told(300);
    assert!(verify_bytes(export.as_bytes(), &key, "", None).is_ok());
    let (seed, count) = (seed(), if full() { 100_000 } else { 10_000 });
    let found = AtomicUsize::new(0);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    let dice = Dice(SeededEntropy::new(seed.wrapping_add(number as u64)));
                    let mut bytes = mutated(export.as_bytes(), &dice);
                    while bytes == export.as_bytes() {
                        bytes = mutated(export.as_bytes(), &dice);
                    }
                    let passed = verify_bytes(&bytes, &key, "", None);
                    assert!(passed.is_err(), "mutation {number} of seed {seed} went unnoticed");
                    found.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    println!("{} mutations of {} bytes, all found", found.load(Ordering::Relaxed), export.len());
    assert_eq!(found.into_inner(), count);
}

#[test]
fn the_first_flipped_cut_added_or_moved_entry_is_named() {
    let (_house, export, key) = told(600);
    let of = |entry: u64| lines(&export)[line_of(&export, entry)];
    let ours: Vec<u64> = (0..620).filter(|n| export.contains(&format!("{{\"entry\":{n},"))).collect();
    let with = |change: &dyn Fn(&mut Vec<String>)| {
        let mut changed: Vec<String> = lines(&export).iter().map(|line| (*line).to_owned()).collect();
        change(&mut changed);
        flaw(&changed.concat(), &key)
    };
    for pair in ours.chunks(2).filter(|pair| pair.len() == 2).step_by(17) {
        let (first, second) = (pair[0], pair[1]);
        let (at, next) = (line_of(&export, first), line_of(&export, second));
        // One flipped bit of what the entry says, in its bytes.
        let flipped = with(&|lines| {
            let place = lines[at].find("\"bytes\":\"").unwrap() + 24;
            let other = if lines[at].as_bytes()[place] == b'A' { "B" } else { "A" };
            lines[at].replace_range(place..=place, other);
        });
        assert_eq!(flipped, (Some(first), "the entry was altered".to_owned()));
        let words = with(&|lines| lines[at] = lines[at].replacen("\"at\":\"2026", "\"at\":\"2025", 1));
        assert_eq!(words.0, Some(first), "{}", words.1);
        assert!(words.1.starts_with("the words written for people"));
        assert_eq!(with(&|lines| drop(lines.remove(at))), (Some(first), "the entry is missing".to_owned()));
        let moved = with(&|lines| lines.swap(at, next));
        // In one section the first of the two is missed; where a section begins between them, its head is met first.
        assert_eq!(moved.0, Some(first), "{}", moved.1);
        let doubled = with(&|lines| lines.insert(next, of(first).to_owned()));
        assert!(doubled.0.is_some_and(|entry| entry == first || entry == second), "{doubled:?}");
    }
    // An own entry that is left out and passed off as another tenant's: only the signature knows.
    let early = usize::try_from(ours[2]).unwrap();
    let hidden = with(&|lines| {
        lines.remove(line_of(&export, ours[2]));
        let mut head: serde_json::Value = serde_json::from_str(&lines[1]).unwrap();
        let mut ours = STANDARD.decode(head["ours"].as_str().unwrap()).unwrap();
        ours[early / 8] &= !(0x80 >> (early % 8));
        head["ours"] = STANDARD.encode(ours).into();
        lines[1] = head.to_string() + "\n";
    });
    assert_eq!(hidden, (Some(0), "the section's signature is not good for it".to_owned()));
    let late = *ours.iter().find(|entry| **entry >= 300).unwrap();
    let cut = with(&|lines| lines.truncate(line_of(&export, late)));
    assert_eq!((cut.0, cut.1.as_str()), (Some(late), "the entry is missing"));
    // A section passed off as shorter: the head is not the one that leads to the checkpoint.
    let (at, told) = (1, lines(&export)[1]);
    let leaves = told.find("\"leaves\":\"").unwrap() + 10;
    let wrong =
        with(&|lines| lines[at].replace_range(leaves..=leaves, if &told[leaves..=leaves] == "A" { "B" } else { "A" }));
    assert_eq!(wrong.0, Some(0));
    assert!(wrong.1.contains("do not lead to the checkpoint"), "{}", wrong.1);
}

#[test]
fn a_fork_is_found_by_an_earlier_export_at_its_very_entry_and_by_earlier_heads() {
    let mut house = House::new();
    append(&house, 0..300);
    let before = export_of(&house, 0);
    let (early, key) = head(&house);
    house.clock.advance(HOUR);
    house.stop();
    let database = house.config.store.database.clone();
    let kept = std::fs::read(&database).unwrap();
    // The history that the world has seen …
    house.start();
    append(&house, 300..600);
    let seen = export_of(&house, 0);
    let (late, _) = head(&house);
    house.stop();
    // … and another one on top of the same beginning.
    std::fs::write(&database, &kept).unwrap();
    house.clock.advance(HOUR);
    house.start();
    let rolled_back = export_of(&house, 0);
    append(&house, 1_000..1_400);
    let forked = export_of(&house, 0);
    let verify = |known: &str, earlier: Option<&str>| {
        verify_bytes(forked.as_bytes(), &key, known, earlier.map(str::as_bytes))
            .map_err(|(_, entry, what)| (entry, what))
    };
    assert!(verify("", None).is_ok(), "alone it is a good log");
    assert!(verify(&early, Some(&before)).is_ok(), "it begins as it did");
    let common = lines(&seen).iter().zip(lines(&forked)).skip(2).take_while(|(one, other)| **one == *other).count();
    assert!(common > 100);
    let differs = |entry: u64| {
        let line = format!("{{\"entry\":{entry},");
        let of =
            |export: &str| lines(export).iter().find(|found| found.starts_with(&line)).map(|line| (*line).to_owned());
        of(&seen) != of(&forked)
    };
    let (entry, what) = verify("", Some(&seen)).unwrap_err();
    assert_eq!(what, "the entry is another than the one that is known: the log forked here");
    let entry = entry.unwrap();
    assert!((300..330).contains(&entry) && (0..entry).all(|entry| !differs(entry)), "{entry}");
    let (entry, what) = verify(&format!("{early}\n{late}"), None).unwrap_err();
    assert!(what.contains("forked") && entry.is_some_and(|entry| entry > 300), "{what}");
    // The early export is older than the late head, and says so; offered as newer than that, it shows that the rest is gone.
    assert!(verify_bytes(before.as_bytes(), &key, &late, None).is_ok());
    let (_, entry, what) = verify_bytes(rolled_back.as_bytes(), &key, &late, None).unwrap_err();
    assert!(what.contains("shorter than it was known") && entry.is_some_and(|entry| entry > 300), "{what}");
}

#[test]
fn an_export_takes_two_people_and_goes_on_after_a_cut_without_a_third() {
    let house = House::new();
    append(&house, 0..700);
    let request = ExportRequest { year: 0, from_entry: 0, size: 0 };
    let pending = exported(&house, request).unwrap().unwrap_err();
    assert_eq!(exported(&house, request).unwrap().unwrap_err(), pending, "asked again, it waits for the same word");
    let mut auditor = people::approvals(&house, Role::Auditor, "office");
    let own = house.run(auditor.reject(RejectRequest { approval_id: pending.clone() }));
    assert_eq!(own.unwrap_err().code(), Code::PermissionDenied, "an auditor decides nothing");
    approve(&house, pending);
    let parts = exported(&house, request).unwrap().unwrap();
    let (_, key) = head(&house);
    // Cut off behind the second section, it goes on under the head it began with.
    let (_, _, size) = {
        let note: Vec<&str> = parts[0].split("\\n").collect();
        ((), (), note[1].parse().unwrap())
    };
    append(&house, 700..900);
    let rest = exported(&house, ExportRequest { year: 0, from_entry: 512, size }).unwrap().unwrap();
    let whole = [&parts[0], &parts[1], &parts[2]].map(String::as_str).concat() + &rest[1..].concat();
    assert_eq!(whole, parts.concat());
    assert!(verify_bytes(whole.as_bytes(), &key, "", None).is_ok());
    // What begins later verifies alone, from its peaks on.
    let later = rest.concat();
    assert!(later.starts_with("{\"format\":\"strongroom log export 1\",\"tenant\":\"kitchenware\",\"from\":512,"));
    assert!(verify_bytes(later.as_bytes(), &key, "", None).is_ok());
    for bad in [
        ExportRequest { size: 3, ..request },
        ExportRequest { from_entry: 1 << 40, ..request },
        ExportRequest { year: 1999, ..request },
    ] {
        let answer = exported(&house, bad);
        let refused = match answer {
            Err(status) => people::reason(&status),
            Ok(Err(_pending)) => "PENDING".to_owned(),
            Ok(Ok(_)) => panic!("exported"),
        };
        // Another year is another request, which waits for its own word.
        assert_eq!(refused, if bad.year == 1999 { "PENDING" } else { "NOT_IN_THE_LOG" });
    }
    // A day later the word is used up.
    house.clock.advance(strongroom::domain::time::DAY + 1);
    assert!(exported(&house, request).unwrap().is_err());
    let exports: Vec<Entry> = people::log(&house)
        .into_iter()
        .filter(|entry| entry.action == Action::Export && entry.subject.is_none())
        .collect();
    assert!(exports.len() >= 2, "every export is in the log");
}

/// The verifier has names of its own; they must be the vault's.
#[test]
fn every_code_has_the_same_name_for_the_vault_and_for_the_verifier() {
    fn named<T: Copy + ToString>(all: &[T], code: fn(T) -> u8) -> Vec<(u8, String)> {
        all.iter().map(|one| (code(*one), one.to_string())).collect()
    }
    let roles = Role::ALL.iter().map(|role| (*role as u8, role.as_str().to_owned())).collect();
    let vault = [
        roles,
        named(Action::ALL, Action::code),
        named(RefusalCode::ALL, RefusalCode::code),
        named(Class::ALL, Class::code),
        named(Purpose::ALL, Purpose::code),
        named(Field::ALL, Field::code),
        named(Outcome::ALL, Outcome::code),
    ];
    for (vault, verifier) in vault.iter().zip(code_names()) {
        let verifier: Vec<(u8, String)> = verifier.iter().map(|(code, name)| (*code, (*name).to_owned())).collect();
        assert_eq!(*vault, verifier);
    }
}
