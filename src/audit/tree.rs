//! The Merkle tree hash of RFC 6962 §2.1, grown leaf by leaf. INVARIANT: a frontier of n leaves holds one root for every set
//! bit of n, the largest perfect subtree first, and nothing else of the log.

use sha2::{Digest, Sha256};

/// SHA-256 output: a leaf's hash or a subtree's root.
pub type Hash = [u8; 32];

const FORMAT: u8 = 1;

/// A complete subtree: 2^`level` leaves, the last of them leaf number `end - 1`. It never changes once it is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Node {
    pub level: u8,
    pub end: u64,
    pub hash: Hash,
}

/// All that growing a tree needs to remember: O(log n).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    pub fn new() -> Self {
        Self::default()
    }

    /// Leaves so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn append(&mut self, leaf: &[u8]) {
        self.append_hash(leaf_hash(leaf), &mut |_| {});
    }

    /// Appends a leaf by its hash and tells of every subtree that it completes, the smallest (of two leaves) first.
    pub fn append_hash(&mut self, leaf: Hash, completed: &mut dyn FnMut(Node)) {
        let mut node = Node { level: 0, end: self.size + 1, hash: leaf };
        // Every trailing one of the size is a perfect subtree as large as what has just been completed.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                node = Node { level: node.level + 1, hash: node_hash(&left, &node.hash), ..node };
                completed(node);
            }
        }
        self.peaks.push(node.hash);
        self.size += 1;
    }

    /// The tree's head; SHA-256 of nothing for the empty tree.
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        let Some(last) = peaks.next() else { return Sha256::digest([]).into() };
        peaks.fold(*last, |right, left| node_hash(left, &right))
    }

    /// Format, size (u64, big-endian), then the subtrees' roots, the largest first.
    pub fn to_bytes(&self) -> Vec<u8> {
        let size = self.size.to_be_bytes();
        [&[FORMAT], &size[..], self.peaks.as_flattened()].concat()
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&FORMAT, rest) = bytes.split_first()? else { return None };
        let (size, rest) = rest.split_first_chunk()?;
        let size = u64::from_be_bytes(*size);
        let (peaks, []) = rest.as_chunks() else { return None };
        (peaks.len() == usize::try_from(size.count_ones()).ok()?).then(|| Self { size, peaks: peaks.to_vec() })
    }
}

/// SHA-256(0x00 ‖ leaf).
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    Sha256::new_with_prefix([0]).chain_update(leaf).finalize().into()
}

/// SHA-256(0x01 ‖ left ‖ right).
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new_with_prefix([1]).chain_update(left).chain_update(right).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ct_merkle::mem_backed_tree::MemoryBackedTree;
    use proptest::prelude::*;

    fn grown(leaves: &[Vec<u8>]) -> Frontier {
        let mut frontier = Frontier::new();
        leaves.iter().for_each(|leaf| frontier.append(leaf));
        frontier
    }

    /// Leaves and roots of the Certificate Transparency reference implementation's own test (merkle_tree_test).
    #[test]
    fn the_reference_vectors_hold() {
        let vectors = [
            ("", "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
            ("00", "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
            ("10", "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"),
            ("2021", "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"),
            ("3031", "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4"),
            ("40414243", "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef"),
            ("5051525354555657", "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"),
            ("606162636465666768696a6b6c6d6e6f", "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
        ];
        let mut frontier = Frontier::new();
        assert_eq!(hex::encode(frontier.root()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        for (leaf, root) in vectors {
            frontier.append(&hex::decode(leaf).unwrap());
            assert_eq!(hex::encode(frontier.root()), root, "{} leaves", frontier.size());
        }
    }

    #[test]
    fn every_size_up_to_300_agrees_with_another_implementation() {
        let mut frontier = Frontier::new();
        let mut tree = MemoryBackedTree::<Sha256, Vec<u8>>::new();
        for n in 0..300u32 {
            assert_eq!(frontier.root(), <Hash>::from(*tree.root().as_bytes()), "{n} leaves");
            frontier.append(&n.to_be_bytes());
            tree.push(n.to_be_bytes().to_vec());
        }
    }

    proptest! {
        #[test]
        fn random_trees_agree_with_another_implementation(
            leaves in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..70),
        ) {
            let mut tree = MemoryBackedTree::<Sha256, Vec<u8>>::new();
            leaves.iter().for_each(|leaf| tree.push(leaf.clone()));
            prop_assert_eq!(grown(&leaves).root(), <Hash>::from(*tree.root().as_bytes()));
        }

        #[test]
        fn a_frontier_goes_on_from_its_bytes(
            before in proptest::collection::vec(any::<[u8; 4]>(), 0..40),
            after in proptest::collection::vec(any::<[u8; 4]>(), 0..40),
        ) {
            let leaves = |raw: &[[u8; 4]]| raw.iter().map(|leaf| leaf.to_vec()).collect::<Vec<_>>();
            let mut frontier = Frontier::from_bytes(&grown(&leaves(&before)).to_bytes()).unwrap();
            leaves(&after).iter().for_each(|leaf| frontier.append(leaf));
            prop_assert_eq!(frontier, grown(&leaves(&[before, after].concat())));
        }
    }

    #[test]
    fn malformed_frontiers_are_refused() {
        let good = grown(&[vec![1], vec![2], vec![3]]).to_bytes();
        let mut odd_size = good.clone();
        odd_size[8] = 2;
        for bad in [&[][..], &[1], &[2, 0, 0, 0, 0, 0, 0, 0, 0], &good[..good.len() - 1], &good[..41], &odd_size] {
            assert_eq!(Frontier::from_bytes(bad), None);
        }
    }
}
