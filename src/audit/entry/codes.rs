//! What entries tell of, as codes: actions, and reasons of refusals. INVARIANT: a code is never reused, 0 is nobody, and what is written
//! about one here is what people are told about it.

use std::fmt;

/// Enumerations with stable codes (0 is nobody, none is ever reused) and names for listings. What is written about an item
/// here is also what people are told about it.
macro_rules! coded {
    ($($(#[$doc:meta])* $name:ident { $($(#[doc = $told:literal])* $item:ident = $code:literal $text:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum $name { $($(#[doc = $told])* $item = $code,)* }

        impl $name {
            pub const ALL: &[$name] = &[$($name::$item,)*];

            pub fn code(self) -> u8 {
                self as u8
            }

            pub fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some($name::$item),)* _ => None }
            }

            /// What it means, in a sentence or two; empty where the name says it all.
            pub fn meaning(self) -> &'static str {
                match self { $($name::$item => concat!("", $($told),*).trim_ascii(),)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($name::$item => $text,)* })
            }
        }
    )*};
}

coded! {
    /// What was asked for, or what the vault did by itself.
    Action {
        Tokenize = 1 "tokenize",
        Detokenize = 2 "detokenize",
        Correct = 3 "correct",
        Erase = 4 "erase",
        Describe = 5 "describe",
        ReportEvent = 6 "report_event",
        GrantShipment = 7 "grant_shipment",
        RevokeShipment = 8 "revoke_shipment",
        GetDelivery = 9 "get_delivery",
        ConfirmDelivery = 10 "confirm_delivery",
        Status = 11 "status",
        /// Retention was over: destroyed.
        Purge = 12 "purge",
        /// Retention was over: destroyed and counted.
        Desensitize = 13 "desensitize",
        /// The vault began to serve.
        Start = 14 "start",
        /// Stored data failed its check.
        Tamper = 15 "tamper",
        /// An idempotent request came again and was answered as before.
        Replay = 16 "replay",
        /// Refusals past the lock-out, counted instead of listed.
        LockOut = 17 "lock_out",
        /// Erasures of the ledger applied again to a restored store.
        ReplayLedger = 18 "replay_ledger",
        /// What lay under a key epoch lies under a later one now.
        Rewrap = 19 "rewrap",
        /// The vault stopped serving in good order.
        Stop = 20 "stop",
        /// An operator vouched for the wall clock.
        ConfirmClock = 21 "confirm_clock",
        /// Something that takes two people was asked for. The request's number is the approval's, in all that follows.
        RequestApproval = 30 "request_approval",
        Approve = 31 "approve",
        Reject = 32 "reject",
        EnrolCaller = 33 "enrol_caller",
        SuspendCaller = 34 "suspend_caller",
        ResumeCaller = 35 "resume_caller",
        ReplacePins = 36 "replace_pins",
        ListCallers = 37 "list_callers",
        ListApprovals = 38 "list_approvals",
        ShowApproval = 39 "show_approval",
        /// A signed head of the log was asked for.
        Checkpoint = 40 "checkpoint",
        InclusionProof = 41 "inclusion_proof",
        ConsistencyProof = 42 "consistency_proof",
        /// The log, or a part of it, was taken out.
        Export = 43 "export",
        /// A year was over: its tree was closed, and the next one began.
        CutLog = 44 "cut_log",
        /// A year's entries had served their time: its last checkpoint is what remains.
        ExpireLog = 45 "expire_log",
        ListKeys = 50 "list_keys",
        /// Another key epoch is active.
        RotateKek = 51 "rotate_kek",
        /// Nothing is left under an epoch, and it is decided to go.
        DestroyEpoch = 52 "destroy_epoch",
        PostponeEpoch = 53 "postpone_epoch",
        RotateRoot = 54 "rotate_root",
        Find = 55 "find",
        /// Its key is gone from the keyring and every copy of it.
        EpochDestroyed = 56 "epoch_destroyed",
        /// Keys were wiped from memory by command.
        Seal = 60 "seal",
        /// A share of the root key came in, or the root's source was asked again.
        Unseal = 61 "unseal",
        SealStatus = 62 "seal_status",
        /// An officer asked who saw a data subject.
        WhoSaw = 70 "who_saw",
        /// An officer asked what a caller was shown; every line after the first released tokens of the subjects concerned.
        SeenBy = 71 "seen_by",
        /// Somebody asked what was refused, and why.
        Refusals = 72 "refusals",
        /// Somebody asked which shipment grants were never read.
        UnusedGrants = 73 "unused_grants",
        /// Somebody asked for the story of one request.
        Explain = 74 "explain",
        /// A field's own retention was over: shredded, and the record goes on without it.
        Stage = 80 "stage",
        /// Why and when a record and its fields are due.
        ExplainRetention = 81 "explain_retention",
        /// A new retention policy was put forward.
        ProposePolicy = 82 "propose_policy",
        /// A new retention policy took force for new records.
        AdoptPolicy = 83 "adopt_policy",
        /// Fields were disclosed to an authority, by two people.
        Disclose = 90 "disclose",
        /// A subject's erasure was asked for. The request's number is the erasure's, in all that follows.
        EraseSubject = 100 "erase_subject",
        ReceiptOf = 101 "receipt_of",
        PlaceHold = 102 "place_hold",
        LiftHold = 103 "lift_hold",
        ListHolds = 104 "list_holds",
        Published = 105 "published",
        /// Far more was due than was forecast; the sweeper waits for a person.
        PauseSweep = 106 "pause_sweep",
        ResumeSweep = 107 "resume_sweep",
        /// A month of statistics was closed and published.
        CloseMonth = 108 "close_month",
        /// A copy of the database was made.
        Backup = 120 "backup",
        /// An older copy of the database was brought up to date by the erasure ledger, from as many lines of it.
        Restore = 121 "restore",
        /// A webhook has taken announcements; the count says how many.
        Announce = 125 "announce",
        /// A webhook did not take announcements for days; they lie in its dead-letter file.
        GiveUpAnnouncing = 126 "give_up_announcing",
        /// The configuration names a webhook no more, so its announcements were dropped.
        DropAnnouncements = 127 "drop_announcements",
        /// What disappears in the days to come was asked for: a line a page. A privacy officer is told tokens by it.
        RetentionForecast = 130 "retention_forecast",
        /// How much disappears in the days to come was asked for: a line a page.
        RetentionOutlook = 131 "retention_outlook",
    }

    /// Why a request was refused. Finer than what the caller is told.
    RefusalCode {
        /// No such token or serial.
        Unknown = 1 "unknown",
        /// It is another tenant's.
        Foreign = 2 "foreign",
        /// Not for this role.
        Forbidden = 3 "forbidden",
        /// Not one of the fields is for this role and purpose.
        Denied = 4 "denied",
        /// The record's retention is over.
        Expired = 5 "expired",
        /// The record is destroyed.
        Erased = 6 "erased",
        /// Before or after the shipment grant's window.
        OutsideWindow = 7 "outside_window",
        /// The shipment grant was read as often as it allows.
        ReadLimit = 8 "read_limit",
        /// Delivered or revoked.
        GrantEnded = 9 "grant_ended",
        /// The parcel is another carrier's.
        NotGranted = 10 "not_granted",
        /// The record was due before the event came.
        TooLate = 11 "too_late",
        /// Another revision, or another request under the same idempotency key.
        Conflict = 12 "conflict",
        /// Stored data failed its authentication: it was altered outside the vault.
        Tampered = 13 "tampered",
        /// The request itself was not valid.
        Invalid = 14 "invalid",
        /// The certificate has run out or was revoked.
        Certificate = 15 "certificate",
        /// More than a bound allows.
        Limit = 16 "limit",
        /// The vault could not do its part.
        Unavailable = 17 "unavailable",
        /// Nobody has enrolled this identity.
        NotEnrolled = 30 "not_enrolled",
        /// Enrolled under another role only.
        RoleMismatch = 31 "role_mismatch",
        /// The caller or its certificate is suspended.
        Suspended = 32 "suspended",
        /// Another CA than the enrolment names.
        IssuerMismatch = 33 "issuer_mismatch",
        /// Another key than the enrolment pins.
        SpkiMismatch = 34 "spki_mismatch",
        /// Nobody approves what they asked for.
        SamePerson = 35 "same_person",
        /// Two identities with one key are one person.
        SameKey = 36 "same_key",
        /// One was enrolled by the other, or both by one.
        SameLine = 37 "same_line",
        /// Decided, carried out, or out of time.
        ApprovalOver = 38 "approval_over",
        /// The identity is enrolled otherwise.
        AlreadyEnrolled = 39 "already_enrolled",
        /// It is the active epoch, or something lies under it.
        EpochInUse = 45 "epoch_in_use",
        /// A place of the keyring could not be written or read back.
        KeyringNotSaved = 46 "keyring_not_saved",
        /// The configuration names no next root, or it cannot be used.
        NoNextRoot = 47 "no_next_root",
        /// No share of a root key, or a mistyped one.
        NotAShare = 50 "not_a_share",
        /// A share of another keyring's root.
        OtherShares = 51 "other_shares",
        /// A share that nobody was handed.
        WrongShare = 52 "wrong_share",
        /// A share that was in already.
        RepeatedShare = 53 "repeated_share",
        /// The root's source, the keyring or the store did not open.
        CannotOpen = 54 "cannot_open",
        /// Too many refusals before: refused without a look.
        LockedOut = 55 "locked_out",
        /// A legal hold stands against it.
        Held = 80 "held",
        /// The record is not destroyed.
        NotErased = 81 "not_erased",
        /// The configuration names no folder for backups.
        NoBackupFolder = 100 "no_backup_folder",
        /// The clock is behind, or not at the time that was vouched for.
        ClockNotConfirmed = 108 "clock_not_confirmed",
    }
}
