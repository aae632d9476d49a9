//! A sorted map whose clones cost nothing: a clone shares all nodes, and whoever changes one copies
//! the way to it. So a snapshot reads the map as it was while commands go on to change it, and what is
//! held twice is what they change.
//!
//! A B+ tree: leaves hold the pairs, branches the least key that each child may have.

use std::ops::Bound;
use std::sync::Arc;

/// Pairs of a leaf, or children of a branch, at most.
const MOST: usize = 64;

/// A node with fewer is merged with one beside it, if both fit into one.
const FEW: usize = MOST / 4;

/// See the [module](self).
#[derive(Clone, Debug)]
pub(super) struct Tree<V> {
    root: Arc<Node<V>>,
    len: usize,
}

#[derive(Clone, Debug)]
enum Node<V> {
    Leaf(Vec<(Arc<str>, V)>),
    /// Never empty. The first child also has what is before its key.
    Branch(Vec<Child<V>>),
}

type Child<V> = (Arc<str>, Arc<Node<V>>);

impl<V> Default for Tree<V> {
    fn default() -> Self {
        Self { root: Arc::new(Node::Leaf(Vec::new())), len: 0 }
    }
}

impl<V> Tree<V> {
    /// How many keys there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&V> {
        let mut node = &*self.root;
        loop {
            match node {
                Node::Leaf(pairs) => {
                    let at = pairs.binary_search_by(|(known, _)| (**known).cmp(key)).ok()?;
                    return Some(&pairs[at].1);
                }
                Node::Branch(children) => node = &*children[child_of(children, key)].1,
            }
        }
    }

    /// The pairs from a key on, in the order of the keys.
    pub(super) fn starting(&self, key: Bound<&str>) -> Iter<'_, V> {
        let mut iter = Iter { branches: Vec::new(), leaf: [].iter() };
        iter.descend(&self.root, key);
        iter
    }

    /// All pairs, in the order of the keys.
    pub(super) fn iter(&self) -> Iter<'_, V> {
        self.starting(Bound::Unbounded)
    }
}

impl<V: Clone> Tree<V> {
    /// Gives a key a value, and returns the one that it had.
    pub(super) fn insert(&mut self, key: &str, value: V) -> Option<V> {
        let (before, beside) = insert(&mut self.root, key, value);
        if let Some(right) = beside {
            let left = (least(&self.root), Arc::clone(&self.root));
            self.root = Arc::new(Node::Branch(vec![left, right]));
        }
        self.len += usize::from(before.is_none());
        before
    }

    /// Takes a key away, and returns the value that it had.
    pub(super) fn remove(&mut self, key: &str) -> Option<V> {
        // What is not there must not cost a copy of the way to it.
        self.get(key)?;
        let removed = remove(&mut self.root, key);
        while let Node::Branch(children) = &*self.root
            && let [(_, only)] = &children[..]
        {
            self.root = Arc::clone(only);
        }
        self.len -= usize::from(removed.is_some());
        removed
    }
}

impl<V: PartialEq> PartialEq for Tree<V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl<V: Eq> Eq for Tree<V> {}

/// The child that has the key, if any has.
fn child_of<V>(children: &[Child<V>], key: &str) -> usize {
    children.partition_point(|(least, _)| &**least <= key).saturating_sub(1)
}

fn least<V>(node: &Node<V>) -> Arc<str> {
    match node {
        Node::Leaf(pairs) => pairs.first().map_or_else(|| "".into(), |(key, _)| Arc::clone(key)),
        Node::Branch(children) => Arc::clone(&children[0].0),
    }
}

/// Returns what the key had, and what has to stand beside the node from now on.
fn insert<V: Clone>(node: &mut Arc<Node<V>>, key: &str, value: V) -> (Option<V>, Option<Child<V>>) {
    match Arc::make_mut(node) {
        Node::Leaf(pairs) => match pairs.binary_search_by(|(known, _)| (**known).cmp(key)) {
            Ok(at) => (Some(std::mem::replace(&mut pairs[at].1, value)), None),
            Err(at) => {
                pairs.insert(at, (key.into(), value));
                let right = split(pairs).map(Node::Leaf);
                (None, right.map(|right| (least(&right), Arc::new(right))))
            }
        },
        Node::Branch(children) => {
            let at = child_of(children, key);
            let (before, beside) = insert(&mut children[at].1, key, value);
            let Some(beside) = beside else { return (before, None) };
            children.insert(at + 1, beside);
            let right = split(children).map(Node::Branch);
            (before, right.map(|right| (least(&right), Arc::new(right))))
        }
    }
}

/// The second half of what is too much for one node.
fn split<T>(items: &mut Vec<T>) -> Option<Vec<T>> {
    (items.len() > MOST).then(|| items.split_off(MOST / 2))
}

fn remove<V: Clone>(node: &mut Arc<Node<V>>, key: &str) -> Option<V> {
    match Arc::make_mut(node) {
        Node::Leaf(pairs) => {
            let at = pairs.binary_search_by(|(known, _)| (**known).cmp(key)).ok()?;
            Some(pairs.remove(at).1)
        }
        Node::Branch(children) => {
            let at = child_of(children, key);
            let removed = remove(&mut children[at].1, key);
            merge(children, at);
            removed
        }
    }
}

/// Merges a child that has become small with the one after or before it, if one node has room for
/// both.
fn merge<V: Clone>(children: &mut Vec<Child<V>>, at: usize) {
    if size(&children[at].1) >= FEW || children.len() == 1 {
        return;
    }
    let left = if at + 1 < children.len() { at } else { at - 1 };
    if size(&children[left].1) + size(&children[left + 1].1) > MOST {
        return;
    }
    let (_, right) = children.remove(left + 1);
    match (Arc::make_mut(&mut children[left].1), Arc::unwrap_or_clone(right)) {
        (Node::Leaf(left), Node::Leaf(right)) => left.extend(right),
        (Node::Branch(left), Node::Branch(right)) => left.extend(right),
        _ => unreachable!("all leaves are equally deep"),
    }
}

fn size<V>(node: &Node<V>) -> usize {
    match node {
        Node::Leaf(pairs) => pairs.len(),
        Node::Branch(children) => children.len(),
    }
}

/// Pairs in the order of their keys.
#[derive(Debug)]
pub(super) struct Iter<'a, V> {
    /// What follows in the branches above, the lowest last.
    branches: Vec<std::slice::Iter<'a, Child<V>>>,
    leaf: std::slice::Iter<'a, (Arc<str>, V)>,
}

impl<'a, V> Iter<'a, V> {
    fn descend(&mut self, mut node: &'a Node<V>, key: Bound<&str>) {
        loop {
            match node {
                Node::Leaf(pairs) => {
                    let from = match key {
                        Bound::Unbounded => 0,
                        Bound::Included(key) => pairs.partition_point(|(known, _)| &**known < key),
                        Bound::Excluded(key) => pairs.partition_point(|(known, _)| &**known <= key),
                    };
                    self.leaf = pairs[from..].iter();
                    return;
                }
                Node::Branch(children) => {
                    let at = match key {
                        Bound::Unbounded => 0,
                        Bound::Included(key) | Bound::Excluded(key) => child_of(children, key),
                    };
                    self.branches.push(children[at + 1..].iter());
                    node = &*children[at].1;
                }
            }
        }
    }
}

impl<'a, V> Iterator for Iter<'a, V> {
    type Item = (&'a Arc<str>, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, value)) = self.leaf.next() {
                return Some((key, value));
            }
            let (_, child) = loop {
                match self.branches.last_mut()?.next() {
                    Some(child) => break child,
                    None => drop(self.branches.pop()),
                }
            };
            self.descend(child, Bound::Unbounded);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use stubborn_core::random::Random;

    use super::*;

    fn same(tree: &Tree<u32>, map: &BTreeMap<String, u32>) {
        assert_eq!(tree.len(), map.len());
        let ours: Vec<(&str, u32)> = tree.iter().map(|(key, value)| (&**key, *value)).collect();
        let theirs: Vec<(&str, u32)> = map.iter().map(|(key, value)| (&**key, *value)).collect();
        assert_eq!(ours, theirs);
    }

    #[test]
    fn a_tree_does_what_a_map_does_and_clones_stay_as_they_were() {
        for seed in 0..6 {
            let mut random = Random::from_seed([seed; 32]);
            let (mut tree, mut map) = (Tree::default(), BTreeMap::new());
            let mut frozen = None;
            // Grows in some seeds, and shrinks in others.
            let inserts = 30 + random.below(40);
            for step in 0..10_000 {
                let key = format!("{:x}", random.below(2_000));
                match random.below(100) {
                    0 => {
                        if let Some((tree, map)) = frozen.replace((tree.clone(), map.clone())) {
                            same(&tree, &map);
                        }
                        for bound in [Bound::Included(&*key), Bound::Excluded(&*key)] {
                            let ours = tree.starting(bound).map(|(key, _)| &**key);
                            let theirs = map.range::<str, _>((bound, Bound::Unbounded));
                            assert!(ours.eq(theirs.map(|(key, _)| &**key)), "{seed} {step}");
                        }
                        assert_eq!(tree.get(&key), map.get(&key));
                    }
                    roll if roll < inserts => {
                        let value = random.below(1 << 30) as u32;
                        assert_eq!(tree.insert(&key, value), map.insert(key, value));
                    }
                    _ => assert_eq!(tree.remove(&key), map.remove(&key)),
                }
            }
            same(&tree, &map);
        }
    }

    #[test]
    fn a_tree_that_is_emptied_shrinks_and_what_is_not_there_is_not_copied() {
        let mut tree = Tree::default();
        for number in 0..10_000 {
            tree.insert(&format!("{number:05}"), number);
        }
        let root = Arc::clone(&tree.root);
        assert_eq!(tree.remove("x"), None);
        assert!(Arc::ptr_eq(&root, &tree.root));
        for number in 0..10_000 {
            assert_eq!(tree.remove(&format!("{number:05}")), Some(number));
        }
        assert!(matches!(&*tree.root, Node::Leaf(pairs) if pairs.is_empty()));
        assert_eq!((tree.len(), tree.iter().count()), (0, 0));
    }
}
