//! What may be seen and how long it may stay. INVARIANT: every decision in here is a pure function of its arguments; no
//! clock, no store, no key, and whatever no rule names is refused.

pub mod approval;
pub mod cube;
pub mod enrolment;
pub mod facts;
pub mod forecast;
pub mod hold;
pub mod leaving;
pub mod limits;
pub mod release;
pub mod retention;
pub mod webhook;
