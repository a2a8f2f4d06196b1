//! Time passes: events are reported as they happen, and every record goes when it is due. INVARIANT: what is due is known here
//! from the stories alone; the vault is asked the midnight before, at it, and after the sweeper.

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::plan::{Step, midnight};
use super::shop::{IN_FLIGHT, Shop};
use crate::cli::Failure;
use crate::cli::client::{answer, to_wire};
use crate::domain::time::{DAY, Timestamp};
use crate::domain::vocabulary::EventKind;
use crate::rpc::proto::delivery_service_client::DeliveryServiceClient;
use crate::rpc::proto::{ConfirmDeliveryRequest, Field, Outcome, ReportEventRequest, RevokeShipmentRequest};

/// What has become of the orders so far.
#[derive(Default)]
pub struct Year {
    /// Orders by the day whose midnight first finds them due.
    due: BTreeMap<i64, Vec<usize>>,
    /// What happens, by day.
    steps: BTreeMap<i64, Vec<(usize, Step)>>,
    /// Still readable at the last midnight before.
    pub in_time: usize,
    /// Refused at the first midnight after, before the sweeper came.
    pub refused: usize,
    pub erased: usize,
    /// Midnights at which the sweeper destroyed another number than was due.
    pub wrong_sweeps: usize,
    /// Records that are not the file's and live on.
    pub others_kept: usize,
    pub destroyed: usize,
    /// The orders that were desensitized, by month (year × 12 + month − 1) and country.
    pub cells: BTreeMap<i64, BTreeMap<String, Vec<usize>>>,
    month: Month,
}

/// One line of the table.
#[derive(Default, Clone)]
pub struct Month {
    pub stored: usize,
    pub due: usize,
    pub desensitized: usize,
    pub kept: usize,
    /// Of the kept: their 60 days are over, but a case or a refund is open.
    pub waiting: usize,
}

impl Year {
    pub fn of(shop: &Shop<'_>) -> Self {
        let mut year = Self::default();
        for (order, story) in shop.stories.iter().enumerate() {
            let since = story.due().since(midnight(0));
            year.due.entry((since + DAY - 1) / DAY).or_default().push(order);
            for step in &story.steps {
                year.steps.entry(step.day).or_default().push((order, *step));
            }
        }
        year
    }

    /// The day of the last due.
    pub fn last_day(&self) -> i64 {
        self.due.keys().next_back().copied().unwrap_or(0)
    }

    /// The midnight that ends `day`: what happened is reported, what is due goes.
    pub fn midnight(&mut self, day: i64, shop: &mut Shop<'_>) -> Result<(), Failure> {
        self.month.stored += shop.stories.iter().filter(|story| story.placed == day).count();
        self.report(day, shop)?;
        let due = self.stored_and_due(day, shop);
        self.refused += outcomes(shop, &due, Outcome::Expired)?;
        let destroyed = shop.stage.sweep()?;
        self.destroyed += destroyed;
        self.wrong_sweeps += usize::from(destroyed != due.len());
        self.erased += outcomes(shop, &due, Outcome::Erased)?;
        self.in_time += outcomes(shop, &self.stored_and_due(day + 1, shop), Outcome::Granted)?;
        self.month.due += due.len();
        self.month.desensitized += destroyed;
        let month = self.cells.entry(month_number(midnight(day))).or_default();
        for (place, order) in due.iter().filter_map(|place| Some((*place, shop.orders.get(*place)?))) {
            month.entry(order.address.country.clone()).or_default().push(place);
        }
        Ok(())
    }

    /// Closes the month's line.
    pub fn close_month(&mut self, shop: &Shop<'_>) -> Month {
        let now = shop.stage.now();
        let stored = shop.tokens.iter().zip(shop.stories).filter(|(token, _)| token.is_some());
        let kept: Vec<_> = stored.filter(|(_, story)| story.due() > now).collect();
        let waiting = kept.iter().filter(|(_, story)| story.is_waiting(now)).count();
        Month { kept: kept.len() + self.others_kept, waiting, ..std::mem::take(&mut self.month) }
    }

    fn stored_and_due(&self, day: i64, shop: &Shop<'_>) -> Vec<usize> {
        let due = self.due.get(&day).map(Vec::as_slice).unwrap_or_default();
        due.iter().copied().filter(|order| shop.token(*order).is_some()).collect()
    }

    fn report(&self, day: i64, shop: &mut Shop<'_>) -> Result<(), Failure> {
        let steps = self.steps.get(&day).map(Vec::as_slice).unwrap_or_default();
        let calls: Vec<_> = steps.iter().filter_map(|(order, step)| call(shop, *order, *step)).collect();
        shop.stage.run(stream::iter(calls).buffer_unordered(IN_FLIGHT).try_collect::<()>())?;
        let signed = steps.iter().filter(|(_, step)| step.kind == EventKind::Delivered).map(|(order, _)| *order);
        let signed: Vec<usize> = signed.filter(|order| shop.token(*order).is_some()).collect();
        shop.ask_again(&signed)
    }
}

/// The call, or calls, that tell the vault of one step; none for an order that it does not have.
fn call(shop: &Shop<'_>, order: usize, step: Step) -> Option<impl Future<Output = Result<(), Failure>> + use<>> {
    let story = shop.stories.get(order)?;
    let (token, grant_id) = (shop.token(order)?.clone(), shop.grants.get(order)?.clone()?);
    let (serial, at) = (story.serial.clone(), Some(to_wire(step.at)));
    let mut lifecycle = shop.stage.lifecycle.clone();
    let mut carrier = DeliveryServiceClient::new(shop.stage.carriers.get(story.carrier)?.clone());
    let idempotency_key = format!("{}-{order}", step.kind);
    Some(async move {
        let told = async {
            if step.kind == EventKind::Delivered {
                // The carrier's own word.
                let request = ConfirmDeliveryRequest { idempotency_key, serial, delivered_at: at };
                return answer(carrier.confirm_delivery(request)).await.map(drop);
            }
            if step.kind == EventKind::Cancelled {
                let idempotency_key = format!("revoke-{order}");
                answer(lifecycle.revoke_shipment(RevokeShipmentRequest { idempotency_key, grant_id })).await?;
            }
            let kind = i32::from(step.kind.code());
            let request = ReportEventRequest { idempotency_key, token, kind, ordinal: 0, occurred_at: at };
            answer(lifecycle.report_event(request)).await.map(drop)
        };
        told.await.map_err(|failure| Failure {
            message: format!("order {}, {}: {}", order + 1, step.kind, failure.message),
            ..failure
        })
    })
}

/// How many of the orders' addresses are answered this way.
fn outcomes(shop: &Shop<'_>, orders: &[usize], outcome: Outcome) -> Result<usize, Failure> {
    let read = shop.read(orders, &[Field::Address])?;
    let is_so = |read: &&Option<_>| {
        read.as_ref().is_some_and(|read: &crate::rpc::proto::DetokenizeResponse| {
            read.fields.iter().map(|field| field.outcome()).eq([outcome])
        })
    };
    Ok(read.iter().filter(is_so).count())
}

/// Year × 12 + month − 1, UTC.
pub fn month_number(at: Timestamp) -> i64 {
    let date = at.to_jiff().to_zoned(jiff::tz::TimeZone::UTC);
    i64::from(date.year()) * 12 + i64::from(date.month()) - 1
}

/// `Feb 2026`.
pub fn month_name(at: Timestamp) -> String {
    at.to_jiff().to_zoned(jiff::tz::TimeZone::UTC).strftime("%b %Y").to_string()
}
