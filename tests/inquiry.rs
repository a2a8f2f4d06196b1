//! An officer's questions, answered as a model of the same story answers them: who saw whom, by tokens and by field, what was
//! refused and why, which grants nobody read, what one request did.
//!
//! `STRONGROOM_FULL=1` lives a longer story; `STRONGROOM_SEED=<printed seed>` repeats one.
//!
//! Faults planted once, each of which turned these tests red: entries of other tenants not left out; a period that holds its end;
//! the question, or the release of tokens, not logged; what was stored counted as shown; a certificate not compared; tokens of due
//! records told; the end of the log not fixed; tags of one day, or of the next, for all; grants that were read told as unused;
//! who is gone forgotten; refusals of two calls taken for one; a record not looked for again before its token is told.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod common;
#[path = "common/people.rs"]
mod people;
#[path = "inquiry/story.rs"]
mod story;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::{House, START, order, wire_time};
use people::{enrol_of, log, mint, reason};
use rusqlite::Connection;
use story::{Read, Story, actors};
use strongroom::audit::entry::{Action, RefusalCode, Verdict, Whom};
use strongroom::cli::dev::TRUST_DOMAIN;
use strongroom::cli::mint::{Authority, LeafSpec};
use strongroom::domain::caller::{Caller, CertificateHash, Role};
use strongroom::domain::field::IdempotencyKey;
use strongroom::domain::id::TenantId;
use strongroom::domain::time::{Clock as _, DAY, HOUR, MINUTE, SECOND, SystemClock, Timestamp};
use strongroom::domain::token::Token;
use strongroom::domain::vocabulary::EraseReason;
use strongroom::rpc::identity::certificate_in;
use strongroom::rpc::proto::inquiry_service_client::InquiryServiceClient;
use strongroom::rpc::proto::token_service_client::TokenServiceClient;
use strongroom::rpc::proto::{
    AuditEntry, BatchDetokenizeRequest, DescribeRequest, DetokenizeRequest, EraseRequest, EventKind, ExplainRequest,
    Field, GetDeliveryRequest, GrantShipmentRequest, Outcome, Purpose, RefusalGroup, RefusalsRequest,
    RevokeShipmentRequest, SeenByRequest, SeenSummary, SubjectSeen, UnusedGrant, UnusedGrantState, UnusedGrantsRequest,
    WhoSawRequest,
};
use strongroom::rpc::proto::{TokenizeStreamRequest, tokenize_stream_response};
use strongroom::vault::{Call, Erase, Named, Part, Period as AskedPeriod, Seen, SeenBy};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

type Period = (Timestamp, Timestamp);

const OFFICER: (Role, &str) = (Role::PrivacyOfficer, "office");
const AUDITOR: (Role, &str) = (Role::Auditor, "office");

fn inquiry(house: &House, (role, name): (Role, &str)) -> InquiryServiceClient<Channel> {
    InquiryServiceClient::new(house.channel(role, name))
}

/// Reads an answer to its end.
macro_rules! rows {
    ($house:expr, $call:expr, $rows:ident) => {
        $house.run(async {
            let mut parts = $call.await?.into_inner();
            let mut rows = Vec::new();
            while let Some(part) = parts.message().await? {
                assert!(part.$rows.len() <= 256, "a part is bounded");
                rows.extend(part.$rows);
            }
            Ok::<_, Status>(rows)
        })
    };
}

fn who_saw(house: &House, token: &str, period: Option<Period>, everything: bool) -> Result<Vec<AuditEntry>, Status> {
    let mut officer = inquiry(house, OFFICER);
    let (since, until) = (period.map(|period| wire_time(period.0)), period.map(|period| wire_time(period.1)));
    let request = WhoSawRequest { token: token.to_owned(), since, until, everything };
    rows!(house, officer.who_saw(request), entries)
}

fn seen_by_as(
    house: &House,
    mut officer: InquiryServiceClient<Channel>,
    (role, name): (Role, &str),
    certificate: String,
    (since, until): Period,
) -> Result<(Vec<SubjectSeen>, SeenSummary), Status> {
    let (since, until) = (Some(wire_time(since)), Some(wire_time(until)));
    let request = SeenByRequest { role: role as i32, name: name.to_owned(), certificate, since, until };
    house.run(async {
        let mut parts = officer.seen_by(request).await?.into_inner();
        let (mut subjects, mut summary) = (Vec::new(), None);
        while let Some(part) = parts.message().await? {
            assert!(part.subjects.len() <= 256 && summary.is_none(), "the sums come last");
            subjects.extend(part.subjects);
            summary = part.summary;
        }
        Ok((subjects, summary.unwrap()))
    })
}

fn seen_by(house: &House, by: (Role, &str), period: Period) -> (Vec<SubjectSeen>, SeenSummary) {
    seen_by_as(house, inquiry(house, OFFICER), by, String::new(), period).unwrap()
}

fn refusals(house: &House, as_whom: (Role, &str), (since, until): Period) -> Vec<RefusalGroup> {
    let mut officer = inquiry(house, as_whom);
    let request = RefusalsRequest { since: Some(wire_time(since)), until: Some(wire_time(until)) };
    rows!(house, officer.refusals(request), groups).unwrap()
}

fn unused(house: &House, began_before: Option<Timestamp>) -> Vec<UnusedGrant> {
    let mut auditor = inquiry(house, AUDITOR);
    let request = UnusedGrantsRequest { began_before: began_before.map(wire_time) };
    rows!(house, auditor.unused_grants(request), grants).unwrap()
}

fn explain(house: &House, request_id: &str) -> Result<Vec<AuditEntry>, Status> {
    let mut auditor = inquiry(house, AUDITOR);
    rows!(house, auditor.explain(ExplainRequest { request_id: request_id.to_owned() }), entries)
}

fn micros(at: Option<prost_types::Timestamp>) -> Timestamp {
    let at = at.unwrap();
    Timestamp(at.seconds * 1_000_000 + i64::from(at.nanos) / 1_000)
}

fn always(house: &House) -> Period {
    (START.plus(-DAY), house.clock.now().plus(SECOND))
}

fn read(
    house: &House,
    (role, name): (Role, &str),
    token: &str,
    fields: &[Field],
    purpose: Purpose,
) -> Result<(), Status> {
    let fields = fields.iter().map(|field| (*field).into()).collect();
    let request = DetokenizeRequest { token: token.to_owned(), fields, purpose: purpose.into() };
    let mut tokens = TokenServiceClient::new(house.channel(role, name));
    house.run(tokens.detokenize(request)).map(drop)
}

fn seed() -> u64 {
    let given = std::env::var("STRONGROOM_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| SystemClock::new().now().0 as u64);
    println!("STRONGROOM_SEED={seed}");
    seed
}

fn is_full() -> bool {
    std::env::var_os("STRONGROOM_FULL").is_some_and(|full| full == "1")
}

#[test]
fn every_answer_is_what_the_replies_of_the_story_say() {
    let mut story = Story::begin(House::new(), seed());
    let steps = if is_full() { 10_000 } else { 600 };
    (0..steps).for_each(|_| story.step());
    let kinds: BTreeSet<i32> =
        story.reads.iter().flat_map(|read| read.outcomes.iter().map(|(_, outcome)| *outcome as i32)).collect();
    assert!(kinds.len() >= 4, "granted, masked, not set and denied: {kinds:?}");
    let is_telling =
        |story: &Story| story.subjects.iter().any(|subject| subject.tokens.is_empty()) && story.refusals.len() > 5;
    // A story in which by chance nobody has gone yet goes on.
    let mut more = 5 * steps;
    while !is_telling(&story) && more > 0 {
        more -= 1;
        story.step();
    }
    assert!(is_telling(&story), "in {} steps nobody has gone", 6 * steps);
    let periods = story.some_periods();
    for period in &periods {
        subjects_are_seen_as_in(&story, *period);
        callers_saw_as_in(&story, *period);
        refusals_are_as_in(&story, *period);
    }
}

fn within((since, until): Period, at: Timestamp) -> bool {
    since <= at && at < until
}

/// What tells a read in an answer.
type Told = (Timestamp, i32, String, String, Vec<(i32, i32)>);

fn told(entry: &AuditEntry) -> Told {
    let fields = entry.fields.iter().map(|one| (one.field, one.outcome)).collect();
    (micros(entry.at), entry.role, entry.name.clone(), entry.action.clone(), fields)
}

fn as_told(read: &Read) -> Told {
    let fields = read.outcomes.iter().map(|(field, outcome)| (*field as i32, *outcome as i32)).collect();
    (read.at, read.by.0 as i32, read.by.1.to_owned(), read.action.to_owned(), fields)
}

fn subjects_are_seen_as_in(story: &Story, period: Period) {
    for (number, subject) in story.subjects.iter().enumerate() {
        let of = |read: &&Read| read.subject == number && within(period, read.at);
        let shown = story.reads.iter().filter(of).filter(|read| read.shown().next().is_some());
        let expected: Vec<Told> = shown.map(as_told).collect();
        // Any record of the subject leads to all that was shown of it.
        for token in &subject.tokens {
            let answer = who_saw(&story.house, token, Some(period), false).unwrap();
            assert_eq!(answer.iter().map(told).collect::<Vec<_>>(), expected, "subject {number}");
        }
        if let Some(token) = subject.tokens.first() {
            let all = who_saw(&story.house, token, Some(period), true).unwrap();
            let refused = all.iter().filter(|entry| !entry.refusal.is_empty());
            let refused: Vec<_> = refused.map(|entry| (micros(entry.at), entry.refusal.clone())).collect();
            let of = story.refusals.iter().filter(|refusal| refusal.subject == Some(number));
            let expected = of.filter(|refusal| within(period, refusal.at));
            assert_eq!(refused, expected.map(|refusal| (refusal.at, refusal.code.to_owned())).collect::<Vec<_>>());
            let read = all.iter().filter(|entry| !entry.fields.is_empty() && entry.action != "tokenize").map(told);
            let expected = story.reads.iter().filter(of_any(number, period)).map(as_told);
            assert_eq!(read.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        }
    }
}

fn of_any(number: usize, period: Period) -> impl FnMut(&&Read) -> bool {
    move |read| read.subject == number && within(period, read.at)
}

/// Times, first, last, living subjects.
type FieldSum = (u64, Timestamp, Timestamp, BTreeSet<usize>);

fn callers_saw_as_in(story: &Story, period: Period) {
    for by in actors() {
        let (subjects, sums) = seen_by(&story.house, by, period);
        let reads: Vec<&Read> = story.reads.iter().filter(|read| read.by == by && within(period, read.at)).collect();
        let showed: Vec<&Read> = reads.iter().copied().filter(|read| read.shown().next().is_some()).collect();

        let mut expected: BTreeMap<usize, Vec<&Read>> = BTreeMap::new();
        for read in &showed {
            if !story.subjects[read.subject].tokens.is_empty() {
                expected.entry(read.subject).or_default().push(read);
            }
        }
        // In the order in which the vault came to know them, which is ours.
        assert_eq!(subjects.len(), expected.len(), "{by:?}");
        for (seen, (number, reads)) in subjects.iter().zip(&expected) {
            let newest: Vec<String> = story.subjects[*number].tokens.iter().rev().take(8).cloned().collect();
            assert_eq!(seen.tokens, newest, "subject {number}");
            assert_eq!(seen.times, reads.len() as u64);
            assert_eq!(micros(seen.first), reads.iter().map(|read| read.at).min().unwrap());
            assert_eq!(micros(seen.last), reads.iter().map(|read| read.at).max().unwrap());
            let fields = |wanted: Outcome| -> Vec<i32> {
                let all = reads.iter().flat_map(|read| read.shown().filter(|(_, outcome)| *outcome == wanted));
                all.map(|(field, _)| field as i32).collect::<BTreeSet<_>>().into_iter().collect()
            };
            assert_eq!((&seen.granted, &seen.masked), (&fields(Outcome::Granted), &fields(Outcome::Masked)));
        }

        let count = |count: usize| count as u64;
        assert_eq!(sums.showed, count(showed.len()));
        assert_eq!(sums.subjects, count(expected.len()));
        assert_eq!(sums.subjects_without_token, 0);
        assert_eq!(sums.gone_subject_days, count(story.gone_days(&showed)), "{by:?}");
        let refused = story.refusals.iter().filter(|refusal| refusal.by == by && within(period, refusal.at));
        assert_eq!(sums.refused, count(refused.count()), "{by:?}");
        if by != OFFICER {
            let answered = story.answered.iter().filter(|(at, who)| *who == by && within(period, *at));
            assert_eq!(sums.answered, count(answered.count()), "{by:?}");
        }

        let mut by_field: BTreeMap<(i32, i32), FieldSum> = BTreeMap::new();
        for read in &reads {
            for (field, outcome) in &read.outcomes {
                let sum =
                    by_field.entry((*field as i32, *outcome as i32)).or_insert((0, read.at, read.at, BTreeSet::new()));
                (sum.0, sum.1, sum.2) = (sum.0 + 1, sum.1.min(read.at), sum.2.max(read.at));
                let is_living = !story.subjects[read.subject].tokens.is_empty();
                if is_living && matches!(outcome, Outcome::Granted | Outcome::Masked) {
                    sum.3.insert(read.subject);
                }
            }
        }
        let found: Vec<_> = sums
            .fields
            .iter()
            .map(|sum| ((sum.field, sum.outcome), (sum.times, micros(sum.first), micros(sum.last), sum.subjects)))
            .collect();
        let expected: Vec<_> = by_field
            .into_iter()
            .map(|(key, (times, first, last, subjects))| (key, (times, first, last, count(subjects.len()))))
            .collect();
        assert_eq!(found, expected, "{by:?}");
    }
}

fn refusals_are_as_in(story: &Story, period: Period) {
    let mut expected: BTreeMap<_, (u64, Timestamp, Timestamp)> = BTreeMap::new();
    for refusal in story.refusals.iter().filter(|refusal| within(period, refusal.at)) {
        let key = (refusal.code, refusal.action, refusal.by.0 as i32, refusal.by.1);
        let sum = expected.entry(key).or_insert((0, refusal.at, refusal.at));
        *sum = (sum.0 + 1, sum.1.min(refusal.at), sum.2.max(refusal.at));
    }
    let groups = refusals(&story.house, AUDITOR, period);
    assert!(groups.is_sorted_by(|a, b| a.times >= b.times), "the most frequent first");
    let found: BTreeMap<_, _> = groups
        .iter()
        .map(|group| {
            let key = (group.refusal.as_str(), group.action.as_str(), group.role, group.name.as_str());
            (key, (group.times, micros(group.first), micros(group.last)))
        })
        .collect();
    assert_eq!((groups.len(), &found), (expected.len(), &expected));
    for group in &groups {
        assert!(group.why.ends_with('.'), "{} has its reason in words", group.refusal);
        let last = explain(&story.house, &group.last_request_id).unwrap();
        assert_eq!(last.len(), 1);
        assert_eq!((last[0].refusal.as_str(), micros(last[0].at)), (group.refusal.as_str(), micros(group.last)));
    }
}

#[test]
fn a_subject_whose_records_are_due_is_counted_and_its_token_kept_back_and_once_gone_it_is_nobody() {
    let house = House::new();
    let token = house.tokenize(order(1));
    let packing = (Role::Warehouse, "packing");
    read(&house, packing, &token, &[Field::Phone], Purpose::Fulfilment).unwrap();
    house.clock.advance(400 * DAY);
    read(&house, packing, &token, &[Field::Phone, Field::Email], Purpose::Fulfilment).unwrap();
    let outcomes =
        |sums: &SeenSummary| -> Vec<(i32, i32)> { sums.fields.iter().map(|sum| (sum.field, sum.outcome)).collect() };
    let (phone, email) = (Field::Phone as i32, Field::Email as i32);
    let shown = (phone, Outcome::Granted as i32);
    let (subjects, sums) = seen_by(&house, packing, always(&house));
    assert!(subjects.is_empty());
    assert_eq!((sums.showed, sums.subjects, sums.subjects_without_token, sums.gone_subject_days), (1, 0, 1, 0));
    assert_eq!(outcomes(&sums), [shown, (phone, Outcome::Expired as i32), (email, Outcome::Denied as i32)]);
    assert_eq!(who_saw(&house, &token, None, false).unwrap().len(), 1, "the subject is known until it is destroyed");

    assert_eq!(house.sweep(), 1);
    read(&house, packing, &token, &[Field::Phone], Purpose::Fulfilment).unwrap();
    let (subjects, sums) = seen_by(&house, packing, always(&house));
    assert!(subjects.is_empty());
    assert_eq!((sums.subjects_without_token, sums.gone_subject_days), (0, 1));
    assert!(outcomes(&sums).contains(&(phone, Outcome::Erased as i32)));
    let erased = who_saw(&house, &token, None, false).unwrap_err();
    assert_eq!((erased.code(), reason(&erased).as_str()), (Code::FailedPrecondition, "ERASED"));
}

#[test]
fn what_one_certificate_was_shown_is_told_apart_from_its_callers_other_ones() {
    let house = House::new();
    let packing = (Role::Warehouse, "packing");
    let tokens: Vec<String> = (1..=2).map(|number| house.tokenize(order(number))).collect();
    let certificate = || hex::encode(certificate_in(&people::certificate(&house, packing.0, packing.1)).unwrap().0);
    read(&house, packing, &tokens[0], &[Field::Address], Purpose::Fulfilment).unwrap();
    let first = certificate();
    mint(&house, packing.0, packing.1);
    read(&house, packing, &tokens[1], &[Field::Address], Purpose::Fulfilment).unwrap();
    let second = certificate();
    assert_ne!(first, second);
    let seen = |certificate: String| {
        let (subjects, _) = seen_by_as(&house, inquiry(&house, OFFICER), packing, certificate, always(&house)).unwrap();
        subjects.into_iter().flat_map(|subject| subject.tokens).collect::<Vec<_>>()
    };
    assert_eq!(seen(first), tokens[..1]);
    assert_eq!(seen(second), tokens[1..]);
    assert_eq!(seen(String::new()), tokens);
    assert_eq!(seen(hex::encode([7; 32])), [""; 0]);
}

/// A second tenant with an officer and a shop of its own; the channels of both.
fn with_rival(house: &mut House) -> (Channel, Channel) {
    const RIVAL: &str = "rival";
    house.stop();
    let rival: TenantId = RIVAL.parse().unwrap();
    let policy = house.config.policies[&house.tenant()].clone();
    house.config.policies.insert(rival, policy);
    let authority = Authority::load(&people::certs(house)).unwrap();
    let now = SystemClock::new().now();
    for (role, name) in [(Role::PrivacyOfficer, "rival"), (Role::Shop, "rival")] {
        let identity = format!("tenant/{RIVAL}/{}/{name}", role.as_str());
        let leaf =
            authority.issue(&LeafSpec::client(&format!("spiffe://{TRUST_DOMAIN}/{identity}"), now, now.plus(DAY)));
        let (leaf, files) = (leaf.unwrap(), house.files(role, name));
        std::fs::write(&files.certificate, leaf.cert_pem).unwrap();
        std::fs::write(&files.key, leaf.key_pem.as_bytes()).unwrap();
        let pins = if role == Role::Shop { Vec::new() } else { vec![people::key_of(house, role, name)] };
        enrol_of(house, &identity, pins);
    }
    house.start();
    (house.channel(Role::PrivacyOfficer, "rival"), house.channel(Role::Shop, "rival"))
}

#[test]
fn another_tenants_officer_is_told_nothing_of_ours() {
    let mut house = House::new();
    let (officer, shop) = with_rival(&mut house);
    let token = house.tokenize(order(1));
    house.grant(&token, "SW000000001", "swift");
    let shop_reads = (Role::Shop, "backend");
    read(&house, shop_reads, &token, &[Field::Address], Purpose::Fulfilment).unwrap();
    read(&house, shop_reads, &token, &[Field::Address], Purpose::Delivery).unwrap_err();
    let request = who_saw(&house, &token, None, false).unwrap()[0].request_id.clone();
    assert_eq!(refusals(&house, OFFICER, always(&house)).len(), 1);
    assert_eq!(unused(&house, None).len(), 0, "its window begins now");
    house.clock.advance(HOUR);
    assert_eq!(unused(&house, None).len(), 1);

    let rival = || InquiryServiceClient::new(officer.clone());
    let (since, until) = always(&house);
    let (since, until) = (Some(wire_time(since)), Some(wire_time(until)));
    let foreign = WhoSawRequest { token: token.clone(), since: None, until: None, everything: true };
    assert_eq!(reason(&house.run(rival().who_saw(foreign)).unwrap_err()), "NOT_FOUND");
    for by in [shop_reads, (Role::Shop, "rival"), OFFICER] {
        let (subjects, sums) = seen_by_as(&house, rival(), by, String::new(), always(&house)).unwrap();
        assert_eq!((subjects.len(), sums.fields.len()), (0, 0));
        assert_eq!((sums.answered, sums.showed, sums.gone_subject_days), (0, 0, 0), "{by:?}");
    }
    let mut officers = rival();
    // Its own question about our token is all that was refused to it.
    let told = rows!(house, officers.refusals(RefusalsRequest { since, until }), groups).unwrap();
    assert_eq!(told.iter().map(|group| group.action.as_str()).collect::<Vec<_>>(), ["who_saw"]);
    let told = rows!(house, officers.unused_grants(UnusedGrantsRequest::default()), grants).unwrap();
    assert_eq!(told.len(), 0);
    let told = rows!(house, officers.explain(ExplainRequest { request_id: request.clone() }), entries).unwrap();
    assert_eq!(told.len(), 0);
    assert_eq!(explain(&house, &request).unwrap().len(), 1, "to our own auditor it is known");

    // And the other way round: what the rival's shop does is nothing to us.
    let stored = house.run(TokenServiceClient::new(shop).tokenize(order(2))).unwrap().into_inner().token;
    assert_eq!(reason(&who_saw(&house, &stored, None, true).unwrap_err()), "NOT_FOUND");
    let (_, sums) = seen_by(&house, (Role::Shop, "rival"), always(&house));
    assert_eq!(sums.answered, 0);
}

#[test]
fn every_question_is_in_the_log_with_whom_it_is_about_and_every_release_of_tokens_beside_it() {
    let house = House::new();
    let token = house.tokenize(order(1));
    let packing = (Role::Warehouse, "packing");
    read(&house, packing, &token, &[Field::Address], Purpose::Fulfilment).unwrap();
    who_saw(&house, &token, None, false).unwrap();
    seen_by(&house, packing, always(&house));
    seen_by(&house, (Role::Finance, "desk"), always(&house));
    refusals(&house, AUDITOR, always(&house));
    unused(&house, None);
    explain(&house, &"0f".repeat(16)).unwrap();
    let asked: Vec<_> = log(&house)
        .into_iter()
        .filter(|entry| (70..80).contains(&entry.action.code()))
        .map(|entry| {
            let about = match entry.whom {
                Some(Whom::Caller { role, name }) => Some((role, name.as_str().to_owned())),
                _ => None,
            };
            assert_eq!(entry.verdict, Verdict::Done);
            (entry.action, about, entry.subject.is_some(), entry.request)
        })
        .collect();
    let about = |role, name: &str| Some((role, name.to_owned()));
    let told: Vec<_> = asked.iter().map(|(action, about, subject, _)| (*action, about.clone(), *subject)).collect();
    assert_eq!(
        told,
        [
            (Action::WhoSaw, None, true),
            (Action::SeenBy, about(Role::Warehouse, "packing"), false),
            (Action::SeenBy, about(Role::Warehouse, "packing"), false),
            (Action::SeenBy, about(Role::Finance, "desk"), false),
            (Action::Refusals, None, false),
            (Action::UnusedGrants, None, false),
            (Action::Explain, None, false),
        ]
    );
    assert_eq!(asked[1].3, asked[2].3, "the release goes by its question's number");
    // The officer's own question is part of the subject's story.
    let story = who_saw(&house, &token, None, true).unwrap();
    assert_eq!(
        story.iter().map(|entry| entry.action.as_str()).collect::<Vec<_>>(),
        ["tokenize", "detokenize", "who_saw"]
    );
}

#[test]
fn one_request_is_explained_in_words_and_an_approvals_story_whole_and_in_order() {
    let house = House::new();
    let token = house.tokenize(order(1));
    let packing = (Role::Warehouse, "packing");
    read(&house, packing, &token, &[Field::Address, Field::Email], Purpose::Fulfilment).unwrap();
    let seen = who_saw(&house, &token, None, false).unwrap();
    let told = explain(&house, &seen[0].request_id).unwrap();
    assert_eq!(told, seen);
    let certificate = &seen[0].certificate;
    assert_eq!(
        told[0].words,
        format!(
            "warehouse/packing (certificate {certificate}…): detokenize of an order record for fulfilment: done; \
             address granted, email denied."
        )
    );
    let file = people::certificate(&house, packing.0, packing.1);
    assert!(hex::encode(certificate_in(&file).unwrap().0).starts_with(certificate.as_str()));

    // An approval is one story under one number, whoever tells a part of it.
    use strongroom::rpc::proto::{
        ApproveRequest, ResumeCallerRequest, SuspendCallerRequest, resume_caller_response::Result as Resumed,
    };
    let mut admin = people::callers(&house, "office");
    let caller = || (Role::Carrier as i32, "swift".to_owned());
    let ((role, name), certificate) = (caller(), String::new());
    house.run(admin.suspend_caller(SuspendCallerRequest { role, name, certificate })).unwrap();
    let mut resume = || {
        let ((role, name), certificate) = (caller(), String::new());
        house.run(admin.resume_caller(ResumeCallerRequest { role, name, certificate })).unwrap().into_inner().result
    };
    let Some(Resumed::PendingApproval(pending)) = resume() else { unreachable!("resuming takes two") };
    let mut second = people::approvals(&house, Role::Operator, "oncall");
    let approve = ApproveRequest { approval_id: pending.approval_id.clone() };
    house.run(second.approve(approve)).unwrap();
    assert!(matches!(resume(), Some(Resumed::Done(_))));
    let told = explain(&house, &pending.approval_id).unwrap();
    let actions: Vec<_> = told.iter().map(|entry| (entry.action.as_str(), entry.name.as_str())).collect();
    assert_eq!(actions, [("request_approval", "office"), ("approve", "oncall"), ("resume_caller", "office")]);
    assert!(told[2].words.contains("about carrier/swift: done"), "{}", told[2].words);
    assert_eq!((told[2].about_role, told[2].about_name.as_str()), (Role::Carrier as i32, "swift"));
}

#[test]
fn the_refusals_of_a_day_are_that_days_and_say_why() {
    let house = House::new();
    let token = house.tokenize(order(1));
    let day = |number: i64| (START.plus(number * DAY), START.plus((number + 1) * DAY));
    let desk = (Role::Finance, "desk");
    for _ in 0..3 {
        read(&house, desk, &token, &[Field::Address], Purpose::Fulfilment).unwrap_err();
    }
    house.clock.advance(DAY - SECOND);
    read(&house, (Role::Operator, "oncall"), &token, &[Field::Address], Purpose::Fulfilment).unwrap_err();
    let mut oncall = TokenServiceClient::new(house.channel(Role::Operator, "oncall"));
    house.run(oncall.describe(DescribeRequest { token: token.clone() })).unwrap_err();
    house.clock.advance(SECOND);
    mint(&house, Role::Warehouse, "stranger");
    // Refused by the guard around the service, before any handler.
    read(&house, (Role::Warehouse, "stranger"), &token, &[Field::Address], Purpose::Fulfilment).unwrap_err();
    let told = |period| -> Vec<_> {
        let row = |group: RefusalGroup| (group.times, group.refusal, group.action, group.name, group.why);
        refusals(&house, AUDITOR, period).into_iter().map(row).collect()
    };
    let row = |times, code: RefusalCode, action: &str, name: &str| {
        (times, code.to_string(), action.to_owned(), name.to_owned(), code.meaning().to_owned())
    };
    let forbidden = |times, action, name| row(times, RefusalCode::Forbidden, action, name);
    let expected =
        [forbidden(3, "detokenize", "desk"), forbidden(1, "detokenize", "oncall"), forbidden(1, "describe", "oncall")];
    assert_eq!(told(day(0)), expected);
    assert_eq!(told(day(1)), [row(1, RefusalCode::NotEnrolled, "detokenize", "stranger")]);
    assert_eq!(told(day(2)), []);
    assert_eq!(told(day(-1)), []);
}

#[test]
fn grants_that_nobody_read_are_told_with_their_terms_and_how_they_stand() {
    let house = House::new();
    let tokens: Vec<String> = (1..=5).map(|number| house.tokenize(order(number))).collect();
    let grant = |token: usize, serial: u32, days: (i64, i64)| {
        let now = house.clock.now();
        let request = GrantShipmentRequest {
            idempotency_key: format!("grant-{serial}"),
            token: tokens[token].clone(),
            serial: format!("SW{serial:09}"),
            carrier: "swift".to_owned(),
            not_before: Some(wire_time(now.plus(days.0 * DAY))),
            not_after: Some(wire_time(now.plus(days.1 * DAY))),
            read_limit: 7,
            parcel: serial,
        };
        house.run(house.lifecycle().grant_shipment(request)).unwrap().into_inner().grant_id
    };
    let (read_one, over) = (grant(0, 1, (0, 9)), grant(0, 2, (0, 1)));
    let (open, revoked, delivered) = (grant(1, 3, (0, 9)), grant(1, 4, (0, 9)), grant(2, 5, (0, 9)));
    let (ahead, destroyed) = (grant(3, 6, (5, 9)), grant(4, 7, (0, 9)));
    let get = GetDeliveryRequest { serial: "SW000000001".to_owned() };
    house.run(house.carrier("swift").get_delivery(get)).unwrap();
    house.clock.advance(MINUTE);
    let revoke = RevokeShipmentRequest { idempotency_key: "revoke".to_owned(), grant_id: revoked.clone() };
    house.run(house.lifecycle().revoke_shipment(revoke)).unwrap();
    house.event(&tokens[2], EventKind::Delivered, 5).unwrap();
    let erase = EraseRequest { idempotency_key: "erase".to_owned(), token: tokens[4].clone(), reason: 1 };
    house.run(house.tokens().erase(erase)).unwrap();
    let ended = house.clock.now();
    house.clock.advance(2 * DAY);

    use UnusedGrantState::{Ended, Open, Over};
    let told = |grants: Vec<UnusedGrant>| -> Vec<(String, UnusedGrantState, u32)> {
        grants.into_iter().map(|grant| (grant.grant_id.clone(), grant.state(), grant.parcel)).collect()
    };
    let all = unused(&house, None);
    assert!(all.iter().all(|grant| grant.carrier == "swift" && grant.read_limit == 7));
    assert!(all.iter().all(|grant| micros(grant.not_before) == START));
    let ends: Vec<_> = all.iter().map(|grant| grant.ended_at.is_some().then(|| micros(grant.ended_at))).collect();
    assert_eq!(ends, [None, None, Some(ended), Some(ended)]);
    let expected = [(over, Over, 2), (open, Open, 3), (revoked, Ended, 4), (delivered, Ended, 5)];
    assert_eq!(told(all), expected);
    assert_eq!(told(unused(&house, Some(START))), []);
    house.clock.advance(4 * DAY);
    let later: Vec<_> = told(unused(&house, None)).into_iter().map(|row| row.0).collect();
    assert!(later.contains(&ahead) && !later.contains(&read_one) && !later.contains(&destroyed));
    assert_eq!(told(unused(&house, Some(START.plus(1)))).len(), expected.len());
}

/// Stores so many orders, each of a customer of its own.
fn store(house: &House, first: usize, count: usize) -> Vec<String> {
    let items: Vec<_> =
        (first..first + count).map(|number| TokenizeStreamRequest { item: Some(order(number)) }).collect();
    let mut tokens = house.tokens();
    house.run(async {
        let mut replies = tokens.tokenize_stream(tokio_stream::iter(items)).await.unwrap().into_inner();
        let mut stored = Vec::new();
        while let Some(reply) = replies.message().await.unwrap() {
            let Some(tokenize_stream_response::Result::Done(done)) = reply.result else { unreachable!("stored") };
            stored.push(done.token);
        }
        stored
    })
}

const PACKING: (Role, &str) = (Role::Warehouse, "packing");

fn read_all(house: &House, tokens: &[String]) {
    let mut reader = TokenServiceClient::new(house.channel(PACKING.0, PACKING.1));
    for page in tokens.chunks(256) {
        let (fields, purpose) = (vec![Field::Address.into()], Purpose::Fulfilment.into());
        house.run(reader.batch_detokenize(BatchDetokenizeRequest { tokens: page.to_vec(), fields, purpose })).unwrap();
    }
}

#[test]
fn an_answer_is_of_its_moment_whatever_is_written_meanwhile() {
    const BEFORE: usize = 150;
    let house = House::new();
    let before = store(&house, 0, BEFORE);
    read_all(&house, &before);
    let (since, until) = (Some(wire_time(START.plus(-DAY))), Some(wire_time(START.plus(DAY))));
    let (role, name) = (PACKING.0 as i32, PACKING.1.to_owned());
    let request = SeenByRequest { role, name, certificate: String::new(), since, until };
    let mut parts = house.run(inquiry(&house, OFFICER).seen_by(request.clone())).unwrap().into_inner();
    // While the answer waits to be read: others come in and are read, and some of those that were seen go.
    let after = store(&house, BEFORE, 50);
    read_all(&house, &after);
    let erased: BTreeSet<&String> = before.iter().step_by(10).collect();
    let mut tokens = house.tokens();
    for token in &erased {
        let (idempotency_key, token) = (format!("erase-{token}"), (*token).clone());
        house.run(tokens.erase(EraseRequest { idempotency_key, token, reason: 1 })).unwrap();
    }
    let (mut told, mut summary) = (Vec::new(), None);
    while let Some(part) = house.run(parts.message()).unwrap() {
        told.extend(part.subjects.into_iter().flat_map(|subject| subject.tokens));
        summary = part.summary.or(summary);
    }
    let once: BTreeSet<&String> = told.iter().collect();
    assert_eq!(once.len(), told.len(), "each subject once");
    assert!(once.iter().all(|token| before.contains(token)), "nobody who came later");
    assert!(before.iter().filter(|token| !erased.contains(token)).all(|token| once.contains(token)), "nobody left out");
    assert!(told.is_sorted_by_key(|token| before.iter().position(|known| known == token)), "oldest first");
    let sums = summary.unwrap();
    let gone = sums.subjects_without_token + sums.gone_subject_days;
    assert_eq!((sums.subjects, sums.subjects + gone), (told.len() as u64, BEFORE as u64), "whoever went is counted");

    let again = seen_by(&house, PACKING, always(&house));
    assert_eq!(again.0.len(), BEFORE - erased.len() + after.len());
    assert_eq!(again.1.gone_subject_days, erased.len() as u64);
}

/// A call that came by no wire.
fn call(house: &House, (role, name): (Role, &str)) -> Call {
    let uri = format!("spiffe://{TRUST_DOMAIN}/tenant/{}/{}/{name}", house.tenant(), role.as_str());
    let caller = Caller::from_uri(&uri, TRUST_DOMAIN, CertificateHash([7; 32])).unwrap();
    Call { caller, request: house.vault().new_request() }
}

fn whom_packing_saw() -> SeenBy {
    let caller = Named { role: PACKING.0, name: PACKING.1.parse().unwrap() };
    SeenBy { caller, certificate: None, period: AskedPeriod { since: START, until: START.plus(DAY) } }
}

#[test]
fn an_answer_that_nobody_reads_any_more_gives_its_place_to_the_next_question() {
    let house = House::new();
    // More than wait for their reader.
    let tokens = store(&house, 0, 200);
    read_all(&house, &tokens);
    let vault = house.vault();
    let (officer, ask) = (call(&house, OFFICER), whom_packing_saw());
    let two: Vec<_> = (0..2).map(|_| house.run(vault.seen_by(&officer, &ask)).unwrap()).collect();
    let third = house.runtime.spawn(async move {
        let mut answer = vault.seen_by(&officer, &ask).await?;
        let mut seen = 0;
        while let Some(part) = answer.recv().await {
            if let Part::Rows(rows) = part? {
                seen += rows.len();
            }
        }
        Ok::<_, strongroom::vault::Error>(seen)
    });
    std::thread::sleep(Duration::from_millis(500));
    assert!(!third.is_finished(), "two are answered at once");
    drop(two);
    assert_eq!(house.run(third).unwrap().unwrap(), tokens.len() + 1);
}

#[test]
fn a_token_whose_record_goes_between_its_opening_and_its_logging_is_not_told() {
    // The tokens of one release are opened in one page of this size.
    const RELEASED: usize = 64;
    const PAGES: usize = 6;
    let house = House::new();
    let tokens = store(&house, 0, RELEASED * PAGES);
    read_all(&house, &tokens);
    let vault = &house.vault();
    let (officer, ask) = (call(&house, OFFICER), whom_packing_saw());
    // Nobody reads the answer yet, so that it stops after its first parts; then the writer stops too.
    let mut answer = house.run(vault.seen_by(&officer, &ask)).unwrap();
    let pause = || std::thread::sleep(Duration::from_millis(300));
    pause();
    let (go_on, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let store = vault.store().clone();
    let holding = std::thread::spawn(move || {
        let hold = move |_: &mut strongroom::store::Tx<'_>| {
            let _ = held.lock().unwrap().recv();
            Ok(())
        };
        store.run_blocking("hold", hold).unwrap();
    });
    pause();
    // One of each page is erased: behind what holds the writer, ahead of the next page's entry.
    let going: Vec<&String> = tokens.iter().step_by(RELEASED).collect();
    let erasing: Vec<_> = going
        .iter()
        .map(|token| {
            let (vault, shop) = (vault.clone(), call(&house, (Role::Shop, "backend")));
            let key = IdempotencyKey::parse("idempotency_key", format!("erase-{token}")).unwrap();
            let erase = Erase { key, token: Token::parse(token).unwrap(), reason: EraseReason::SubjectRequest };
            house.runtime.spawn(async move { vault.erase(&shop, &erase).await })
        })
        .collect();
    pause();
    let (mut told, mut parts) = (Vec::new(), Vec::new());
    // Now there is room for a part: the next page is opened, and its entry waits.
    parts.extend(house.run(answer.recv()));
    parts.extend(house.run(answer.recv()));
    parts.extend(house.run(answer.recv()));
    pause();
    go_on.send(()).unwrap();
    while let Some(part) = house.run(answer.recv()) {
        parts.push(part);
    }
    for part in parts {
        let Part::Rows(rows) = part.unwrap() else { continue };
        told.extend(rows.into_iter().filter_map(|row| match row {
            Seen::Subject(seen) => Some(seen.tokens[0].to_text()),
            Seen::Summary(_) => None,
        }));
    }
    holding.join().unwrap();
    for erasing in erasing {
        house.run(erasing).unwrap().unwrap();
    }

    let story = log(&house);
    let first_erasure = story.iter().position(|entry| entry.action == Action::Erase).unwrap();
    let releases = story[..first_erasure].iter().filter(|entry| entry.action == Action::SeenBy).count() - 1;
    assert!((1..PAGES).contains(&releases), "{releases} pages went before the erasures, and one was open");
    let told: BTreeSet<&String> = told.iter().collect();
    let of_those_that_went: Vec<bool> = going.iter().map(|token| told.contains(token)).collect();
    assert_eq!(of_those_that_went, (0..PAGES).map(|page| page < releases).collect::<Vec<_>>());
    assert!(tokens.iter().filter(|token| !going.contains(token)).all(|token| told.contains(token)));
}

#[test]
fn a_question_that_is_not_one_is_refused_by_its_field_and_logged() {
    let house = House::new();
    let token = house.tokenize(order(1));
    let told = |status: Status| {
        let field = status.get_error_details().bad_request().unwrap().field_violations[0].field.clone();
        (reason(&status), field)
    };
    let at = |micros: i64| Some(wire_time(START.plus(micros)));
    let mut officer = inquiry(&house, OFFICER);
    let who = |token: &str, since, until| WhoSawRequest { token: token.to_owned(), since, until, everything: false };
    let seen = |role, name: &str, certificate: &str, since| SeenByRequest {
        role,
        name: name.to_owned(),
        certificate: certificate.to_owned(),
        since,
        until: None,
    };
    let explained = |id: &str| ExplainRequest { request_id: id.to_owned() };
    let refused: Vec<(String, String)> = vec![
        told(house.run(officer.who_saw(who("srt1canary-7f3a", None, None))).map(drop).unwrap_err()),
        told(house.run(officer.who_saw(who(&token, at(5), at(5)))).map(drop).unwrap_err()),
        told(house.run(officer.seen_by(seen(0, "swift", "", at(0)))).map(drop).unwrap_err()),
        told(house.run(officer.seen_by(seen(2, "Swift", "", at(0)))).map(drop).unwrap_err()),
        told(house.run(officer.seen_by(seen(2, "swift", "7f3a", at(0)))).map(drop).unwrap_err()),
        told(house.run(officer.seen_by(seen(2, "swift", "", None))).map(drop).unwrap_err()),
        told(house.run(officer.refusals(RefusalsRequest { since: at(0), until: at(-1) })).map(drop).unwrap_err()),
        told(house.run(officer.explain(explained(""))).map(drop).unwrap_err()),
        told(house.run(officer.explain(explained("7f3a"))).map(drop).unwrap_err()),
    ];
    let expected = [
        ("NOT_A_TOKEN", "token"),
        ("NOT_A_PERIOD", "until"),
        ("UNKNOWN", "role"),
        ("NOT_A_NAME", "name"),
        ("NOT_A_HASH", "certificate"),
        ("NOT_A_PERIOD", "since"),
        ("NOT_A_PERIOD", "until"),
        ("MISSING", "request_id"),
        ("NOT_A_HASH", "request_id"),
    ];
    assert_eq!(refused, expected.map(|(reason, field)| (reason.to_owned(), field.to_owned())));
    let logged = people::refusals(&house).into_iter().filter(|refusal| refusal.1 == RefusalCode::Invalid);
    assert_eq!(logged.count(), expected.len());
}

#[test]
fn no_leap_of_the_clock_hides_an_entry() {
    let house = House::new();
    let token = house.tokenize(order(1));
    let packing = (Role::Warehouse, "packing");
    let read_now = || {
        read(&house, packing, &token, &[Field::Address], Purpose::Fulfilment).unwrap();
        house.clock.now()
    };
    let first = read_now();
    house.clock.leap(30 * DAY);
    let ahead = read_now();
    house.clock.leap(-30 * DAY);
    house.clock.advance(HOUR);
    let back = read_now();
    for at in [first, ahead, back] {
        let period = (at, at.plus(1));
        let seen: Vec<_> =
            who_saw(&house, &token, Some(period), false).unwrap().iter().map(|one| micros(one.at)).collect();
        assert_eq!(seen, [at]);
        let (subjects, sums) = seen_by(&house, packing, period);
        assert_eq!((subjects.len(), sums.showed, sums.gone_subject_days), (1, 1, 0));
    }
    let (subjects, _) = seen_by(&house, packing, (START, ahead.plus(DAY)));
    assert_eq!(subjects[0].times, 3);
}

#[test]
fn a_log_that_was_altered_answers_no_question_and_the_operator_is_told() {
    let mut house = House::new();
    let token = house.tokenize(order(1));
    read(&house, (Role::Warehouse, "packing"), &token, &[Field::Address], Purpose::Fulfilment).unwrap();
    house.stop();
    {
        let database = Connection::open(&house.config.store.database).unwrap();
        let cut = "UPDATE audit_batch SET entries = substr(entries, 1, length(entries) - 3) WHERE first = \
                   (SELECT MIN(first) FROM audit_batch)";
        assert_eq!(database.execute(cut, []).unwrap(), 1);
    }
    house.start();
    let since = Some(wire_time(START.plus(-DAY)));
    let mut officer = inquiry(&house, OFFICER);
    let refused = rows!(house, officer.refusals(RefusalsRequest { since, until: None }), groups).unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::DataLoss, "TAMPERED"));
    assert_eq!(reason(&who_saw(&house, &token, None, false).unwrap_err()), "TAMPERED");
    let mut told = 0;
    let mut each = |batch: strongroom::audit::verify::Batch, _| {
        let entries = strongroom::audit::verify::unpack(&batch.entries).unwrap_or_default();
        told += entries.iter().filter(|entry| entry.action == Action::Tamper).count();
        true
    };
    house.vault().store().audit_batches(&mut each).unwrap();
    assert_eq!(told, 2);
}
