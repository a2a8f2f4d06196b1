//! A forecast against the truth: it is made, and then every day is lived and what is gone compared with what was said.

use std::collections::{BTreeMap, BTreeSet};

use strongroom::crypto::entropy::{OsEntropy, SeededEntropy, array};
use strongroom::domain::time::{Clock as _, DAY, MINUTE, Timestamp};
use strongroom::domain::token::{Token, TokenDigest};
use strongroom::domain::vocabulary::EraseReason;
use strongroom::policy::retention::Piece;
use strongroom::rpc::proto::{self, Ending, EventKind, Field, TokenizeRequest};

use super::{House, order, pages, staged};
use crate::OFFICER;
use crate::common::text;

struct Dice(SeededEntropy);

impl Dice {
    fn below(&self, end: i64) -> i64 {
        i64::try_from(u64::from_be_bytes(array(&self.0)) % u64::try_from(end).unwrap()).unwrap()
    }
}

fn dice() -> Dice {
    let seed = std::env::var("STRONGROOM_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from_be_bytes(array(&OsEntropy)));
    println!("replay with STRONGROOM_SEED={seed}");
    Dice(SeededEntropy::new(seed))
}

fn account(n: usize) -> TokenizeRequest {
    TokenizeRequest {
        idempotency_key: format!("account-{n}"),
        subject: format!("account-{n}@shop.example"),
        class: proto::Class::Account.into(),
        fields: vec![text(Field::AccountName, &format!("Wilhelmina {n}"))],
    }
}

/// A shop's month and a half: stored, delivered, refunded or not, as the dice will.
fn lived(house: &House, dice: &Dice, count: usize) -> Vec<TokenDigest> {
    let mut tale: Vec<(i64, usize, Option<EventKind>)> = Vec::new();
    for n in 0..count {
        let stored = dice.below(20 * 24 * 60);
        tale.push((stored, n, None));
        let later = |days: i64| stored + 1 + dice.below(days * 24 * 60);
        if n % 5 == 4 {
            tale.extend((dice.below(2) == 0).then(|| (later(20), n, Some(EventKind::AccountActive))));
            continue;
        }
        if dice.below(10) < 7 {
            tale.push((later(15), n, Some(EventKind::Delivered)));
        }
        if dice.below(10) < 4 {
            let opened = later(15);
            tale.push((opened, n, Some(EventKind::RefundOpened)));
            tale.extend((dice.below(2) == 0).then(|| (opened + dice.below(9_000), n, Some(EventKind::RefundSettled))));
        }
    }
    tale.sort_by_key(|(at, n, event)| (*at, *n, event.is_some()));
    let (begin, mut tokens) = (house.clock.now(), BTreeMap::new());
    let (mut vault, mut next_sweep) = (house.tokens(), 0);
    for (minute, n, event) in tale {
        house.clock.advance(begin.plus(minute * MINUTE).since(house.clock.now()));
        match event {
            None => {
                let request = if n % 5 == 4 { account(n) } else { order(n) };
                tokens.insert(n, house.run(vault.tokenize(request)).unwrap().into_inner().token);
            }
            // Some come too late.
            Some(kind) => drop(house.event(&tokens[&n], kind, 0)),
        }
        if minute >= next_sweep {
            house.sweep();
            next_sweep = minute + 24 * 60;
        }
    }
    tokens.values().map(|token| Token::parse(token).unwrap().digest(&house.tenant())).collect()
}

/// What there is of each record; of one that is gone, why it went.
fn there(house: &House, of: &[TokenDigest]) -> BTreeMap<TokenDigest, Result<BTreeSet<String>, EraseReason>> {
    let pieces = || Piece::all().filter(|piece| matches!(piece, Piece::AddressLines | Piece::Whole(_)));
    let vault = house.vault();
    let read = vault.store().read(|view| {
        let mut found = BTreeMap::new();
        for digest in of {
            let state = match view.record_by_digest(digest)? {
                Some(row) => {
                    Ok(pieces().filter(|piece| row.fields.holds_piece(*piece)).map(|piece| piece.to_string()).collect())
                }
                None => Err(view.tombstone(digest)?.unwrap().reason),
            };
            found.insert(*digest, state);
        }
        Ok(found)
    });
    read.unwrap()
}

/// What goes on a day, counted from 1: record, piece (none: the whole), ending.
type Gone = BTreeMap<i64, BTreeSet<(TokenDigest, String, Ending)>>;

fn forecast(house: &House, days: u32) -> Gone {
    let now = house.clock.now();
    let mut gone = Gone::new();
    for record in pages(house, OFFICER, days, 13).into_iter().flat_map(|page| page.records) {
        let digest = TokenDigest(hex::decode(&record.digest).unwrap().try_into().unwrap());
        let day = |going: &proto::Disappearance| {
            let due = going.why.as_ref().unwrap().due.unwrap();
            let due = Timestamp(due.seconds * 1_000_000 + i64::from(due.nanos) / 1_000);
            ((due.since(now) + DAY - 1) / DAY).max(1)
        };
        let whole = record.goes.iter().find(|going| going.piece.is_empty()).map(day);
        for going in &record.goes {
            // A piece whose record goes on the same day goes with it.
            if going.piece.is_empty() || whole != Some(day(going)) {
                gone.entry(day(going)).or_default().insert((digest, going.piece.clone(), going.ending()));
            }
        }
    }
    gone
}

fn ended(reason: EraseReason) -> Ending {
    match reason {
        EraseReason::Desensitized => Ending::Desensitized,
        EraseReason::Purged => Ending::Purged,
        other => panic!("nobody asked for {other}"),
    }
}

#[test]
fn what_goes_day_by_day_is_what_was_forecast() {
    let dice = dice();
    let (count, days) = if std::env::var_os("STRONGROOM_FULL").is_some() { (1_000, 400) } else { (60, 70) };
    let house = staged();
    let records = lived(&house, &dice, count);
    let forecast = forecast(&house, days);
    let mut before = there(&house, &records);
    let (mut truth, living) = (Gone::new(), before.values().filter(|state| state.is_ok()).count());
    for day in 1..=i64::from(days) {
        house.clock.advance(DAY);
        house.sweep();
        let after = there(&house, &records);
        for (digest, was) in &before {
            let (Ok(was), is) = (was, &after[digest]) else { continue };
            let gone = truth.entry(day).or_default();
            match is {
                Err(reason) => drop(gone.insert((*digest, String::new(), ended(*reason)))),
                // An address is there as long as anything of it is.
                Ok(is) => gone.extend(was.difference(is).map(|piece| (*digest, piece.clone(), Ending::Shredded))),
            }
        }
        before = after;
    }
    truth.retain(|_, gone| !gone.is_empty());
    assert_eq!(forecast, truth);
    let kinds: BTreeSet<_> = truth.values().flatten().map(|(_, piece, ending)| format!("{piece} {ending:?}")).collect();
    let things: usize = truth.values().map(BTreeSet::len).sum();
    println!("{living} records lived {days} days; {things} things went as forecast: {kinds:?}");
    assert_eq!(kinds.len(), 4, "all kinds of going were seen");
    assert!(things > count / 2);
}
