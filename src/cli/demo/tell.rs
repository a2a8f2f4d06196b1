//! The acts as they are told: figures of what was seen, and claims about them. INVARIANT: no act prints a value of an order;
//! orders are spoken of by their place in the file.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use tonic_types::StatusExt as _;

use super::leaks::{Kind, Leaks};
use super::orders::Order;
use super::plan::{CARRIERS, Fate, SELLING_DAYS, Story};
use super::shop::Shop;
use super::stage::{Folder, Stage};
use super::thief::Thief;
use super::transcript::{Transcript, count};
use super::wanted::StillWanted;
use super::year::{Month, Year};
use crate::cli::Failure;
use crate::cli::keys::unlock;
use crate::cli::serve::failed;
use crate::config::Config;
use crate::domain::token::{Token, TokenDigest};
use crate::domain::vocabulary::EventKind;
use crate::store::{LogVerdict, verify_log, verify_state};

/// A month's name and figures, and whether the operator sees as many records.
pub struct Line {
    pub name: String,
    pub month: Month,
    pub agrees: bool,
}

pub fn orders(out: &mut Transcript, orders: &[Order], stories: &[Story]) -> Result<(), Failure> {
    let countries: BTreeSet<&str> = orders.iter().map(|order| order.address.country.as_str()).collect();
    let with_phone = orders.iter().filter(|order| order.phone.is_some()).count();
    out.act("The orders")?;
    out.say(&format!(
        "{} orders to {} countries, {} with a phone number. The seed deals to each its day, its carrier, its parcel number, and \
         what becomes of it:",
        count(orders.len()),
        count(countries.len()),
        count(with_phone)
    ))?;
    let mut fates = BTreeMap::<Fate, usize>::new();
    stories.iter().for_each(|story| *fates.entry(story.fate).or_default() += 1);
    for (fate, times) in fates {
        let what = match fate {
            Fate::Plain => "arrive, and that is all",
            Fate::Cancelled => "are cancelled before they are sent; the refund is settled",
            Fate::Case => "arrive and come back with an after-sales case, which is closed",
            Fate::Refund => "arrive and are refunded",
            Fate::CaseLeftOpen => "arrive and lead to a case that nobody ever closes",
            Fate::Lost => "never arrive",
        };
        out.line(&format!("  {:>9}  {what}", count(times).to_string()))?;
    }
    Ok(())
}

pub fn intake(out: &mut Transcript, shop: &Shop<'_>) -> Result<(), Failure> {
    let (all, stored) = (shop.orders.len(), shop.tokens.iter().flatten().count());
    for line in shop.refused.iter().take(10) {
        out.line(&format!("  refused: {line}"))?;
    }
    out.claim(stored == all, &format!("{} of {} orders went behind tokens", count(stored), count(all)))?;
    let same = format!(
        "{} of {} were read back the same: phone numbers in the international form E.164, all else byte-equal to the file",
        count(shop.equal),
        count(all)
    );
    out.claim(shop.equal == all, &same)?;
    let unsent = shop.orders.iter().filter(|order| order.emergency_contact.is_some()).count();
    out.say(&format!("{} emergency contacts not sent: the policy does not collect them.", count(unsent)))?;
    let with_contact = |(number, order): (usize, &Order)| {
        Some((number + 1, order.request_with_contact(format!("with-contact-{number}"))?))
    };
    let Some((order, request)) = shop.orders.iter().enumerate().find_map(with_contact) else { return Ok(()) };
    let refused = shop.stage.run(shop.stage.tokens.clone().tokenize(request)).err();
    let details = refused.map(|status| status.get_error_details());
    let reason = details.as_ref().and_then(|details| details.error_info()).map(|info| info.reason.as_str());
    let field = details.as_ref().and_then(|details| details.bad_request()?.field_violations.first());
    let is_so = reason == Some("NOT_COLLECTED") && field.is_some_and(|field| field.field == "emergency_contact");
    out.claim(
        is_so,
        &format!("sending one all the same (order {order}'s) is refused: NOT_COLLECTED, emergency_contact"),
    )
}

pub fn carriers(out: &mut Transcript, shop: &Shop<'_>) -> Result<(), Failure> {
    let seen = &shop.seen;
    let stored = shop.stories.iter().zip(&shop.tokens).filter(|(_, token)| token.is_some()).map(|(story, _)| story);
    let parcels = stored.clone().count();
    let is_signed =
        |story: &&Story| story.steps.iter().any(|step| step.kind == EventKind::Delivered && step.day <= SELLING_DAYS);
    let signed = stored.filter(is_signed).count();
    out.act("Three carriers")?;
    out.say(&format!(
        "In those days {} each asked for every parcel, their own and each other's: {} questions. The answers were taken as raw \
         bytes and read by a reader that knows nothing of our protocol.",
        CARRIERS.join(", "),
        count(seen.asked)
    ))?;
    let own = format!(
        "{} of {} answers about their own parcels hold exactly two fields: the address, equal to the file's, and the parcel \
         number",
        count(seen.own),
        count(parcels)
    );
    out.claim(seen.own == parcels, &own)?;
    let others = format!(
        "{} of {} answers about each other's parcels are NOT_FOUND, byte for byte the answer to a number that never was",
        count(seen.others),
        count(2 * parcels)
    );
    out.claim(seen.others == 2 * parcels && seen.asked == 3 * parcels, &others)?;
    let again = format!(
        "{} of {} parcels signed for by then were asked for again by their own carrier: NOT_FOUND, the same bytes",
        count(seen.signed),
        count(signed)
    );
    out.claim(seen.signed == signed, &again)?;
    out.claim(seen.more.is_empty(), &format!("carriers that saw anything else: {}", seen.more.len()))
}

pub fn passing(out: &mut Transcript) -> Result<(), Failure> {
    out.act("A year passes")?;
    out.say(
        "The policy says: 60 days after a parcel was signed for, the customer's data is desensitized; what is open (a case, a \
         refund) is waited for; nothing is kept for more than a year. Every midnight the sweeper destroys what is due.",
    )?;
    out.line(
        "\n  month       new orders    fell due   desensitized        kept   of these waiting for a case or refund",
    )
}

pub fn months(out: &mut Transcript, table: &mut Vec<Line>) -> Result<(), Failure> {
    for Line { name, month, agrees } in table.drain(..) {
        let Month { stored, due, desensitized, kept, waiting } = month;
        let figures = [stored, due, desensitized, kept, waiting].map(|figure| count(figure).to_string());
        let [stored, due, desensitized, kept, waiting] = figures;
        out.line(&format!("  {name:<10} {stored:>11} {due:>11} {desensitized:>14} {kept:>11} {waiting:>11}"))?;
        if !agrees {
            out.claim(false, "the vault's own status counts the same records")?;
        }
    }
    Ok(())
}

pub fn year(out: &mut Transcript, year: &Year, shop: &Shop<'_>) -> Result<(), Failure> {
    let all = shop.tokens.iter().flatten().count();
    let of = |figure: usize| format!("{} of {} orders", count(figure), count(all));
    out.line("")?;
    out.say(
        "When each order had to go was worked out apart from the vault, from the policy's words and the order's story.",
    )?;
    let in_time = format!("{} were still readable at the last midnight before (none went early)", of(year.in_time));
    out.claim(year.in_time == all, &in_time)?;
    let refused = format!("{} were EXPIRED at the first midnight after, before the sweeper came", of(year.refused));
    out.claim(year.refused == all, &refused)?;
    out.claim(year.erased == all, &format!("{} were ERASED once it had been there (none went late)", of(year.erased)))?;
    let sweeps =
        format!("at every midnight the sweeper destroyed exactly what was due, {} in all", count(year.destroyed));
    out.claim(year.wrong_sweeps == 0 && year.destroyed == all, &sweeps)?;
    let more = shop.seen.more.len();
    out.claim(more == 0, &format!("carriers that saw more than their parcels, to the end of the year: {more}"))
}

pub fn theft(
    out: &mut Transcript,
    thief: &Thief,
    shop: &Shop<'_>,
    wanted: &StillWanted,
    folder: &Folder,
) -> Result<(), Failure> {
    out.act("A thief takes everything")?;
    let theft = thief.steal(&shop.stage.config, &folder.path.join("stolen"))?;
    let (records, values) = theft.remembered;
    out.say(&format!(
        "The thief copies the database, its write-ahead log, the erasure ledger, the keyring AND the root key that opens it, from \
         the machine while it runs. This thief also remembers all the encrypted bytes of earlier days, {} values of {} records, \
         and tries every key that the stolen files still hold ({}) on every value, remembered or stolen ({}).",
        count(values),
        count(records),
        count(theft.haul.keys),
        count(theft.haul.values)
    ))?;
    let due = digests(shop.stage, &shop.tokens.iter().flatten().collect::<Vec<_>>());
    let live = digests(shop.stage, &wanted.tokens.iter().collect::<Vec<_>>());
    let opened = theft.haul.opened.intersection(&due).count();
    out.claim(
        opened == 0,
        &format!("of the {} records that were due, the thief opens {}", count(due.len()), count(opened)),
    )?;
    let held = theft.haul.opened.intersection(&live).count();
    let control = format!(
        "control: of the {} records still wanted (an account in use, an order of the last day) the thief opens {held}, so the \
         attack works",
        live.len()
    );
    out.claim(held == live.len() && wanted.are_readable(shop.stage)?, &control)?;
    let keys = theft.keys_found.intersection(&due).count();
    let bytes = count(theft.bytes);
    out.claim(
        keys == 0,
        &format!("keys of due records anywhere in the {bytes} bytes taken, free pages included: {}", count(keys)),
    )?;
    let values = theft.values_found.intersection(&due).count();
    out.claim(values == 0, &format!("encrypted values of due records left there: {}", count(values)))?;
    let found = theft.keys_found.intersection(&live).count();
    let control = format!("control: the same search finds the keys of {found} of the {} still wanted", live.len());
    out.claim(found == live.len(), &control)
}

fn digests(stage: &Stage, tokens: &[&String]) -> BTreeSet<TokenDigest> {
    tokens.iter().filter_map(|token| Some(Token::parse(token).ok()?.digest(&stage.tenant))).collect()
}

pub fn statistics(out: &mut Transcript, shop: &Shop<'_>, year: &Year) -> Result<(), Failure> {
    out.act("What is left")?;
    let months = shop.stage.published()?;
    let (mut published, mut right, mut fewest, mut by_country) = (0, true, usize::MAX, BTreeMap::<String, u64>::new());
    let customers = |orders: &[usize]| {
        orders
            .iter()
            .filter_map(|order| shop.orders.get(*order))
            .map(|order| &order.customer)
            .collect::<BTreeSet<_>>()
            .len()
    };
    for month in &months {
        // The file and the stories say what happened; what is published must be that, but for what is too small to be told.
        let mut happened = year.cells.get(&number(&month.month)).cloned().unwrap_or_default();
        for cell in &month.cells {
            let orders = happened.remove(&cell.country).unwrap_or_default();
            right &= cell.records == orders.len() as u64;
            fewest = fewest.min(customers(&orders));
            *by_country.entry(cell.country.clone()).or_default() += cell.records;
        }
        let rest: Vec<usize> = happened.into_values().flatten().collect();
        if month.other > 0 {
            right &= month.other == rest.len() as u64;
            fewest = fewest.min(customers(&rest));
        }
        published += month.cells.len() + usize::from(month.other > 0);
    }
    out.say(&format!(
        "Of the customers nothing; of the business, {} figures for the {} months that are over: orders by country, whatever \
         speaks of fewer than 10 customers folded together, and months with fewer of them not told at all.",
        count(published),
        months.len()
    ))?;
    let mut most: Vec<_> = by_country.into_iter().collect();
    most.sort_by_key(|(country, orders)| (Reverse(*orders), country.clone()));
    let most: Vec<_> = most.iter().take(8).map(|(country, orders)| format!("{country} {}", count(*orders))).collect();
    if !most.is_empty() {
        out.say(&format!("The most went to: {}.", most.join(", ")))?;
    }
    out.claim(published > 0 && right, "each figure is what the file and the stories say it must be")?;
    out.claim(fewest >= 10, &format!("each speaks of 10 customers or more: the fewest are {}", count(fewest)))
}

/// Year × 12 + month − 1 of `2026-03`.
fn number(month: &str) -> i64 {
    let mut parts = month.split('-').map(|part| part.parse().unwrap_or(0));
    parts.next().unwrap_or(0) * 12 + parts.next().unwrap_or(0) - 1
}

pub fn log(out: &mut Transcript, config: &Config, entries: u64) -> Result<(), Failure> {
    let keyring = unlock(&config.root, &config.keyring)?;
    let verdict = verify_log(&config.store.database, Some(&keyring), None);
    match verdict.map_err(|error| failed("cannot read the audit log", &error))? {
        LogVerdict::Sound(found) => {
            let found_entries = count(found.entries);
            let claim = format!("the audit log verifies from its first entry to its last: {found_entries} entries");
            out.claim(found.entries >= entries && entries > 0, &claim)?;
            let flaws = verify_state(&config.store.database, &keyring);
            let flaws = flaws.map_err(|error| failed("cannot compare the store with its log", &error))?;
            out.claim(flaws.is_empty(), "every row of the store is as the log left it")?;
            out.line(&format!("    tree root {}", hex::encode(found.root)))
        }
        LogVerdict::Flawed(flaw) => out.claim(false, &format!("the audit log verifies: {flaw}")),
    }
}

pub fn leaks(out: &mut Transcript, mut leaks: Leaks, tokens: &[String], folder: &Folder) -> Result<(), Failure> {
    out.act("The search for leaks")?;
    out.say(
        "Everything that was written is searched: database, write-ahead log, ledger, keyring, log, the stolen copies and this \
         text, on three days while the vault was full and now; for every value of 8 bytes or more, as it is, in hexadecimal, in \
         base64, and phone numbers as bare digits.",
    )?;
    let mut of_tokens = Leaks::of_tokens(tokens)?;
    for search in [&mut leaks, &mut of_tokens] {
        search.search_folder(&folder.path)?;
        search.search("this text", out.as_bytes());
    }
    out.say(&format!("{} bytes were searched.", count(leaks.searched)))?;
    for (search, kind, what) in [
        (&leaks, Kind::Stored, "names, addresses, contacts and customer references"),
        (&leaks, Kind::Unsent, "values of emergency contacts, never collected"),
        (&leaks, Kind::Serial, "parcel numbers"),
        (&of_tokens, Kind::Token, "tokens"),
    ] {
        let (all, found) = search.counts(kind);
        out.claim(found == 0, &format!("{what}: found {} of {}", count(found), count(all)))?;
    }
    for place in leaks.places().iter().chain(&of_tokens.places()) {
        out.line(&format!("    found in {place}"))?;
    }
    Ok(())
}
