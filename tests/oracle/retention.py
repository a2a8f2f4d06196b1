"""Says on which day an order must be gone, by the sentences of the three published policies and by nothing else.

Reads one life a line as JSON and answers one day a line. A life is what a shop tells its vault, in the order in which it tells
it: [[event, number, happened, told], ...], local times. It is lived day by day: at the end of each day the question is whether the
order must be gone by now, and what is told of an order that is gone comes too late.

Where a policy leaves a figure to the shop ("fixed working days", "a specific number of years", not "indefinitely"), the life brings
the shop's figure along. This file knows nothing of the policy files, and has no line in common with the code that reads them.
"""

import calendar
import json
import sys
from datetime import date, datetime, timedelta

DAY = timedelta(days=1)


def months_later(start, months):
    """The same day of a later month, or the last day it has."""
    month = start.month - 1 + months
    year, month = start.year + month // 12, month % 12 + 1
    day = min(start.day, calendar.monthrange(year, month)[1])
    return start.replace(year=year, month=month, day=day)


def working_days_later(start, count, holidays):
    day = start
    while count > 0:
        day += DAY
        if day.weekday() < 5 and day.date() not in holidays:
            count -= 1
    return day


class Order:
    def __init__(self, life):
        self.stored = datetime.fromisoformat(life["stored"])
        self.shop = life["shop"]
        self.holidays = {date.fromisoformat(day) for day in life["holidays"]}
        self.known = {}

    def hear(self, event, number, happened):
        """The last word on each parcel, case or refund counts."""
        key = (event, number)
        self.known[key] = max(happened, self.known.get(key, happened))

    def all(self, event):
        return [at for (kind, _), at in self.known.items() if kind == event]

    def is_open(self, opened, closed):
        cases = [(number, at) for (kind, number), at in self.known.items() if kind == opened]
        return any(self.known.get((closed, number), datetime.min) < at for number, at in cases)

    def after_sales_is_open(self):
        return self.is_open("after_sales_opened", "after_sales_closed")

    def refund_is_open(self):
        return self.is_open("refund_opened", "refund_settled")

    def closings(self):
        return self.all("after_sales_closed") + self.all("refund_settled")


def kitchenware(order):
    # "does not back up user sensitive private information permanently"
    ends = [months_later(order.stored, order.shop["cap_months"])]
    # "After user account cancellation application is approved ... automatically clears ... historical glassware and cookware
    # purchase order data ... permanently within fixed working days"
    for cancelled in order.all("account_cancelled"):
        ends.append(working_days_later(cancelled, order.shop["working_days"], order.holidays))
    signed = order.all("delivered")
    # "for completed signed orders and finished refund closed-loop orders, users can apply for passive clearing of order transaction
    # record ... after after-sales 60-day guarantee period expires"
    wishes = order.all("clearing_requested")
    if wishes and signed and not order.refund_is_open():
        guarantee = max(signed) + 60 * DAY
        ends.append(max([guarantee] + wishes + order.all("refund_settled")))
    # "automatically carries out irreversible desensitization processing after exceeding 60-day after-sales return and refund
    # service cycle"; "60-day return after-sales audit and 5-10 day refund fund docking" go on meanwhile. Whoever cancels signs
    # for nothing, and the cycle covers the refund.
    cycles = [start + 60 * DAY for start in signed + order.all("cancelled")]
    if cycles and not order.after_sales_is_open() and not order.refund_is_open():
        ends.append(max(cycles + order.closings()))
    return min(ends)


def general(order):
    years = order.shop["years"]
    # A transaction that is never completed: the shop's own figure.
    ends = [months_later(order.stored, 12 * years + order.shop["grace_months"])]
    # "Order information will be retained for no more than a specific number of years from the date of completion of the
    # transaction, and will be anonymized or deleted after expiration."
    completed = order.all("completed") + order.all("cancelled")
    if completed:
        ends.append(max(months_later(at, 12 * years) for at in completed))
    # "If mistaken collection is discovered, the relevant data will be deleted promptly."
    ends += order.all("minor_found")
    return min(ends)


def cross_border(order):
    # "We will not store user personal information indefinitely."
    ends = [months_later(order.stored, order.shop["cap_months"])]
    # "we will retain user order data and personal information for 3 years after the completion of order transactions and
    # after-sales services": both must be complete.
    completed = order.all("completed") + order.all("cancelled")
    if completed and not order.after_sales_is_open() and not order.refund_is_open():
        ends.append(max(months_later(at, 36) for at in completed + order.closings()))
    return min(ends)


POLICIES = {"kitchenware": kitchenware, "general": general, "cross-border": cross_border}


def live(life):
    order, gone_by = Order(life), POLICIES[life["policy"]]
    told = [(kind, number, datetime.fromisoformat(happened), datetime.fromisoformat(heard))
            for kind, number, happened, heard in life["events"]]
    today = order.stored.replace(hour=0, minute=0)
    end = gone_by(order)
    while True:
        tomorrow = today + DAY
        while told and told[0][3] < tomorrow:
            kind, number, happened, heard = told.pop(0)
            if heard < end:
                order.hear(kind, number, happened)
                end = gone_by(order)
            else:
                return today
        if end < tomorrow:
            return today
        today = tomorrow


def main():
    for line in sys.stdin:
        print(live(json.loads(line)).date().isoformat())


main()
