//! Against RFC 6962's own example, the reference implementation's vectors, a second implementation, and a third written from
//! the RFC's recursive definitions.

use std::cell::Cell;
use std::convert::Infallible;

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use proptest::prelude::*;

use super::super::tree::leaf_hash;
use super::*;

/// A tree whose leaves are made from their numbers and whose stored nodes are kept as the store keeps them; it counts what is
/// read of it.
struct Grown {
    frontier: Frontier,
    nodes: std::collections::HashMap<(u8, u64), Hash>,
    nodes_read: Cell<usize>,
    leaves_read: Cell<usize>,
}

fn leaf(number: u64) -> Hash {
    leaf_hash(&number.to_be_bytes())
}

impl Grown {
    fn to(size: u64) -> Self {
        let (mut frontier, mut nodes) = (Frontier::new(), std::collections::HashMap::new());
        for number in 0..size {
            frontier.append_hash(leaf(number), &mut |node| {
                if node.level >= STORED_FROM {
                    nodes.insert((node.level, node.end), node.hash);
                }
            });
        }
        Self { frontier, nodes, nodes_read: Cell::new(0), leaves_read: Cell::new(0) }
    }

    /// What one proof reads.
    fn count<T>(&self, proof: impl FnOnce(&Self) -> T) -> (T, usize, usize) {
        self.nodes_read.set(0);
        self.leaves_read.set(0);
        let made = proof(self);
        (made, self.nodes_read.get(), self.leaves_read.get())
    }
}

impl Hashes for Grown {
    type Error = Infallible;

    fn node(&self, level: u8, end: u64) -> Result<Hash, Infallible> {
        self.nodes_read.set(self.nodes_read.get() + 1);
        Ok(self.nodes[&(level, end)])
    }

    fn leaves(&self, range: Range<u64>) -> Result<Vec<Hash>, Infallible> {
        assert!(range.end - range.start <= SECTION && range.end <= self.frontier.size());
        self.leaves_read.set(self.leaves_read.get() + usize::try_from(range.end - range.start).unwrap());
        Ok(range.map(leaf).collect())
    }
}

/// RFC 6962 §2.1, word by word, over leaf hashes.
mod by_the_book {
    use super::*;

    fn k(n: usize) -> usize {
        let mut k = 1;
        while k * 2 < n {
            k *= 2;
        }
        k
    }

    pub fn mth(d: &[Hash]) -> Hash {
        match d {
            [] => Sha256::digest([]).into(),
            [one] => *one,
            _ => {
                let (left, right) = d.split_at(k(d.len()));
                Sha256::digest([&[1], &mth(left)[..], &mth(right)].concat()).into()
            }
        }
    }

    pub fn path(m: usize, d: &[Hash]) -> Vec<Hash> {
        if d.len() == 1 {
            return Vec::new();
        }
        let k = k(d.len());
        let (mut path, beside) =
            if m < k { (path(m, &d[..k]), mth(&d[k..])) } else { (path(m - k, &d[k..]), mth(&d[..k])) };
        path.push(beside);
        path
    }

    pub fn subproof(m: usize, d: &[Hash], b: bool) -> Vec<Hash> {
        if m == d.len() {
            return if b { Vec::new() } else { vec![mth(d)] };
        }
        let k = k(d.len());
        let (mut proof, beside) = if m <= k {
            (subproof(m, &d[..k], b), mth(&d[k..]))
        } else {
            (subproof(m - k, &d[k..], false), mth(&d[..k]))
        };
        proof.push(beside);
        proof
    }
}

/// The example of RFC 6962 §2.1.3: seven leaves d0 … d6, with the names it gives the nodes.
#[test]
fn the_rfcs_own_example_comes_out() {
    let d: Vec<Hash> = (0..7).map(leaf).collect();
    let node = |left: Hash, right: Hash| node_hash(&left, &right);
    let (a, b, c, dd, e, f, j) = (d[0], d[1], d[2], d[3], d[4], d[5], d[6]);
    let (g, h, i) = (node(a, b), node(c, dd), node(e, f));
    let (k, l) = (node(g, h), node(i, j));
    let tree = Grown::to(7);
    assert_eq!(root(&tree, 7).unwrap(), node(k, l));
    for (index, expected) in [(0, vec![b, h, l]), (3, vec![c, g, l]), (4, vec![f, j, k]), (6, vec![i, k])] {
        assert_eq!(inclusion(&tree, index, 7).unwrap(), expected, "d{index}");
    }
    for (from, expected) in [(3, vec![c, dd, g, l]), (4, vec![l]), (6, vec![i, j, k])] {
        assert_eq!(consistency(&tree, from, 7).unwrap(), expected, "from {from}");
    }
}

/// Leaves, paths and proofs of the Certificate Transparency reference implementation's own test (merkle_tree_test).
#[test]
fn the_reference_implementations_vectors_hold() {
    struct Vectors(Vec<Hash>);
    impl Hashes for Vectors {
        type Error = Infallible;
        fn node(&self, level: u8, end: u64) -> Result<Hash, Infallible> {
            unreachable!("{level} {end}")
        }
        fn leaves(&self, range: Range<u64>) -> Result<Vec<Hash>, Infallible> {
            Ok(self.0[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()].to_vec())
        }
    }
    let leaves = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
    let tree = Vectors(leaves.map(|leaf| leaf_hash(&hex::decode(leaf).unwrap())).to_vec());
    let shown = |proof: Vec<Hash>| proof.iter().map(hex::encode).collect::<Vec<_>>();
    assert_eq!(
        shown(inclusion(&tree, 0, 8).unwrap()),
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ]
    );
    assert_eq!(
        shown(inclusion(&tree, 5, 8).unwrap()),
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ]
    );
    assert_eq!(
        shown(consistency(&tree, 6, 8).unwrap()),
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ]
    );
}

#[test]
fn every_proof_of_every_small_tree_is_the_rfcs_and_verifies_and_nothing_near_it_does() {
    for size in 1..70u64 {
        let (tree, leaves) = (Grown::to(size), (0..size).map(leaf).collect::<Vec<_>>());
        let head = tree.frontier.root();
        assert_eq!(by_the_book::mth(&leaves), head);
        for index in 0..size {
            let made = inclusion(&tree, index, size).unwrap();
            assert_eq!(made, by_the_book::path(usize::try_from(index).unwrap(), &leaves));
            assert_eq!(led_to(index, size, leaf(index), &made), Some(head));
            assert_ne!(led_to(index, size, leaf(index + 1), &made), Some(head));
            let mut longer = made.clone();
            longer.push([0; 32]);
            assert_eq!(led_to(index, size, leaf(index), &longer), None);
            if let Some((_, shorter)) = made.split_last() {
                assert_ne!(led_to(index, size, leaf(index), shorter), Some(head));
            }
        }
        for from in 1..=size {
            let made = consistency(&tree, from, size).unwrap();
            assert_eq!(made, by_the_book::subproof(usize::try_from(from).unwrap(), &leaves, true));
            let old = by_the_book::mth(&leaves[..usize::try_from(from).unwrap()]);
            assert!(is_beginning(from, old, size, head, &made));
            assert!(!is_beginning(from, [9; 32], size, head, &made) && !is_beginning(from, old, size, [9; 32], &made));
            for at in 0..made.len() {
                let mut bad = made.clone();
                bad[at][0] ^= 1;
                assert!(!is_beginning(from, old, size, head, &bad));
            }
        }
        assert_eq!(led_to(size, size, leaf(0), &[]), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Trees that have stored nodes, against another implementation's proofs.
    #[test]
    fn proofs_out_of_stored_nodes_agree_with_another_implementation(size in 1..3_000u64, at: prop::sample::Index, from: prop::sample::Index) {
        let tree = Grown::to(size);
        let mut other = MemoryBackedTree::<Sha256, Vec<u8>>::new();
        (0..size).for_each(|number| other.push(number.to_be_bytes().to_vec()));
        prop_assert_eq!(root(&tree, size).unwrap(), <Hash>::from(*other.root().as_bytes()));
        let index = at.index(usize::try_from(size).unwrap());
        let made = inclusion(&tree, index as u64, size).unwrap();
        let theirs = other.prove_inclusion(index);
        prop_assert_eq!(made.as_flattened(), theirs.as_bytes());
        let from = 1 + from.index(usize::try_from(size).unwrap()) as u64;
        let made = consistency(&tree, from, size).unwrap();
        let theirs = other.prove_consistency(usize::try_from(size - from).unwrap());
        prop_assert_eq!(made.as_flattened(), theirs.as_bytes());
    }

    /// A section's path is a path of the tree of sections, and the section's leaves lead to its head.
    #[test]
    fn a_section_is_a_leaf_of_the_tree_of_sections(size in 1..3_000u64, at: prop::sample::Index) {
        let tree = Grown::to(size);
        let sections = size.div_ceil(SECTION);
        let number = at.index(usize::try_from(sections).unwrap()) as u64;
        let first = number * SECTION;
        let leaves: Vec<Hash> = (first..size.min(first + SECTION)).map(leaf).collect();
        let made = section(&tree, first, size).unwrap();
        prop_assert_eq!(led_to(number, sections, by_the_book::mth(&leaves), &made), Some(tree.frontier.root()));
    }

    #[test]
    fn peaks_are_a_frontier(size in 0..3_000u64) {
        let tree = Grown::to(size);
        let bytes = [&[1], &size.to_be_bytes()[..], peaks(&tree, size).unwrap().as_flattened()].concat();
        prop_assert_eq!(Frontier::from_bytes(&bytes).unwrap(), tree.frontier);
    }
}

/// Two million entries by default, a hundred million with `STRONGROOM_FULL=1`: what growing needs stays below 1 KiB, and proofs
/// read two nodes a level and two sections.
#[test]
fn a_large_tree_grows_in_flat_memory_and_proves_with_logarithmic_reads() {
    let size = if std::env::var_os("STRONGROOM_FULL").is_some() { 100_000_000 } else { 2_000_003 };
    let tree = Grown::to(size);
    let state = tree.frontier.to_bytes().len();
    let levels = usize::try_from(size.ilog2()).unwrap() + 1;
    println!("{size} entries: {state} bytes to go on from, {} stored nodes", tree.nodes.len());
    assert!(state < 1_024);
    assert!(tree.nodes.len() as u64 <= 2 * size / SECTION);
    let (mut most_nodes, mut most_leaves) = (0, 0);
    for index in [0, 1, 255, 256, size / 3, size / 2, size - 257, size - 1] {
        let (path, nodes, leaves) = tree.count(|tree| inclusion(tree, index, size).unwrap());
        assert_eq!(led_to(index, size, leaf(index), &path), Some(tree.frontier.root()), "{index}");
        (most_nodes, most_leaves) = (most_nodes.max(nodes), most_leaves.max(leaves));
        let from = index + 1;
        let (old, _, _) = tree.count(|tree| root(tree, from).unwrap());
        let (proof, nodes, leaves) = tree.count(|tree| consistency(tree, from, size).unwrap());
        assert!(is_beginning(from, old, size, tree.frontier.root(), &proof), "{from}");
        (most_nodes, most_leaves) = (most_nodes.max(nodes), most_leaves.max(leaves));
    }
    println!("a proof reads at most {most_nodes} nodes and {most_leaves} leaves");
    assert!(most_nodes <= 2 * levels && most_leaves <= 512);
}
