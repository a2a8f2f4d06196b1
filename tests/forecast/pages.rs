//! Pages: each record once, in order, while records go; bound to their asker and their question; of one shop alone.

use std::collections::BTreeSet;

use strongroom::cli::dev::TRUST_DOMAIN;
use strongroom::cli::mint::{Authority, LeafSpec};
use strongroom::domain::time::{Clock as _, DAY, MINUTE, SystemClock};
use strongroom::policy::retention::Policy;
use strongroom::rpc::proto::token_service_client::TokenServiceClient;
use strongroom::rpc::proto::{EventKind, RetentionForecastRequest, RetentionOutlookRequest};
use tonic::transport::Channel;

use super::{House, OFFICER, SHOP, STAGED, asked, digest, order, page, pages, retention};
use crate::people::{self, reason};

fn stored(house: &House, mut tokens: TokenServiceClient<Channel>, numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|n| house.run(tokens.tokenize(order(n))).unwrap().into_inner().token).collect()
}

#[test]
fn every_record_is_told_once_while_those_in_front_go() {
    let house = House::new();
    // The clock stands still between two records of three: they are due in the same instant.
    let mut tokens = Vec::new();
    for n in 0..60 {
        tokens.extend(stored(&house, house.tokens(), n..n + 1));
        if n % 3 == 2 {
            house.clock.advance(DAY);
        }
        house.event(&tokens[n], EventKind::Delivered, 0).unwrap();
    }
    house.clock.advance(39 * DAY);
    let (mut vault, mut request) = (retention(&house, OFFICER), asked(30, 7));
    let (mut told, mut ends, mut destroyed) = (Vec::new(), BTreeSet::new(), 0);
    loop {
        let page = house.run(vault.retention_forecast(request.clone())).unwrap().into_inner();
        assert!(page.records.len() <= 7);
        ends.insert((page.asked_at.unwrap().seconds, page.until.unwrap().seconds));
        told.extend(
            page.records
                .iter()
                .map(|record| (record.goes[0].why.as_ref().unwrap().due.unwrap(), record.digest.clone())),
        );
        if page.page_token.is_empty() {
            break;
        }
        request.page_token = page.page_token;
        // Time passes: what was told a page ago goes.
        house.clock.advance(DAY);
        destroyed += house.sweep();
    }
    assert!(destroyed > 10, "{destroyed} went meanwhile");
    let expected: BTreeSet<_> = tokens.iter().map(|token| digest(&house, token)).collect();
    let names: BTreeSet<_> = told.iter().map(|(_, name)| name.clone()).collect();
    assert_eq!((told.len(), names), (60, expected));
    assert!(told.is_sorted_by_key(|(due, _)| (due.seconds, due.nanos)));
    assert_eq!(ends.len(), 1, "the end stays where it was when it was asked for");
}

#[test]
fn records_due_in_one_instant_are_told_apart_by_place() {
    let house = House::new();
    let tokens = stored(&house, house.tokens(), 0..9);
    // All of them by the cap, all stored in one instant.
    for size in [1, 4, 9] {
        let pages = pages(&house, SHOP, 366, size);
        let told: Vec<_> = pages.into_iter().flat_map(|page| page.records).map(|record| record.digest).collect();
        assert_eq!(told, tokens.iter().map(|token| digest(&house, token)).collect::<Vec<_>>(), "pages of {size}");
    }
}

#[test]
fn a_page_token_serves_its_asker_and_its_question_alone() {
    let house = House::new();
    stored(&house, house.tokens(), 0..3);
    let first = page(&house, SHOP, asked(366, 2)).unwrap();
    let sums = page(&house, SHOP, asked(366, 1)).unwrap();
    let outlook = RetentionOutlookRequest { days: 366, page_token: sums.page_token };
    assert_eq!(reason(&house.run(retention(&house, SHOP).retention_outlook(outlook)).unwrap_err()), "UNKNOWN");
    let next = |days, page_token: &[u8]| RetentionForecastRequest { page_token: page_token.to_vec(), ..asked(days, 2) };
    let mut flipped = first.page_token.clone();
    flipped[9] ^= 1;
    for (caller, request) in [
        (SHOP, next(365, &first.page_token)),
        (OFFICER, next(366, &first.page_token)),
        (SHOP, next(366, &flipped)),
        (SHOP, next(366, &first.page_token[1..])),
    ] {
        assert_eq!(reason(&page(&house, caller, request).unwrap_err()), "UNKNOWN");
    }
    assert_eq!(page(&house, SHOP, next(366, &first.page_token)).unwrap().records.len(), 1);
}

/// Two shops in one vault.
fn two_shops() -> House {
    let mut house = House::unstarted();
    let policy = Policy::parse(STAGED).unwrap();
    house.config.policies.insert(house.tenant(), policy.clone());
    house.config.policies.insert("rival".parse().unwrap(), policy);
    let certs = people::certs(&house);
    let now = SystemClock::new().now();
    let uri = format!("spiffe://{TRUST_DOMAIN}/tenant/rival/shop/backend");
    let leaf = Authority::load(&certs).unwrap().issue(&LeafSpec::client(&uri, now, now.plus(DAY))).unwrap();
    std::fs::write(certs.join("shop-rival.pem"), leaf.cert_pem).unwrap();
    std::fs::write(certs.join("shop-rival-key.pem"), leaf.key_pem.as_bytes()).unwrap();
    people::enrol_of(&house, "tenant/rival/shop/backend", Vec::new());
    house.start();
    house
}

#[test]
fn another_shops_records_are_not_in_it_and_a_page_that_shows_none_is_not_the_last() {
    let house = two_shops();
    let rival = (strongroom::domain::caller::Role::Shop, "rival");
    let theirs = stored(&house, TokenServiceClient::new(house.channel(rival.0, rival.1)), 0..300);
    house.clock.advance(MINUTE);
    let ours = stored(&house, house.tokens(), 0..2);
    let pages = pages(&house, OFFICER, 90, 256);
    let told: Vec<Vec<_>> =
        pages.iter().map(|page| page.records.iter().map(|one| one.token.clone()).collect()).collect();
    assert_eq!(told, [Vec::new(), ours]);
    let sums: u64 = pages.iter().flat_map(|page| &page.groups).map(|group| group.records).sum();
    let outlook = super::outlook(&house, 90);
    let outlook: u64 = outlook.iter().flat_map(|page| &page.groups).map(|group| group.records).sum();
    assert_eq!((sums, outlook), (2, 2));
    // How far a page came is no other shop's due: the day, and no more.
    let reached = pages[0].reached.unwrap();
    assert_eq!((reached.seconds % 86_400, reached.nanos), (0, 0));
    let told = super::pages(&house, rival, 90, 256).into_iter().flat_map(|page| page.records).count();
    assert_eq!((told, theirs.len()), (300, 300));
}
