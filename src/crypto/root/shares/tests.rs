use super::*;
use crate::crypto::entropy::SeededEntropy;

fn made(seed: u64, shares: i64, threshold: i64) -> (Fresh, ShareSet) {
    let split = Split::new(shares, threshold).unwrap();
    let fresh = split.fresh(Argon2Cost::STANDARD, &SeededEntropy::new(seed)).unwrap();
    let RootHeader::Shares(set) = fresh.root.header().clone() else { panic!() };
    (fresh, set)
}

fn again(share: &Share) -> Share {
    Share::parse(&share.to_text()).unwrap()
}

fn combined(set: &ShareSet, shares: &[&Share]) -> Result<RootKey, TooFew> {
    let mut gathering = Gathering::new(set.clone());
    for share in shares {
        gathering.add(again(share)).unwrap();
    }
    gathering.combine()
}

#[test]
fn any_threshold_of_shares_makes_the_root_and_fewer_are_counted() {
    for (shares, threshold) in [(2, 2), (5, 3), (7, 7), (32, 2)] {
        let (fresh, set) = made(1, shares, threshold);
        let all: Vec<&Share> = fresh.shares.iter().collect();
        let enough = usize::from(set.threshold());
        for window in all.windows(enough) {
            assert_eq!(combined(&set, window).unwrap().check(), fresh.root.check());
            let reversed: Vec<&Share> = window.iter().rev().copied().collect();
            assert_eq!(combined(&set, &reversed).unwrap().check(), fresh.root.check());
        }
        assert_eq!(combined(&set, &all).unwrap().check(), fresh.root.check());
        let few = combined(&set, &all[..enough - 1]).unwrap_err();
        assert_eq!(few.to_string(), format!("too few shares: {} of the {threshold} that are needed", enough - 1));
    }
}

/// Lagrange's interpolation at 0 over GF(2^8) with x^8 + x^4 + x^3 + x^2 + 1, written anew: the shares are Shamir's, not the library's.
#[test]
fn shares_agree_with_shamirs_scheme_over_gf_256() {
    fn times(mut a: u8, mut b: u8) -> u8 {
        let mut product = 0;
        while b > 0 {
            product ^= if b & 1 == 1 { a } else { 0 };
            a = (a << 1) ^ if a & 0x80 != 0 { 0x1d } else { 0 };
            b >>= 1;
        }
        product
    }
    let inverse = |a: u8| (1..=255).find(|b| times(a, *b) == 1).unwrap();
    let (fresh, _) = made(2, 5, 3);
    let three = [&fresh.shares[4], &fresh.shares[0], &fresh.shares[2]];
    let secret: Vec<u8> = (0..32)
        .map(|byte| {
            three.iter().fold(0, |sum, one| {
                let others = three.iter().filter(|other| other.number != one.number);
                let weight =
                    others.fold(1, |w, other| times(w, times(other.number, inverse(other.number ^ one.number))));
                sum ^ times(weight, one.value[byte])
            })
        })
        .collect();
    assert_eq!(secret, fresh.root.key.expose());
}

#[test]
fn the_text_is_the_documented_one() {
    let share = Share { set: [1; 8], threshold: 3, number: 2, value: Zeroizing::new([0xab; 32]) };
    let text = share.to_text();
    assert_eq!(text.as_str(), "srs1qyqszqgpqyqszqgrq246h2at4w46h2at4w46h2at4w46h2at4w46h2at4w46h2at4w46k84ktrm");
    assert_eq!(text.len(), TEXT_LENGTH);
    assert_eq!(again(&share).to_bytes(), share.to_bytes());
    assert_eq!(format!("{share:?}"), "Share");
}

/// The control of the planted fault `share-unchecked`.
#[test]
fn every_wrong_character_of_a_share_is_found_by_its_checksum() {
    let text = made(3, 5, 3).0.shares[0].to_text();
    for at in 0..text.len() {
        for other in "qpzry9x8gf2tvdw0s3jn54khce6mua7l1bio".chars() {
            let mut wrong: Vec<char> = text.chars().collect();
            if std::mem::replace(&mut wrong[at], other) == other {
                continue;
            }
            let wrong: String = wrong.into_iter().collect();
            assert_eq!(Share::parse(&wrong).unwrap_err(), BadShare::NotAShare, "{at} {other}");
        }
    }
    for (a, b) in (0..text.len() - 1).map(|at| (at, at + 1)) {
        let mut swapped: Vec<char> = text.chars().collect();
        swapped.swap(a, b);
        let swapped: String = swapped.into_iter().collect();
        assert!(swapped == *text || Share::parse(&swapped).is_err(), "{a}");
    }
}

#[test]
fn what_is_no_share_is_refused() {
    let text = made(3, 5, 3).0.shares[0].to_text();
    let token = crate::domain::token::Token::from_bytes([1; 20]).to_text();
    let with_kind = |kind: &str, bytes: &[u8]| -> String {
        bytes.iter().copied().bytes_to_fes().with_checksum::<Bech32m>(&Hrp::parse_unchecked(kind)).chars().collect()
    };
    let body =
        |format: u8, threshold: u8, number: u8| [&[format][..], &[1; 8], &[threshold, number], &[7; 32]].concat();
    assert!(Share::parse(&with_kind("srs", &body(1, 3, 1))).is_ok());
    let bad = [
        String::new(),
        text[..TEXT_LENGTH - 1].to_owned(),
        text.to_string() + "q",
        text.to_uppercase(),
        token,
        with_kind("srt", &body(1, 3, 1)),
        with_kind("srs", &body(0, 3, 1)),
        with_kind("srs", &body(2, 3, 1)),
        with_kind("srs", &body(1, 1, 1)),
        with_kind("srs", &body(1, 3, 0)),
        with_kind("srs", &[1; 42]),
        with_kind("srs", &[1; 44]),
        "1".repeat(TEXT_LENGTH),
        "srs1".to_owned() + &"é".repeat(37) + "q",
    ];
    for bad in bad {
        assert_eq!(Share::parse(&bad).unwrap_err(), BadShare::NotAShare, "{bad}");
    }
}

#[test]
fn a_share_of_another_set_a_repeated_and_a_forged_one_are_told_apart_and_cost_nothing() {
    let ((fresh, set), (other, _)) = (made(4, 5, 3), made(5, 5, 3));
    let mut gathering = Gathering::new(set.clone());
    gathering.add(again(&fresh.shares[0])).unwrap();
    assert_eq!(gathering.add(again(&other.shares[1])), Err(BadShare::OtherSet));
    assert_eq!(gathering.add(again(&fresh.shares[0])), Err(BadShare::Repeated));
    let forged = |number: u8, threshold: u8, first: u8| {
        let mut share = again(&fresh.shares[1]);
        (share.number, share.threshold) = (number, threshold);
        share.value[0] ^= first;
        again(&share)
    };
    for forged in [forged(2, 3, 1), forged(2, 2, 0), forged(3, 3, 0), forged(6, 3, 0), forged(255, 3, 0)] {
        assert_eq!(gathering.add(forged), Err(BadShare::Forged));
    }
    assert_eq!(gathering.progress(), Progress { held: 1, threshold: 3 });
    gathering.add(again(&fresh.shares[1])).unwrap();
    assert!(!gathering.is_complete() && gathering.combine().is_err());
    gathering.add(again(&fresh.shares[4])).unwrap();
    assert_eq!(gathering.combine().unwrap().check(), fresh.root.check());
}

#[test]
fn no_two_sets_and_no_two_shares_are_alike_and_none_holds_the_root() {
    let (fresh, set) = made(6, 32, 2);
    let (other, other_set) = made(7, 32, 2);
    assert_ne!(set.id, other_set.id);
    let mut values: Vec<[u8; 32]> = fresh.shares.iter().chain(&other.shares).map(|share| *share.value).collect();
    values.sort();
    values.dedup();
    assert_eq!(values.len(), 64);
    assert!(!values.contains(fresh.root.key.expose()));
}
