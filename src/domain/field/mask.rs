//! What a masked value shows. INVARIANT: at most four characters of the value, and never more than a third of it.

use zeroize::Zeroizing;

const HIDDEN: &str = "•••";

/// The last characters of `text`, at most `most`.
pub fn tail(text: &str, most: usize) -> Zeroizing<String> {
    let length = text.chars().count();
    let shown = most.min(length / 3);
    let from = text.char_indices().nth(length - shown).map_or(text.len(), |(at, _)| at);
    Zeroizing::new([HIDDEN, text.get(from..).unwrap_or_default()].concat())
}

/// The local part's first character and a top-level domain of at most three.
pub fn email(address: &str) -> Zeroizing<String> {
    let (local, domain) = address.rsplit_once('@').unwrap_or((address, ""));
    let first = if local.chars().count() < 3 { None } else { local.chars().next() };
    let top = domain.rsplit_once('.').map(|(_, top)| top).filter(|top| top.chars().count() <= 3);

    let mut masked = Zeroizing::new(String::with_capacity(address.len() + 2 * HIDDEN.len() + 2));
    masked.extend(first);
    masked.push_str(HIDDEN);
    masked.push('@');
    masked.push_str(HIDDEN);
    if let Some(top) = top {
        masked.push('.');
        masked.push_str(top);
    }
    masked
}
