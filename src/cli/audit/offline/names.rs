//! What codes of the log are called, for the verifier. INVARIANT: as the vault calls them (`tests/log.rs` compares every one), and
//! written here again, so that the verifier needs nothing of the vault's.

/// Codes and their names.
pub type Names = &'static [(u8, &'static str)];

pub fn name(names: Names, code: u8) -> Option<&'static str> {
    names.iter().find(|(known, _)| *known == code).map(|(_, name)| *name)
}

pub const ROLES: Names = &[
    (1, "shop"),
    (2, "carrier"),
    (3, "warehouse"),
    (4, "customer-service"),
    (5, "finance"),
    (6, "privacy-officer"),
    (7, "operator"),
    (8, "auditor"),
    (9, "key-admin"),
];

pub const ACTIONS: Names = &[
    (1, "tokenize"),
    (2, "detokenize"),
    (3, "correct"),
    (4, "erase"),
    (5, "describe"),
    (6, "report_event"),
    (7, "grant_shipment"),
    (8, "revoke_shipment"),
    (9, "get_delivery"),
    (10, "confirm_delivery"),
    (11, "status"),
    (12, "purge"),
    (13, "desensitize"),
    (14, "start"),
    (15, "tamper"),
    (16, "replay"),
    (17, "lock_out"),
    (18, "replay_ledger"),
    (19, "rewrap"),
    (20, "stop"),
    (21, "confirm_clock"),
    (30, "request_approval"),
    (31, "approve"),
    (32, "reject"),
    (33, "enrol_caller"),
    (34, "suspend_caller"),
    (35, "resume_caller"),
    (36, "replace_pins"),
    (37, "list_callers"),
    (38, "list_approvals"),
    (39, "show_approval"),
    (40, "checkpoint"),
    (41, "inclusion_proof"),
    (42, "consistency_proof"),
    (43, "export"),
    (44, "cut_log"),
    (45, "expire_log"),
    (50, "list_keys"),
    (51, "rotate_kek"),
    (52, "destroy_epoch"),
    (53, "postpone_epoch"),
    (54, "rotate_root"),
    (55, "find"),
    (56, "epoch_destroyed"),
    (60, "seal"),
    (61, "unseal"),
    (62, "seal_status"),
    (70, "who_saw"),
    (71, "seen_by"),
    (72, "refusals"),
    (73, "unused_grants"),
    (74, "explain"),
    (80, "stage"),
    (81, "explain_retention"),
    (82, "propose_policy"),
    (83, "adopt_policy"),
    (90, "disclose"),
];

pub const REFUSALS: Names = &[
    (1, "unknown"),
    (2, "foreign"),
    (3, "forbidden"),
    (4, "denied"),
    (5, "expired"),
    (6, "erased"),
    (7, "outside_window"),
    (8, "read_limit"),
    (9, "grant_ended"),
    (10, "not_granted"),
    (11, "too_late"),
    (12, "conflict"),
    (13, "tampered"),
    (14, "invalid"),
    (15, "certificate"),
    (16, "limit"),
    (17, "unavailable"),
    (30, "not_enrolled"),
    (31, "role_mismatch"),
    (32, "suspended"),
    (33, "issuer_mismatch"),
    (34, "spki_mismatch"),
    (35, "same_person"),
    (36, "same_key"),
    (37, "same_line"),
    (38, "approval_over"),
    (39, "already_enrolled"),
    (45, "epoch_in_use"),
    (46, "keyring_not_saved"),
    (47, "no_next_root"),
    (50, "not_a_share"),
    (51, "other_shares"),
    (52, "wrong_share"),
    (53, "repeated_share"),
    (54, "cannot_open"),
    (55, "locked_out"),
];

pub const CLASSES: Names = &[(1, "order"), (2, "account"), (3, "case")];

pub const PURPOSES: Names = &[
    (1, "fulfilment"),
    (2, "delivery"),
    (3, "notification"),
    (4, "self_service"),
    (5, "after_sales"),
    (6, "refund"),
    (7, "identity_check"),
    (8, "subject_request"),
    (9, "legal_disclosure"),
];

pub const FIELDS: Names = &[
    (1, "account_name"),
    (2, "recipient_name"),
    (3, "address"),
    (4, "phone"),
    (5, "email"),
    (6, "emergency_contact"),
    (7, "payment_account"),
    (8, "note"),
];

pub const OUTCOMES: Names =
    &[(1, "granted"), (2, "masked"), (3, "not_set"), (4, "denied"), (5, "expired"), (6, "erased")];
